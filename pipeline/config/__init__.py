"""The configuration tree: what a user may set, its meaning, default and bounds.

Invariant: a `Config` that exists is valid (`config_files` makes one of what a user wrote, and says what is wrong with
it). Defaults are those of the mini world on two CPU cores. Where the paper leaves a value open (PAPER: [O]) the default
is ours, and the field says so.

Imports neither Ray, torch nor vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.records import STAGES, Stage


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        """A section given in part keeps the rest of the default it has *here*, which need not be its type's."""
        if not isinstance(given, dict):
            return given
        return {k: _over(cls.model_fields[k].default, v) if k in cls.model_fields else v for k, v in given.items()}


def _over(default: Any, given: Any) -> Any:
    if not isinstance(default, Section) or not isinstance(given, dict):
        return given
    if any(given.get(tag, mine) != mine for tag in ("kind", "name") if (mine := getattr(default, tag, None))):
        return given  # a section of another kind
    rest = {name: getattr(default, name) for name in type(default).model_fields}
    return rest | {k: _over(rest.get(k), v) for k, v in given.items()}


Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Majority = Annotated[float, Field(gt=0.5, le=1)]
Seconds = Annotated[float, Field(gt=0)]


# ---------------------------------------------------------------- the cluster


class Pool(Section):
    """Size and resources of one Ray Serve deployment."""

    min_replicas: Positive = 1
    max_replicas: Positive = 1
    num_cpus: float = Field(default=0.1, ge=0)
    """Logical CPUs a replica reserves. Small on a laptop, where all pools share two cores and take turns."""
    num_gpus: float = Field(default=0, ge=0)
    resources: dict[str, float] = {}
    """Custom Ray resources, to place a pool on a node type (for example {"spot": 0.01})."""
    max_ongoing: Positive = 64
    """Calls a replica works on at once; autoscaling aims at it."""
    max_queued: int = Field(default=-1, ge=-1)
    """Calls that may wait at a handle, -1 for no bound."""
    start_timeout_s: Seconds = 300

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas})")
        return self


class Ray(Section):
    address: str | None = None
    """None starts a private Ray on this machine (or joins $RAY_ADDRESS); "auto" or host:port joins a cluster."""
    num_cpus: Positive | None = None
    """Logical CPUs of a private Ray; None takes what the process may use."""
    object_store_mb: int = Field(default=512, ge=75)
    """Of a private Ray, which refuses less than 75. What does not fit is spilled to the disk."""
    dashboard: bool = False
    """Start the Ray dashboard of a private Ray."""


# ---------------------------------------------------------------- models and engines


class Engine(Section):
    """A vLLM engine. CPU and GPU share every field."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_model_len: Positive = 1024
    """Tokens of prompt and answer together."""
    max_num_seqs: Positive = 64
    kv_cache_gb: float = Field(default=0.5, gt=0)
    """On a CPU: memory for the KV cache. On a GPU `gpu_memory_utilization` decides."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    tensor_parallel_size: Positive = 1
    threads: Positive = 1
    """OpenMP threads of a CPU engine. One a busy engine is fastest on two cores."""
    enforce_eager: bool = True
    weight_transport: Literal["object_store", "ipc", "nccl", "sharded_rdt"] = "object_store"
    """How a model in training gets its weights. ipc: within one GPU that trainer and replica share; nccl: between GPUs;
    sharded_rdt: between GPUs, each worker its part only."""
    start_timeout_s: Seconds = 300


class Sampling(Section):
    temperature: float = Field(default=1.0, ge=0)
    """Objectives know the model's own probabilities, before temperature and top_p: at another temperature than 1 a
    stage trains on samples of another policy than the one it corrects for."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: Positive = 256


class Model(Section):
    path: str
    """A Hugging Face model directory, or `mini:proposer` / `mini:solver`, the bundled ones."""
    engine: Engine = Engine()


# ---------------------------------------------------------------- skills


class ScriptedTeacher(Section):
    kind: Literal["mini"] = "mini"
    """The mini world's scripted teacher: same prompts, same text format, no network."""


