"""The stages that train, write and measure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.benchmarks import PresetConfig, presets
from pipeline.config.models import ModelConfig, SamplingConfig
from pipeline.config.objectives import OBJECTIVES, GRPOConfig, MGPOConfig, ObjectiveConfig
from pipeline.config.rewriting import REWRITINGS, RewritingConfig
from pipeline.config.section import Section
from pipeline.config.training import Scheduled, Supervised, Updates
from pipeline.config.types import Fraction, Positive, Seconds

Style = Literal["at_once", "checked", "refined", "pruned"]
"""Of an expert trajectory."""
STYLES: tuple[Style, ...] = ("at_once", "checked", "refined", "pruned")


class SFTStage(Supervised):
    data: str | None = None
    """Trajectories to clone instead of playing any: a .jsonl, each line {"messages": [{"role": …, "content": …}, …]}
    with the roles system, user and assistant. None: the teacher's, as far as the committee accepts them."""
    trajectories: Positive = 1000
    """Teacher episodes to collect, before the committee's filter."""
    styles: dict[Style, Annotated[float, Field(ge=0)]] = Field(default=dict.fromkeys(STYLES, 1.0))
    """Style -> its share of the episodes that teachers are asked for, where the domain has words for it (text:
    prompts/style_*.md): submitted at once, checked, refined, or pruned."""
    balance: float | None = Field(default=2.0, ge=1)
    """Accepted trajectories of one style in one category that are cloned at most: so many times an equal share of
    `trajectories`; None: all."""
    extraction: Fraction = 0.1
    """Share of what is cloned that teaches to extract: documents of the corpus, with the skills that were kept of each
    (L_skill-acq; its weight is open in the paper). Each document comes once an epoch at most, so a small corpus makes
    fewer."""
    epochs: Positive = 3
    """Passes over the accepted trajectories."""
    batch: Positive = 32
    """Trajectories a step."""

    def contradictions(self) -> Iterator[str]:
        if self.extraction == 1:
            yield "extraction (1): nothing is left of the trajectories; expected less than 1"
        if self.styles and not any(self.styles.values()):
            yield "styles: every share is 0; expected one above, or {}"


class CurriculumConfig(Section):
    alpha: Fraction = 0.1
    """Step of the proficiency average m_c (open in the paper)."""
    epsilon: float = Field(default=0.1, gt=0)
    """p(c) is proportional to 1 / (m_c + epsilon) (open in the paper)."""
    min_skills: Positive = 2
    """Fewest skills that a task asks to combine."""
    max_skills: Positive = 3
    """Most skills that a task asks to combine."""
    combinations: bool = False
    """Learn which skills go together, from what was pruned and what the committee accepted, and offer the others seldom
    (the paper names a bandit for skills alone). For skills from real documents; in the mini world pruning is taught."""

    @model_validator(mode="after")
    def _ordered(self) -> CurriculumConfig:
        if self.max_skills < self.min_skills:
            raise ValueError(f"max_skills ({self.max_skills}) must be at least min_skills ({self.min_skills})")
        return self


class MGPOStage(Scheduled, Updates):
    steps: Positive = 200
    """Steps, each with rollouts of its own, and one optimizer update unless mini_batches or passes say more."""
    groups: Positive = 32
    """Skill prompts a step."""
    group_size: int = Field(default=8, ge=2)
    """G trajectories a skill prompt."""
    objective: Annotated[ObjectiveConfig, OBJECTIVES] = MGPOConfig()
    """What is optimised."""
    max_staleness: int = Field(default=0, ge=0)
    """0: pools and trainer take turns. n: a rollout may be n versions older than the step that trains on it."""
    checkpoint_every: Positive = 10
    """Steps between checkpoints."""
    curriculum: CurriculumConfig = CurriculumConfig()
    """Which skills tasks are drawn from."""

    @field_validator("objective")
    @classmethod
    def _of_rewards(cls, objective: ObjectiveConfig) -> ObjectiveConfig:
        if objective.name == "sft":
            raise ValueError("sft learns from examples, not from rewards; expected another objective")
        return objective


class DifficultyShare(Section):
    """Rows of one difficulty."""

    low: Fraction
    """Least share of the prober's answers that are right (rho, in the reading of `reward.rho`)."""
    high: Fraction
    """Where the band ends: rho is less; 1 is in it where it ends at 1."""
    share: Fraction
    """Of the rows of the data set."""

    def holds(self, rho: float) -> bool:
        return self.low <= rho < self.high or rho == self.high == 1

    def contradictions(self) -> Iterator[str]:
        if self.low >= self.high:
            yield f"low ({self.low:g}) must be below high ({self.high:g})"
        if self.share == 0:
            yield "share (0): nothing is asked for; expected more, or no such band"


