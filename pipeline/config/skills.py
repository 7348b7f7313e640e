"""The teacher, and the corpus that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.config.cluster import PoolConfig
from pipeline.config.domains import Category
from pipeline.config.endpoints import EndpointUse
from pipeline.config.models import ModelConfig, SamplingConfig
from pipeline.config.section import Implemented, Registry, Section
from pipeline.config.types import Fraction, Positive, Seconds


class TeacherConfig(Implemented):
    """Who proposes skills and plays the episodes that the proposer learns from."""

    pool: PoolConfig = PoolConfig()
    """The replicas in which its episodes are played."""

    def each(self) -> dict[str, tuple[float, TeacherConfig]]:
        """Field -> weight and section of each teacher that this is made of: one, or those of a mixture."""
        return {"teacher": (1.0, self)}

    @property
    def called(self) -> str:
        """What it is called where it is told who taught what."""
        return str(getattr(self, "kind", ""))


class ScriptedTeacherConfig(TeacherConfig):
    """The domain's own teacher, where it has one: same prompts, same text format, no network."""

    implementation: ClassVar[str] = "pipeline.domains.teachers:scripted"
    kind: Literal["scripted"] = "scripted"


class OpenAITeacherConfig(TeacherConfig, EndpointUse):
    """Any OpenAI-compatible endpoint, vLLM's own server included."""

    implementation: ClassVar[str] = "pipeline.domains.teachers:openai"
    kind: Literal["openai"] = "openai"
    base_url: str
    """Of the endpoint, up to and with /v1."""
    model: str
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself never enters a run directory."""
    timeout_s: Seconds = 120
    """For a try of a call, from when it is its turn."""
    retries: int = Field(default=4, ge=0)
    """Further tries where the endpoint does not answer."""
    temperature: float = Field(default=0.7, ge=0)
    """At which replies are sampled."""
    max_tokens: Positive = 4096
    """Of a reply."""
    guided: bool = False
    """Hold the turns of its episodes to a header and a readable call, where the endpoint can (vLLM's
    `structured_outputs`). For a model that was never trained on episodes; a policy in training is held to nothing."""

    @property
    def called(self) -> str:
        return self.model


class ModelTeacherConfig(TeacherConfig):
    """A model in a pool of the run's own engines."""

    implementation: ClassVar[str] = "pipeline.domains.teachers:pooled"
    kind: Literal["model"] = "model"
    model: ModelConfig
    """The model, its engine, and the pool that serves it: {path: …}."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=4096)
    """How it answers."""
    timeout_s: Seconds = 600
    """For a reply, from when the pool has it."""

    @property
    def called(self) -> str:
        return self.model.path

    def contradictions(self) -> Iterator[str]:
        if self.model.endpoint is not None:
            yield "model.endpoint: expected kind openai, which asks one"


_ALONE: Registry[TeacherConfig] = Registry("kind", [ScriptedTeacherConfig, OpenAITeacherConfig, ModelTeacherConfig])


class WeightedTeacher(Section):
    """One of several."""

    weight: float = Field(default=1.0, gt=0)
    """Its share of documents and of episodes, beside the others'."""
    teacher: Annotated[TeacherConfig, _ALONE]
    """Its section, as if it were the only one; the pool that plays episodes is the mixture's."""


class MixtureTeacherConfig(TeacherConfig):
    """Several teachers, each for its share of documents and episodes; which one a document or an episode gets follows
    from its seed."""

    implementation: ClassVar[str] = "pipeline.domains.teachers:mixed"
    kind: Literal["mixture"] = "mixture"
    of: tuple[WeightedTeacher, ...] = Field(min_length=1)
    """[{weight: 2, teacher: {kind: openai, …}}, {teacher: {kind: model, …}}]"""

    def contradictions(self) -> Iterator[str]:
        for i, one in enumerate(self.of):
            if one.teacher.pool != PoolConfig():
                yield f"of.{i}.teacher.pool: all teachers' episodes are played in one pool; expected teacher.pool alone"

    def each(self) -> dict[str, tuple[float, TeacherConfig]]:
        return {f"teacher.of.{i}.teacher": (one.weight, one.teacher) for i, one in enumerate(self.of)}


TEACHERS: Registry[TeacherConfig] = Registry("kind", [*_ALONE.sections.values(), MixtureTeacherConfig])


class CorpusFields(Section):
    """The names of columns of .jsonl and .parquet."""

    question: str = "question"
    """Of the question, or the task."""
    answer: str = "answer"
    """Of its answer."""
    text: str = "text"
    """Read where a row has neither question nor answer."""
    source: str | None = None
    """Where the row came from, such as its URL."""
    license: str | None = None
    """The row's own licence."""

    def names(self) -> list[str]:
        return [name for name in (self.question, self.answer, self.text, self.source, self.license) if name is not None]


class CorpusSource(Section):
    """A part of the corpus that has a licence, a source or names of columns of its own."""

    path: str
    """A file, a folder, or a URI that pyarrow reaches (s3://, gs://, hdfs://)."""
    license: str | None = None
    """As the Hub writes it; None: that of the corpus."""
    source: str | None = None
    """Where it is from, which stays with each skill that is read from it."""
    fields: CorpusFields = CorpusFields()


class AcquireStage(Section):
    proposer: ModelConfig | None = None
    """Who proposes skills: {path: a checkpoint that has learned to extract} or {endpoint: …}; the rubric's calls stay
    with the teacher. None: the teacher. `propose acquire RUN --with proposer` takes the run's own."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=4096)
    """How `acquire.proposer` answers."""
    timeout_s: Seconds = 600
    """For its reply, from when the pool has it."""
    corpus: Annotated[tuple[str | CorpusSource, ...], Field(min_length=1)]
    """Files, folders, URIs, or {path: …, license: …, source: …, fields: …}. Read are .jsonl and .parquet with question
    and answer, or text; .md, .rst, .txt, the main text of .html, the text of .pdf; all but .parquet and .pdf also with
    .gz or .zst behind."""
    license: str | None = None
    """Licence of the corpus, as the Hub writes it (cc-by-4.0, other, …); the card tells it. None: unknown."""
    on_bad_record: Literal["stop", "skip"] = "stop"
    """A line that is no valid record: stop with its file and line number, or skip and count it."""
    min_score: Fraction = 0.5
    """tau_r, the score below which a skill is rejected (open in the paper)."""
    scoring: Literal["rubric", "teacher"] = "rubric"
    """Who gives a candidate its score r(k): a call of its own that holds it against a rubric (well formed, reusable,
    actionable, verifiable), or the teacher, in the reply that proposes it."""
    categories: dict[Category, Category] = Field(default={})
    """Proposed category -> the one that its skills go to, {algebra: maths}. Others stand beside those that the domain
    names, but for other spellings and parts (math, maths/algebra) of these."""
    min_category: Positive | None = None
    """Skills of a category that is only proposed; those of smaller ones go to `other`, so that they can be offered.
    None: as many as a task combines, `mgpo.curriculum.min_skills`."""
    self_test: Literal["required", "optional"] = "required"
    """Of a script: an example in a docstring, in the form of doctest, that is run before the skill is taken. A script
    that fails its own is refused in any case, and its skill with it."""
    max_document_chars: Positive = 8000
    """Of a text shown to the teacher at once; a Chinese, Japanese or Korean sign counts for three."""
