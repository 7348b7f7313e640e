"""The configuration tree of a run.

Invariant: a `Config` that exists is valid and complete. It is made by laying what the user wrote over the defaults of
its domain, and those over the defaults of the sections, which are the paper's or the field's for models of 0.5 to 30B
parameters. What has no right value without knowing the models is required. Where the paper leaves a value open
(PAPER: [O]) the default is ours, and the field says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.config.benchmarks import protocol
from pipeline.config.cluster import RayConfig
from pipeline.config.committee import CommitteeConfig, ProberConfig
from pipeline.config.domains import DOMAINS, DomainConfig, domain_tree
from pipeline.config.episode import EpisodeConfig, SandboxConfig
from pipeline.config.models import ModelConfig
from pipeline.config.rewards import RewardConfig
from pipeline.config.section import Section, over
from pipeline.config.skills import TEACHERS, AcquireStage, ModelTeacherConfig, TeacherConfig
from pipeline.config.stages import EvaluateStage, MGPOStage, SFTStage, SolveStage, SynthesizeStage
from pipeline.config.training import TrainerConfig
from pipeline.config.types import Seconds


class Config(Section):
    """One run. `propose config show` prints it, resolved; `--set a.b=c` overrides a field."""

    domain: Annotated[DomainConfig, DOMAINS]
    """mini: the bundled bench · text: your own documents and models."""
    name: str = "run"
    """Of the run: its directory, applications and actors are named after it."""
    seed: int = 0
    """Of every choice: tasks, samples, order of batches."""
    mirror: str | None = None
    """A place that outlives the machine (s3://bucket/run, gs://, hdfs://, file:/// or a path) and keeps a copy of the
    run directory: on another machine the same command restores it and goes on. One place a run. Credentials come from
    the environment."""
    replies: str | None = None
    """The file that keeps what endpoints answered, so that the same question is paid for once, by any run that names
    this file; None: replies.sqlite beside the run directory. On a cluster, a path that every node can write to."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Who gets the figures of metrics.jsonl too, beside TensorBoard. Where they send is what their own variables say
    (WANDB_MODE, MLFLOW_TRACKING_URI, …); their clients are the extras `wandb` and `mlflow`."""
    ray: RayConfig = RayConfig()
    """The Ray that a run starts, or the cluster that it joins."""
    proposer: ModelConfig
    """The agent that writes problems: the model that it starts from, its engine, its pool."""
    system_prompt: str | None = None
    """What the proposer is told; None takes the prompt its model was made for, else the domain's."""
    teacher: Annotated[TeacherConfig, TEACHERS]
    """Who proposes skills and plays the first episodes: {kind: openai, base_url: …, model: …}."""
    acquire: AcquireStage
    """What skills are read from: {corpus: [files or folders]}."""
    episode: EpisodeConfig = EpisodeConfig()
    """How long an episode may be, what the agent may do in it, how it is sampled."""
    sandbox: SandboxConfig = SandboxConfig()
    """Where programs of models run, and their limits."""
    committee: CommitteeConfig
    """Who accepts problems: {verifiers: [{kind: program, base_url: …, model: …}, …]}."""
    prober: ProberConfig
    """Who says how hard a problem is: {ladder: [{path: a model directory}, …]}."""
    reward: RewardConfig = RewardConfig()
    """What an episode is paid for."""
    trainer: TrainerConfig = TrainerConfig()
    sft: SFTStage = SFTStage()
    """The training of the proposer on what the teacher played."""
    mgpo: MGPOStage = MGPOStage()
    """The training of the proposer on what it writes."""
    synthesize: SynthesizeStage = SynthesizeStage()
    """The writing of the data set."""
    solve: SolveStage
    """The solver that learns from the data set: {base: {path: a model directory}}."""
    evaluate: EvaluateStage
    """What the solver is measured on: {benchmark: a .jsonl file}."""
    watchdog_s: Seconds = 3600
    """No progress for this long ends the stage with a line that names what it waited for and what is under way."""
    on_stall: Literal["restart", "fail"] = "restart"
    """After that line: begin the stage again from its last step on disk, or end the run."""
    max_stage_restarts: int = Field(default=3, ge=0)
    """How often a stage whose processes are gone begins again without having finished a step in between."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_domain(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "domain" not in given:
            return given
        tree = domain_tree(given["domain"])
        defaults = domain_defaults(tree)
        measured = given.get("evaluate")
        if isinstance(measured, dict) and (asked := protocol(measured.get("preset"))):
            defaults = defaults | {"evaluate": over(defaults.get("evaluate"), asked)}
        return defaults | {k: over(defaults.get(k), v) for k, v in given.items()} | {"domain": tree}

    @field_validator("mirror")
    @classmethod
    def _without_secrets(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in uri:
            raise ValueError("must hold no credentials, for it is written down; they belong in the environment")
        return uri

    @property
    def judge(self) -> ModelConfig:
        """The model that verifiers without an endpoint of their own ask."""
        return self.committee.judge or self.prober.ladder[-1]

    @property
    def judged_on_gpus(self) -> bool:
        """Whether probers or the judge hold GPUs."""
        return any(model.pool.num_gpus for model in (*self.prober.ladder, self.judge))

    def contradictions(self) -> Iterator[str]:
        for where, verifier in self.committee.judges().items():
            if verifier.language and self.domain.free_text:
                yield (
                    f"committee.{where}.kind {verifier.kind} reads the language of domain {verifier.language} only, "
                    "and would flag every free text as ambiguous; expected program (base_url, model, style) or model"
                )
        context, limit = self.proposer.engine.max_model_len, self.episode.limits.max_tokens
        if context is not None and limit > context:
            yield (
                f"episode.limits.max_tokens ({limit}) exceeds proposer.engine.max_model_len ({context}); expected at "
                "most that"
            )
        for field, model in (("proposer", self.proposer), ("solve.base", self.solve.base)):
            yield from self._push(field, model)
        fewest = self.mgpo.curriculum.min_skills
        if self.acquire.min_category is not None and self.acquire.min_category < fewest:
            yield (
                f"acquire.min_category ({self.acquire.min_category}): a task combines mgpo.curriculum.min_skills "
                f"({fewest}), so a smaller category is never offered; expected at least that, or null"
            )
        for stage, updates in (("mgpo", self.mgpo.mini_batches), ("solve", self.solve.mini_batches)):
            if self.trainer.elastic and updates > 1:
                yield (
                    f"{stage}.mini_batches ({updates}): each worker deals out its own groups, so an update would "
                    "depend on how many workers there are; expected 1, or trainer.min_workers null"
                )
        yield from self._empty()

    def _empty(self) -> Iterator[str]:
        """Pools that may have no replica, where nobody waits until one has started."""
        trained = {"proposer": self.proposer.pool, "solve.base": self.solve.base.pool}
        on_cpus = {"teacher": self.teacher.pool, "sandbox": self.sandbox.pool}
        on_cpus |= {"committee": self.committee.pool, "prober": self.prober.pool}
        for pools, why in ((trained, "weights in training need a replica"), (on_cpus, "it holds no GPU")):
            for field, pool in pools.items():
                if pool.min_replicas == 0:
                    yield f"{field}.pool.min_replicas (0): expected 1 or more, for {why}"
        for field, model, deadlines in self._asked():
            if model.pool.min_replicas > 0 or model.endpoint is not None:
                continue
            for name, seconds in deadlines.items():
                if seconds <= model.pool.start_timeout_s:
                    yield (
                        f"{name} ({seconds:g}): a call starts the first replica of {field}.pool, whose min_replicas is "
                        f"0; expected more than its start_timeout_s ({model.pool.start_timeout_s:g})"
                    )

    def _asked(self) -> Iterator[tuple[str, ModelConfig, dict[str, float]]]:
        """Models that are asked and not trained: field, model, and by name the deadlines of who asks."""
        votes = {
            f"committee.{where}.timeout_s": verifier.timeout_s
            for where, verifier in self.committee.judges().items()
            if getattr(verifier, "base_url", "") is None
        }
        for number, model in enumerate(self.prober.ladder):
            judges = self.committee.judge is None and number == len(self.prober.ladder) - 1
            asked = {"prober.timeout_s": self.prober.timeout_s} | (votes if judges else {})
            yield f"prober.ladder.{number}", model, asked
        if self.committee.judge is not None:
            yield "committee.judge", self.committee.judge, votes
        for field, (_, teacher) in self.teacher.each().items():
            if isinstance(teacher, ModelTeacherConfig):
                yield f"{field}.model", teacher.model, {f"{field}.timeout_s": teacher.timeout_s}
        if self.acquire.proposer is not None:
            yield "acquire.proposer", self.acquire.proposer, {"acquire.timeout_s": self.acquire.timeout_s}
        for field, model in self.evaluate.alone().items():
            yield field, model, {"watchdog_s": self.watchdog_s}

    def _push(self, field: str, model: ModelConfig) -> Iterator[str]:
        """Where weights cannot be moved as the model's engine says."""
        engine, pool = model.engine, model.pool
        transport, gpus = engine.weight_transport, pool.num_gpus
        where = f"{field}.engine.weight_transport {transport}: {field}.pool has num_gpus {gpus:g}"
        if transport == "object_store":
            return
        if not self.trainer.use_gpu:
            yield (
                f"{field}.engine.weight_transport {transport} moves weights from GPU to GPU; expected trainer.use_gpu, "
                "or object_store"
            )
            return
        if transport == "nccl" and gpus < 1:
            yield f"{where}; expected 1 or more, apart from the trainer's"
        alone = pool.max_replicas == engine.tensor_parallel_size == self.trainer.workers == 1
        if transport == "ipc" and not (0 < gpus < 1 and alone):
            yield (
                f"{where}; expected a share below 1, of the one GPU of the trainer's one worker and of the pool's "
                "one replica with tensor_parallel_size 1"
            )


def domain_defaults(tree: Any) -> dict[str, Any]:
    """The defaults of the domain that a section names; {} where it names none, which validation then says."""
    try:
        domain: DomainConfig = DOMAINS.validate(tree)
    except ValidationError:
        return {}
    return _read(domain.defaults)


@cache
def _read(path: Path) -> dict[str, Any]:
    defaults: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return defaults