class SynthesizeStage(Section):
    proposer: ModelConfig | None = None
    """Who writes: {path: a checkpoint} or {endpoint: …}. None: the proposer that MGPO trained in this run, and where
    `proposer` is an endpoint that one."""
    rewrite: Annotated[RewritingConfig, REWRITINGS] | None = None
    """Write from seed problems, as MetaMath or WizardMath do, in the agent's place: the baselines. The teacher is
    asked, for one problem an episode; proposer and skills play no part. null: the agent writes."""
    filter: Literal["committee", "none"] = "committee"
    """What decides on a row: verifiers and prober, or nothing. none, a baseline too: whatever was handed in, with its
    writer's answer, but for copies, held-out combinations and what `avoid` names. The committee is asked all the same,
    so that the provenance tells its verdicts."""
    skills: str | None = None
    """A skill library, as `acquire` leaves one in skills/ of its run directory. None: this run's."""
    target: Positive = 10_000
    """Accepted, distinct problems."""
    target_episodes: Positive | None = None
    """End well, with what was accepted, after so many episodes; None: however many."""
    target_tokens: Positive | None = None
    """End well, with what was accepted, when episodes and probes have sampled so many; None: however many."""
    target_hours: float | None = Field(default=None, gt=0)
    """End well when the pools have written for so long: no task begins after that. None: however long."""
    target_usd: float | None = Field(default=None, gt=0)
    """End well when the stage has spent so much at endpoints that have a price (`usd_per_million_in` and `_out`); what
    is under way then is paid, too (an endpoint's `budget_usd` is never exceeded). None: however much. Which of the
    targets ended the stage is its result's `ended_by`."""
    difficulty: tuple[DifficultyShare, ...] = ()
    """Shares of the rows by difficulty, for example [{low: 0.1, high: 0.5, share: 0.4}]: so many are in that band, the
    others outside of all bands. Chosen in the order of the tasks; what finds no place is counted as left out."""
    categories: dict[str, Fraction] = Field(default={})
    """The same by category: category -> its share of the rows."""
    never_solved: Literal["aside", "keep"] = "aside"
    """Valid problems that no prober solves above chance: in unsolved.jsonl, or rows like others."""
    always_solved: Literal["keep", "leave_out"] = "keep"
    """Problems that the prober solves every time: rows like others, or none."""
    max_episodes: Positive = 200_000
    """Stop after this many: what was accepted by then is exported, and the exit says how many are missing."""
    avoid: tuple[str, ...] | None = None
    """Benchmarks and other data sets that no row may repeat (.jsonl, .parquet, folders, runs, owner/name on the Hub,
    presets as gsm8k or gsm8k=FILE): the same words whatever the case, blanks and LaTeX, the same clauses in another
    order, nearly the same words, or a good part of a question. The same words with other numbers may stay."""
    in_flight: Positive = 256
    """Episodes played at a time, and tasks of a step: steps are committed in order, and none waits with its begin for
    the one before it."""

    def contradictions(self) -> Iterator[str]:
        for name, shares in (
            ("difficulty", [band.share for band in self.difficulty]),
            ("categories", list(self.categories.values())),
        ):
            if sum(shares) > 1 + 1e-9:
                yield f"{name}: shares add up to {sum(shares):g}; expected 1 at most"
        if self.filter == "none" and self.difficulty:
            yield "difficulty: with filter none nobody says how hard a problem is; expected no bands, or the committee"
        if self.rewrite is not None and self.proposer is not None:
            yield "proposer and rewrite: each says who writes; expected one of the two"
        bands = sorted(self.difficulty, key=lambda band: band.low)
        for one, other in pairwise(bands):
            if other.low < one.high:
                yield (
                    f"difficulty: {one.low:g} to {one.high:g} and {other.low:g} to {other.high:g} overlap; expected "
                    "bands apart"
                )


class SourceConfig(Section):
    """A file of a mixture."""

    path: str | None = None
    """As `solve.data`. None: the data set of this run."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of what is learned from, against the other weights; not of how many problems it has."""


class WarmupConfig(Supervised):
    """SFT of the solver on worked solutions, before GRPO begins. Of the run's own data set they are right answers of
    its probers, which saw the question alone; of a file they are its column `solution`. No proposer's text is among
    them."""

    data: str | None = None
    """A .jsonl of question, answer and solution to learn from instead. None: the problems that GRPO learns from, as far
    as they have a solution."""
    epochs: Positive = 1
    """Passes over the solutions."""
    batch: Positive = 32
    """Solutions a step."""