class OpenAITeacher(Section):
    kind: Literal["openai"]
    base_url: str
    """Any OpenAI-compatible endpoint, vLLM's own server included."""
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself never enters a run directory."""
    concurrency: Positive = 16
    timeout_s: Seconds = 120
    retries: int = Field(default=4, ge=0)
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: Positive = 4096


Teacher = Annotated[ScriptedTeacher | OpenAITeacher, Field(discriminator="kind")]


class Acquire(Section):
    corpus: tuple[str, ...] = ("mini:corpus",)
    """Files or folders: .jsonl with question and answer fields (structured Q&A), .md and .txt (free text)."""
    on_bad_record: Literal["stop", "skip"] = "stop"
    """A line that is no valid record: stop with its file and line number, or skip and count it."""
    min_score: Fraction = 0.5
    """tau_r, the teacher's score below which a skill is dropped (open in the paper)."""
    max_document_chars: Positive = 8000


# ---------------------------------------------------------------- the episode


class EpisodeLimits(Section):
    max_turns: Positive = 10
    max_tokens: Positive = 900
    """Tokens of the whole episode, prompt included."""
    max_turn_tokens: Positive = 200
    max_tool_calls: Positive = 5
    """exec calls; a call over the limit is answered with a message."""
    max_tool_chars: Positive = 300
    """Characters of a tool result the agent is shown."""
    wall_s: Seconds = 90
    """An episode that takes longer ends. If its programs ran for half of this, the policy did it, and learns from it;
    else it is an infra error, and played again."""
    tools: tuple[Literal["exec", "edit", "skill"], ...] = ("exec", "edit", "skill")
    """What the agent may call beside submit; another call is answered as one that could not be read."""
    stages: tuple[Stage, ...] = STAGES
    """Cognitive stages of the loop, for ablations. A turn that names another one is answered as malformed."""

    @model_validator(mode="after")
    def _has_ends(self) -> EpisodeLimits:
        if not {"draft", "finalize"} <= set(self.stages):
            raise ValueError(f"stages {list(self.stages)} must hold draft and finalize")
        return self


class Episode(Section):
    limits: EpisodeLimits = EpisodeLimits()
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=200)
    """top_p cuts a tail that a tiny model gets wrong; recorded log-probabilities are the whole distribution's."""
    attempts: Positive = 3
    """How often a task is issued before an infra error counts it failed."""
    show_skills: bool = True
    """Off: the agent is told its category only (the ablation's bare prompt)."""


class Sandbox(Section):
    minimum: Literal["strong+", "strong", "unsafe"] = "strong"
    """Isolation level below which the pool refuses to start."""
    slots: Positive = 2
    """Executions side by side in a replica."""
    queue: Positive = 512
    wall_s: Seconds = 5
    cpu_s: Seconds = 4
    memory_mb: Positive = 512
    pool: Pool = Pool(max_ongoing=256)


# ---------------------------------------------------------------- committee and prober


class SymbolicVerifier(Section):
    kind: Literal["symbolic"] = "symbolic"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class ExecutingVerifier(Section):
    kind: Literal["executing"] = "executing"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class ModelVerifier(Section):
    kind: Literal["model"] = "model"
    samples: Positive = 3
    """Answers by majority of n."""
    majority: Majority = 0.6
    """Share of the samples that must agree, else the verifier abstains."""
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: Positive = 160
    timeout_s: Seconds = 60
    trace: bool = True
    """Show an endpoint the agent's work beside the statement, as the paper does."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint; None asks the prober pool's engine."""
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"


class ProgramVerifier(Section):
    """For problems in free text: a model writes programs for the statement, the sandbox runs them."""

    kind: Literal["program"] = "program"
    style: Literal["python", "sympy"] = "python"
    base_url: str
    """An OpenAI-compatible endpoint."""
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    samples: Positive = 3
    majority: Majority = 0.6
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: Positive = 2048
    timeout_s: Seconds = 90


Verifier = Annotated[
    SymbolicVerifier | ExecutingVerifier | ModelVerifier | ProgramVerifier, Field(discriminator="kind")
]

Flag = Literal["ambiguous", "underspecified", "unsolvable", "trivial", "leaks_answer", "off_task"]


