"""The vocabulary: every record that crosses a pool boundary or is written to a run directory.

Invariant: a record is immutable, validated when made, and survives a round trip through Arrow unchanged.
The Arrow schema is derived from the annotations, so a field is declared once. Token arrays live in
`Rollout` only; everything else is text and small facts that a driver may hold.

Imports neither Ray, torch nor vLLM.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

CognitiveStage = Literal["draft", "check", "refine", "finalize"]
"""sigma_t of the observation (PAPER: the decision process)."""
COGNITIVE_STAGES: tuple[CognitiveStage, ...] = ("draft", "check", "refine", "finalize")

Action = Literal["think", "exec", "edit", "submit"]
"""tau_think (audit in text) · tau_exec (run code) · tau_edit (prune or swap skills) · tau_submit."""
ACTIONS: tuple[Action, ...] = ("think", "exec", "edit", "submit")

AnswerKind = Literal["math", "code", "choice", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = ("math", "choice", "text", "code")

Decision = Literal["accepted", "rejected", "undecided"]
"""undecided: infrastructure could not say; never accepted, and no reward is derived from it."""

OutcomeKind = Literal["ok", "model_error", "data_error", "infra_error"]
"""ok · the model's text is wrong · the same input fails again · retry elsewhere."""

Int8 = Annotated[int, pa.int8()]
Int32 = Annotated[int, pa.int32()]
Float32 = Annotated[float, pa.float32()]


class Record(BaseModel):
    """Base of all records: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def schema_arrow(cls) -> pa.Schema:
        """The Arrow schema, one column a field, nested records as structs."""
        return pa.schema(_fields_of(cls))

    @classmethod
    def to_arrow(cls, records: Iterable[Self]) -> pa.RecordBatch:
        """Records -> one record batch with `schema_arrow()`."""
        return pa.RecordBatch.from_pylist([r.model_dump() for r in records], schema=cls.schema_arrow())

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch | pa.Table) -> list[Self]:
        """Inverse of `to_arrow`. Raises pydantic.ValidationError on rows that are no such record."""
        return [cls.model_validate(row) for row in batch.to_pylist()]


def _fields_of(record: type[BaseModel]) -> list[pa.Field]:
    fields = []
    for name, info in record.model_fields.items():
        annotation = info.annotation
        explicit = next((m for m in info.metadata if isinstance(m, pa.DataType)), None)
        arrow, nullable = _arrow_type(annotation)
        fields.append(pa.field(name, explicit or arrow, nullable=nullable))
    return fields


_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """(Arrow type, nullable) of an annotation: scalars, Literal, tuple[X, ...], X | None, records."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        explicit = next((m for m in args[1:] if isinstance(m, pa.DataType)), None)
        return explicit or _arrow_type(args[0])[0], False
    if origin in (Union, types.UnionType):
        (inner,) = [a for a in args if a is not type(None)]
        return _arrow_type(inner)[0], True
    if origin is Literal:
        return _SCALARS[type(args[0])], False
    if origin is tuple:
        return pa.list_(_arrow_type(args[0])[0]), False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_fields_of(annotation)), False
    return _SCALARS[annotation], False


class Skill(Record):
    """An atomic skill k = <intent, method, difficulty effect, tool hint> (PAPER, stage 1)."""

    id: str
    """Short snake_case name; what the agent writes in an `edit` call."""
    category: str
    intent: str
    """One line: what the skill asks of a solver. All that the agent sees in Draft."""
    method: str
    """The body: structure, action, effect. Shown when the agent asks for the skill."""
    difficulty: str
    """How the skill makes a problem harder."""
    tool_hint: str
    script: str | None = None
    """Python definitions that an `exec` call finds loaded while the skill is active."""
    score: float
    """The teacher's score r(k) in [0, 1]."""
    source: str
    """Which document the skill came from."""


class Task(Record):
    """What one episode starts from. Tasks with one `group_id` differ in `id` and `seed` only."""

    id: str
    group_id: str
    category: str
    skills: tuple[Skill, ...]
    """K_0, the skills offered."""
    seed: int