class SolveStage(Scheduled, Updates):
    data: str | None = None
    """Problems to learn from: a .jsonl of question, answer (checks where that is a program). None: the data set of this
    run."""
    mixture: tuple[SourceConfig, ...] = ()
    """Learn from several files instead, each as often as its weight says."""
    warmup: WarmupConfig | None = None
    """Supervised training on worked solutions before GRPO ({} for its defaults); null: none."""
    steps: Positive = 200
    """Steps, each with answers of its own, and one optimizer update unless mini_batches or passes say more."""
    problems: Positive = 64
    """Problems a step."""
    group_size: int = Field(default=8, ge=2)
    """Answers to each problem of a step."""
    refill: float = Field(default=0.0, ge=0)
    """Dynamic sampling: a group that is all right or all wrong teaches nothing; it is left out, and the next problems
    are asked in its place, at most this many times `problems` more a step. 0: every group is trained on."""
    band: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Learn from problems of the run's own data set only whose rate, by the prober, lies within."""
    dev: int = Field(default=0, ge=0)
    """Problems that are kept from training, to choose the checkpoint by: the solver is the one that is best on them, of
    those that were made every `checkpoint_every` steps. 0: the last one."""
    dev_samples: Positive = 4
    """Answers to each of them."""
    overlong: Literal["wrong", "mask"] = "wrong"
    """What an answer is that was cut off at its length: wrong, or left out of its group."""
    objective: GRPOConfig = GRPOConfig()
    """What is optimised."""
    sampling: SamplingConfig = SamplingConfig()
    """How the solver answers in training."""
    timeout_s: Seconds = 1800
    """For the answers to one problem."""
    base: ModelConfig
    """The solver before it is trained, and the pool that it is served and trained by."""
    checkpoint_every: Positive = 20
    """Steps between checkpoints."""

    def contradictions(self) -> Iterator[str]:
        low, high = self.band
        if low >= high:
            yield f"band ({low:g}, {high:g}) must have its lower end below its upper one"
        if (self.data is not None or self.mixture) and self.band != (0.0, 1.0):
            yield "band: only the run's own data set says how hard its problems are; expected no band, or no data"
        if self.data is not None and self.mixture:
            yield "data and mixture: each says what is learned from; expected one of the two"
        paths = [source.path for source in self.mixture]
        if twice := {path for path in paths if paths.count(path) > 1}:
            yield f"mixture: {twice.pop() or 'the data set of this run'} is named twice; expected each source once"

    @property
    def on_own_data(self) -> bool:
        """Whether the run's own data set is learned from, alone or with others."""
        return self.data is None and (not self.mixture or any(source.path is None for source in self.mixture))


class EvaluateStage(Section):
    benchmark: str
    """A file of question, answer (checks where that is a program; category), a name that the domain bundles (mini:
    `mini:heldout`, its held-out skill combinations), or a data set on the Hub: owner/name, owner/name@revision, with
    :PATTERN behind it for some of its files. Where a preset is named, its publisher's if nothing is said."""
    preset: str | None = None
    """How a public benchmark is read and asked: aime24, gsm8k, gpqa, … (config/presets.yaml). Its samples
    and sampling hold where none are given. None: by the names of the fields that the file has."""
    fields: dict[str, str] | None = None
    """Our field -> what the file calls it, such as {question: problem, answer: expected_answer}; in place of the
    preset's. None: the preset's; without one the names that are known."""
    keep: dict[str, tuple[str, ...]] | None = None
    """The file's field -> the values whose rows are asked; in place of the preset's. None: the preset's; without one
    every row."""
    shots: Positive | None = None
    """Solved examples before each question; None: none."""
    shots_from: str | None = None
    """The file that they are drawn from, of the same schema as the benchmark, and never the question itself; None: the
    benchmark."""
    model: ModelConfig | None = None
    """Measure this model alone: {path: …} or {endpoint: …}. None: the solver of this run, before and after."""
    models: tuple[ModelConfig, ...] = ()
    """Measure these instead, one after the other, on the same problems with the same seeds, and compare each with those
    before it; `propose evaluate --model` fills it."""
    problems: Positive | None = None
    """Problems used, from the front of the benchmark; None: all."""
    samples: Positive = 64
    """Mean@k: answers a problem (64 in the paper, for mathematics)."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=16384)
    """How the solver answers the benchmark."""

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in presets():
            raise ValueError(f"no preset {name!r}; expected one of {', '.join(presets())}")
        return name

    def mapping(self) -> PresetConfig | None:
        """What the benchmark's fields are called; None: as the reader of any file knows them."""
        given = {name: value for name in ("fields", "keep") if (value := getattr(self, name)) is not None}
        if self.preset is not None:
            return presets()[self.preset].model_copy(update=given)
        if self.fields is None:
            return None
        return PresetConfig(data="evaluate.fields", samples=self.samples, sampling=self.sampling, **given)

    def alone(self) -> dict[str, ModelConfig]:
        """The models that are measured in the place of the run's solver, by their fields."""
        if self.model is not None:
            return {"evaluate.model": self.model}
        return {f"evaluate.models.{i}": model for i, model in enumerate(self.models)}

    def contradictions(self) -> Iterator[str]:
        if self.model is not None and self.models:
            yield "model and models: each says what is measured; expected one of the two"
        if self.keep is not None and self.fields is None and self.preset is None:
            yield "keep: only with fields or a preset is a file read by the names of its fields; expected one of them"