class Committee(Section):
    verifiers: tuple[Verifier, ...] = (SymbolicVerifier(), ExecutingVerifier(), ModelVerifier())
    quorum: Positive = 2
    """Votes (abstentions do not count) below which a problem stays undecided."""
    required: Positive = 2
    """Valid votes an accepted problem needs."""
    disqualifying: tuple[Flag, ...] = (
        "ambiguous",
        "underspecified",
        "unsolvable",
        "trivial",
        "leaks_answer",
        "off_task",
    )
    audit: bool = True
    """Resolve differing answers by a second audit; off rejects them."""
    spot_checks: int = Field(default=4, ge=0)
    """Accepted problems of each step of MGPO and wave of synthesis that are spoiled in a known way and judged again:
    what share is accepted is a live figure of the committee's quality. 0 outside the mini world, whose language the
    defects are written in."""
    timeout_s: Seconds = 200
    """For a verdict: twice a verifier's own, for the votes and for the second audit, and something to spare."""
    pool: Pool = Pool(max_ongoing=256)

    @model_validator(mode="after")
    def _reachable(self) -> Committee:
        for name, needed in (("required", self.required), ("quorum", self.quorum)):
            if needed > len(self.verifiers):
                raise ValueError(f"{name} ({needed}) exceeds the number of verifiers ({len(self.verifiers)})")
        return self


class Prober(Section):
    n: Positive = 8
    """Samples a problem."""
    k: Positive = 4
    """k of Pass@k (16 in the paper)."""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=120)
    ladder: tuple[Model, ...] = (Model(path="mini:solver"),)
    """Probers, weakest first; the next takes over when the current one's accuracy settles below `threshold`."""
    threshold: Fraction = 0.30
    window: Positive = 500
    """Problems between updates of the accuracy average."""
    ema: Fraction = 0.3
    """Weight of a new window (open in the paper)."""
    settled: Fraction = 0.05
    """The average has settled when a window moves it by less (open in the paper)."""
    timeout_s: Seconds = 120
    pool: Pool = Pool(max_ongoing=128)

    @model_validator(mode="after")
    def _enough(self) -> Prober:
        if self.k >= self.n:
            raise ValueError(
                f"k ({self.k}) must be below n ({self.n}): of as many samples as it takes, the estimate of Pass@k is 0 "
                "or 1, and no problem is both solved and hard"
            )
        if len({model.path for model in self.ladder}) != len(self.ladder) or not self.ladder:
            raise ValueError("ladder must name at least one prober, each once")
        return self


# ---------------------------------------------------------------- rewards and objectives


class ReflectionJudge(Section):
    """A model behind an OpenAI-compatible endpoint that says which reflections are coherent."""

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    weight: float = Field(default=0.2, ge=0)
    """Process reward of an episode whose reflections are all coherent, shared out among them."""
    max_tokens: Positive = 256
    timeout_s: Seconds = 60
    concurrency: Positive = 16


class Reward(Section):
    base: float = 1.0
    """R_base (open in the paper)."""
    difficulty: float = Field(default=2.0, ge=0)
    """lambda, the weight of 1 - rho (open in the paper)."""
    exec_ok: float = Field(default=0.2, ge=0)
    """Process reward of the check that stands, once an episode (the paper leaves all process magnitudes open)."""
    exec_error: float = Field(default=-0.2, le=0)
    """A check that fails. With a repair it adds up to nothing, so that failing on purpose does not pay."""
    reflection: float = Field(default=0.2, ge=0)
    """The refine turn between a failed check and the next one, which passes."""
    useful_edit: float = Field(default=0.2, ge=0)
    """The edit between a failed check and the next one, which passes."""
    needless_edit: float = Field(default=-0.2, le=0)
    """An edit that was refused, that returns to skills held before, or after which a check that stood fails."""
    malformed: float = Field(default=-0.3, le=0)
    """A tool call that could not be read."""
    repeated: float = Field(default=-0.2, le=0)
    """The same call again."""
    judge: ReflectionJudge | None = None
    """Adds its credit to what the rules above give."""

    @model_validator(mode="after")
    def _not_farmable(self) -> Reward:
        for repair in ("reflection", "useful_edit"):
            if getattr(self, repair) + self.exec_error > 0:
                raise ValueError(
                    f"{repair} ({getattr(self, repair)}) must not exceed what the failed check before it costs "
                    f"(exec_error {self.exec_error}), else failing on purpose pays"
                )
        return self