class ToolResult(Record):
    tool: str
    status: Literal["ok", "error", "timeout", "limit", "malformed", "infra"]
    """error: the code raised · limit: CPU, memory or output · malformed: no call could be read ·
    infra: the tool failed, which says nothing about the model's text."""
    content: str
    """Exactly what the model was shown."""
    wall_s: float = 0.0
    active: tuple[str, ...] | None = None
    """Of an edit that was carried out: ids of the skills active from here on. None of anything else, and of episodes
    that were written before this field was."""
    depends: bool | None = None
    """Of an exec that ran: does what it prints follow from the numbers of the problem that was submitted? None where
    nothing was submitted, the problem has no numbers, or nobody could try (actors/dependence.py)."""


Note = Literal["no header", "no check", "no submission", "repeated"]
"""What a turn lacked, as the environment told the agent."""


class Turn(Record):
    """One action of the agent and the environment's answer to it."""

    stage: CognitiveStage
    action: Action
    start: int
    end: int
    """The agent's own tokens are token_ids[start:end] of the episode's stream."""
    text: str
    """The decoded turn, without the end-of-turn token."""
    tool: ToolResult | None = None
    truncated: bool = False
    """The turn hit the token limit before it ended."""
    repairs: tuple[str, ...] = ()
    """What its call did not write as it should, and was read all the same (actors/loose_json.py)."""
    notes: tuple[Note, ...] = ()


class Problem(Record):
    id: str
    question: str
    answer: str
    answer_kind: AnswerKind
    checks: tuple[str, ...] = ()
    """For code answers: the tests, one JSON object each."""

    @classmethod
    def make(cls, question: str, answer: str, answer_kind: AnswerKind = "math", checks: Sequence[str] = ()) -> Self:
        """A problem whose id is a hash of its question, spaces and case ignored: equal ids are duplicates."""
        return cls(
            id=hashlib.sha256(" ".join(question.lower().split()).encode()).hexdigest()[:16],
            question=question.strip(),
            answer=answer.strip(),
            answer_kind=answer_kind,
            checks=tuple(checks),
        )


class Outcome(Record):
    kind: OutcomeKind
    reason: str = ""
    """ok: empty, else one line that names the cause (turn limit, token limit, no submission, ...)."""


class Episode(Record):
    """A whole trajectory as text and facts; its token arrays are the `Rollout` of the same id and attempt."""

    id: str
    attempt: int
    task: Task
    turns: tuple[Turn, ...]
    active: tuple[str, ...]
    """Ids of K_T, the skills still active at the end."""
    submitted: Problem | None
    outcome: Outcome
    policy_versions: tuple[int, ...]
    """Distinct policy versions that sampled its tokens, ascending."""
    prompt_tokens: int
    sampled_tokens: int
    wall_s: float


class Vote(Record):
    verifier: str
    valid: bool | None
    """None: the verifier abstains, which is not a vote."""
    answer: str | None = None
    """The verifier's own answer, in the problem's answer kind."""
    rationale: str = ""
    flags: tuple[str, ...] = ()
    """ambiguous · underspecified · unsolvable · trivial · vacuous · leaks_answer · off_task."""
    used_skills: tuple[str, ...] | None = None
    """Skills whose part of the problem the answer depends on, sorted. None: this verifier cannot tell."""
    category: str | None = None
    """Of the problem as it reads; None as above."""
    adherent: bool | None = None
    """Whether it is what was asked for: of the category, and with as many of the skills that were offered as go
    together. None as above."""
    outcome: Outcome = Outcome(kind="ok")
    wall_s: float = 0.0
    second: bool = False
    """Cast in the second audit, which is no vote of the committee."""


class Verdict(Record):
    """V(q): the committee's decision on a submitted problem."""

    problem_id: str
    votes: tuple[Vote, ...]
    flags: tuple[str, ...]
    decision: Decision
    reason: str
    audit: str | None = None
    """What the second audit said, where answers differed."""
    used_skills: tuple[str, ...] | None = None
    """Skills that every verifier which can tell finds used, sorted: credit goes to these. None: none can tell."""
    category: str | None = None
    """Of the problem as it reads; None where no verifier can tell, or they differ."""
    adherent: bool | None = None
    """Every verifier that can tell finds the problem to be what was offered (see Vote). None: none of them can tell."""
    answer: str | None = None
    """Of an accepted problem, the answer in its canonical form: what is exported."""

    @property
    def accepted(self) -> bool:
        return self.decision == "accepted"


Reading = Literal["rate", "pass_at_k"]
"""What rho(q) is: the share of samples that are right, or the chance that one of k is."""


class Attempts(Record):
    """The samples of a prober that solved a problem no oftener than chance."""

    prober: str
    correct: int
    judged: int
    unknown: int = 0
    tokens: int = 0
    """Sampled for them; 0 where nobody counted."""