class MGPO(Section):
    """Multi-granularity policy optimisation (PAPER, stage 3)."""

    name: Literal["mgpo", "mgpo_no_stage"] = "mgpo"
    omega: float = Field(default=0.5, ge=0)
    """Weight of the stage advantage A_S."""
    beta: float = Field(default=0.1, ge=0)
    """Scale of the implicit reward."""
    tau_pos: float = Field(default=1.0, gt=0)
    tau_neg: float = Field(default=1.05, gt=0)
    ratio: Literal["token", "action"] = "token"
    """r in the gate: per token, or the geometric mean over an action (open in the paper)."""
    implicit: Literal["sum", "mean"] = "sum"
    """R_theta over the tokens of an action (open in the paper). The sum is the log ratio of the action
    itself; with the mean the pull to the reference is weaker by the action's length."""
    scope: Literal["group", "batch"] = "group"
    """Where the means of the zero-sum weight are taken (open in the paper)."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Each token is weighted by min(pi_trainer / pi_engine, cap); None leaves the weight out."""

    @model_validator(mode="after")
    def _asymmetric(self) -> MGPO:
        if self.tau_neg <= self.tau_pos:
            raise ValueError(f"tau_neg ({self.tau_neg}) must exceed tau_pos ({self.tau_pos}): the gate is asymmetric")
        return self


class GRPO(Section):
    """Group-relative policy optimisation with clipping."""

    name: Literal["grpo"] = "grpo"
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.2, gt=0)
    """Above clip_low: DAPO's clip-higher."""
    kl: float = Field(default=0.0, ge=0)
    scale_by_std: bool = True
    """Off: dr-GRPO's advantages."""
    aggregate: Literal["sequence", "token", "constant"] = "token"
    """sequence: mean of per-sequence means (GRPO) · token: mean over all tokens (DAPO) · constant: dr-GRPO."""
    constant_length: Positive = 128
    """With aggregate=constant: the loss is divided by trajectories times this many tokens."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Upper bound of the ratio that multiplies a token's gradient; None leaves it unbounded."""


class SFTObjective(Section):
    name: Literal["sft"] = "sft"


Objective = Annotated[MGPO | GRPO, Field(discriminator="name")]


# ---------------------------------------------------------------- stages


class Trainer(Section):
    """Ray Train and DeepSpeed."""

    workers: Positive = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    use_gpu: bool = False
    num_cpus: float = Field(default=0.5, gt=0)
    """Logical CPUs a worker reserves."""
    threads: Positive = 2
    """OpenMP threads a CPU worker uses, shared out when there are several."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Of the model. Master weights are float32 either way; the sum over micro-batches is with zero_stage 2 or 3."""
    micro_batch_tokens: Positive = 4096
    grad_clip: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    keep_checkpoints: Positive = 2
    max_failures: int = Field(default=1, ge=0)
    """Restarts of the worker group from the last checkpoint."""
    step_timeout_s: Seconds = 600
    """No step for this long ends the run with the stage's name."""


class Sft(Section):
    trajectories: Positive = 1000
    """Teacher episodes to collect, before the committee's filter."""
    epochs: Positive = 3
    batch: Positive = 4
    """Trajectories a step. Few, because a tiny model needs many steps more than it needs exact gradients."""
    lr: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=10, ge=0)
    checkpoint_every: Positive = 50


class Curriculum(Section):
    alpha: Fraction = 0.1
    """Step of the proficiency average m_c (open in the paper)."""
    epsilon: float = Field(default=0.1, gt=0)
    """p(c) is proportional to 1 / (m_c + epsilon) (open in the paper)."""
    min_skills: Positive = 2
    max_skills: Positive = 3

    @model_validator(mode="after")
    def _ordered(self) -> Curriculum:
        if self.max_skills < self.min_skills:
            raise ValueError(f"max_skills ({self.max_skills}) must be at least min_skills ({self.min_skills})")
        return self


class Mgpo(Section):
    steps: Positive = 12
    groups: Positive = 10
    """Skill prompts a step."""
    group_size: int = Field(default=8, ge=2)
    """G trajectories a skill prompt."""
    lr: float = Field(default=8e-4, gt=0)
    warmup_steps: int = Field(default=2, ge=0)
    objective: Objective = MGPO()
    max_staleness: int = Field(default=0, ge=0)
    """0: pools and trainer take turns. n: a rollout may be n versions older than the step that trains on it."""
    checkpoint_every: Positive = 4
    curriculum: Curriculum = Curriculum()


class Synthesize(Section):
    target: Positive = 240
    """Accepted, distinct problems."""
    max_episodes: Positive = 4000
    """Give up, with the count so far, after this many."""
    in_flight: Positive = 64


class Solve(Section):
    steps: Positive = 30
    problems: Positive = 16
    """Problems a step."""
    group_size: int = Field(default=8, ge=2)
    lr: float = Field(default=2e-4, gt=0)
    warmup_steps: int = Field(default=2, ge=0)
    objective: GRPO = GRPO()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=120)
    base: Model = Model(path="mini:solver")
    checkpoint_every: Positive = 8


class Evaluate(Section):
    benchmark: str = "mini:heldout"
    """A .jsonl of question, answer (checks where that is a program; category), or the mini world's held-out skill
    combinations."""
    problems: Positive = 240
    """Problems used, from the front of the benchmark."""
    samples: Positive = 4
    """Mean@k: answers a problem."""
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=160)


class Config(Section):
    """One run. `propose config show` prints it, resolved; `--set a.b=c` overrides a field."""

    name: str = "mini"
    seed: int = 0
    mirror: str | None = None
    """A place that outlives the machine (s3://bucket/run, gs://, hdfs://, file:/// or a path) and keeps a copy of the
    run directory: on another machine the same command restores it and goes on. One place a run. Credentials come from
    the environment."""
    ray: Ray = Ray()
    proposer: Model = Model(path="mini:proposer")
    proposer_pool: Pool = Pool(max_ongoing=64)
    system_prompt: str | None = None
    """What the proposer is told; None takes the prompt its model was made for."""
    teacher: Teacher = ScriptedTeacher()
    acquire: Acquire = Acquire()
    episode: Episode = Episode()
    sandbox: Sandbox = Sandbox()
    committee: Committee = Committee()
    prober: Prober = Prober()
    reward: Reward = Reward()
    trainer: Trainer = Trainer()
    sft: Sft = Sft()
    mgpo: Mgpo = Mgpo()
    synthesize: Synthesize = Synthesize()
    solve: Solve = Solve()
    evaluate: Evaluate = Evaluate()
    watchdog_s: Seconds = 600
    """No progress for this long ends the stage with a line that names what it waited for and what is under way."""
    on_stall: Literal["restart", "fail"] = "restart"
    """After that line: begin the stage again from its last step on disk, or end the run."""
    max_stage_restarts: int = Field(default=3, ge=0)
    """How often a stage whose processes are gone begins again without having finished a step in between."""

    @field_validator("mirror")
    @classmethod
    def _without_secrets(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in uri:
            raise ValueError("must hold no credentials, for it is written down; they belong in the environment")
        return uri

    @model_validator(mode="after")
    def _pushes_where_it_can(self) -> Config:
        for field, engine, pool in (
            ("proposer.engine", self.proposer.engine, self.proposer_pool),
            ("solve.base.engine", self.solve.base.engine, self.prober.pool),
        ):
            transport, gpus = engine.weight_transport, pool.num_gpus
            where = f"{field}.weight_transport {transport}: the pool has num_gpus {gpus:g}"
            if transport == "object_store":
                continue
            if not self.trainer.use_gpu:
                raise ValueError(
                    f"{field}.weight_transport {transport} moves weights from GPU to GPU; expected trainer.use_gpu, "
                    "or object_store"
                )
            if transport == "nccl" and gpus < 1:
                raise ValueError(f"{where}; expected 1 or more, apart from the trainer's")
            alone = pool.max_replicas == engine.tensor_parallel_size == self.trainer.workers == 1
            if transport == "ipc" and not (0 < gpus < 1 and alone):
                raise ValueError(
                    f"{where}; expected a share below 1, of the one GPU of the trainer's one worker and of the pool's "
                    "one replica with tensor_parallel_size 1"
                )
        return self