class Probe(Record):
    """rho(q): how often the prober solves a problem."""

    problem_id: str
    n: int
    """Samples taken."""
    correct: int
    unknown: int = 0
    """Samples whose answer could not be judged; they count as neither right nor wrong."""
    k: int
    pass_at_k: float
    """The unbiased estimate 1 - C(n-c, k) / C(n, k)."""
    low: float
    high: float
    """95 % interval of pass_at_k."""
    prober: str
    rate_low: float = 0.0
    rate_high: float = 1.0
    """95 % interval of `rate`."""
    reading: Reading = "pass_at_k"
    """Which of the two the reward takes for rho."""
    spared: int = 0
    """Samples that were not asked for: those before them had shown that the problem is easy."""
    tokens: int = 0
    """Sampled for it; 0 where nobody counted."""
    chance: float = 0.0
    """How often a guess that knows the statement's form is right (pipeline/scoring/chance.py)."""
    above_chance: bool | None = None
    """Whether the prober is right oftener than guessing explains; None: nobody asked, and any right answer counts."""
    weaker: tuple[Attempts, ...] = ()
    """Probers before this one that solved the problem no oftener than chance, weakest first."""
    solution: str | None = None
    """The first of its samples that is right, as it was written: a worked solution by one who saw the question alone.
    None where none is, and of probes that were written before this field was."""

    @property
    def rate(self) -> float:
        """The share of right answers among those that could be judged."""
        return self.correct / max(self.n - self.unknown, 1)

    @property
    def rho(self) -> float:
        return self.rate if self.reading == "rate" else self.pass_at_k

    @property
    def rho_interval(self) -> tuple[float, float]:
        """95 %."""
        return (self.rate_low, self.rate_high) if self.reading == "rate" else (self.low, self.high)

    @property
    def tokens_spared(self) -> float:
        """What the samples that were not asked for would have cost, at the mean of those that were."""
        return self.spared * self.tokens / max(self.n, 1)

    @property
    def solved(self) -> bool:
        """Some prober solves the problem; where none does, nothing tells what is hard from what cannot be solved."""
        return self.pass_at_k > 0 if self.above_chance is None else self.above_chance


class Rollout(Record):
    """The tokens of one episode, exactly as sampled, with what the objectives need (T tokens, A actions).

    The wire format of every trainer: SFT uses tokens and mask, GRPO for solvers has A = 1.
    """

    episode_id: str
    attempt: int
    group_id: str
    token_ids: tuple[Int32, ...]
    """T: prompt, agent and tool tokens in order."""
    loss_mask: tuple[Int8, ...]
    """T: 1 where the agent sampled the token, else 0."""
    logprobs: tuple[Float32, ...]
    """T: the engine's log-probability of each sampled token, 0 elsewhere."""
    versions: tuple[Int32, ...]
    """T: policy version that sampled the token, -1 elsewhere."""
    action_index: tuple[Int32, ...]
    """T: index of the action a token belongs to, -1 elsewhere."""
    action_stage: tuple[Int8, ...]
    """A: index into COGNITIVE_STAGES of each action."""
    action_kind: tuple[Int8, ...]
    """A: index into ACTIONS of each action."""
    process_rewards: tuple[Float32, ...]
    """A: r_proc of each action."""
    terminal_reward: Float32
    """r_T."""


class Failure(Exception):
    """An expected failure: its message is one line that names the cause; `kind` tells who can mend it."""

    def __init__(self, message: str, kind: OutcomeKind = "data_error"):
        super().__init__(message)
        self.kind = kind


GONE = "a process is gone"
"""With this word work is cancelled that begins again, and with none where a run is interrupted."""


class Lost(Failure):
    """A process that the work needs is gone. The same work may begin again, from what is on disk."""

    def __init__(self, message: str, kind: OutcomeKind = "infra_error"):
        super().__init__(message, kind)


class Stalled(Lost):
    """Nothing has moved for as long as the watchdog waits."""


class Halt(Exception):
    """What ends the run wherever it is raised, in one line: no call after it may be made (a budget is spent). It is no
    Failure, so nobody who bears with failures bears with it."""


R = TypeVar("R", bound=Record)

__all__ = [name for name in globals() if name[0].isupper() and name not in ("Any", "Self", "Union", "R")] + ["Field"]
