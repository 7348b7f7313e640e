"""What calls take: what each would need alone on its machine, and how much calls beside it slow it.

Known from a run (`calibration`), which gives its episodes one by one, or given in a file:

    pools:
      proposer:  {alone_s: 20, slowdown: 0.02, spread: 0.4}   # the turns of an episode, without its programs
      sandbox:   {alone_s: 0.3, spread: 1, calls: 1.5}        # a program; programs an episode
      committee: {alone_s: 3, slowdown: 0.05}                 # a problem
      prober:    {alone_s: 6, slowdown: 0.05}
    submitted: 0.95        # share of episodes that are judged
    accepted: 0.5          # share of problems judged that are accepted, and probed
    kept: 0.8              # share of those accepted that count: solved, and no copy
    tokens: 3000           # of an episode
    trainer: {token_s: 0.0001, step_s: 2}
    between_s: 1           # from the last answer of a step to its end on disk

Invariant: what is drawn from given times has their means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from pipeline.config import loading
from pipeline.config.section import Section
from pipeline.config.types import Fraction
from pipeline.records import Failure

Kind = Literal["proposer", "sandbox", "committee", "prober"]
KINDS: tuple[Kind, ...] = ("proposer", "sandbox", "committee", "prober")
SHARED: tuple[Kind, ...] = ("proposer", "committee", "prober")
"""Pools that slow each other where they have no machines of their own."""


class Trace(NamedTuple):
    """One episode and what came of it, in seconds alone."""

    turns: tuple[tuple[float, float], ...]
    """In the engine, then in the sandbox (0: no program)."""
    judging: float | None
    probing: float | None
    kept: bool
    tokens: int

    @property
    def work(self) -> dict[Kind, float]:
        return {
            "proposer": sum(engine for engine, _ in self.turns),
            "sandbox": sum(program for _, program in self.turns),
            "committee": self.judging or 0.0,
            "prober": self.probing or 0.0,
        }


@dataclass(frozen=True)
class Times:
    traces: Sequence[Trace]
    slowdown: Mapping[Kind, Mapping[Kind, float]]
    """Pool -> by a call of which pool on its machine -> share of its pace alone."""
    token_s: float
    """Of one trainer worker for a token."""
    step_s: float
    """From the end of training to the version being served, whatever was trained."""
    between_s: float
    workers: int
    """Trainer workers that `token_s` was measured with."""
    as_they_came: bool = False
    """The traces are in a run's order, which is kept: what made a step of it slow made all of its episodes slow, and
    dealt out over all steps they would hold up each of them."""

    def work(self) -> dict[Kind, float]:
        """Mean seconds alone at each pool, an episode."""
        works = [trace.work for trace in self.traces]
        return {kind: sum(work[kind] for work in works) / len(works) for kind in KINDS}

    @property
    def tokens(self) -> float:
        return sum(trace.tokens for trace in self.traces) / len(self.traces)

    @property
    def kept(self) -> float:
        return sum(trace.kept for trace in self.traces) / len(self.traces)


class PoolTimes(Section):
    alone_s: float = Field(gt=0)
    """Seconds of a call that has its machine to itself."""
    slowdown: float = Field(default=0, ge=0, le=1)
    """How much each further call of the pool on that machine adds, as a share of `alone_s`: 0 nothing, 1 all."""
    spread: float = Field(default=0, ge=0)
    """Standard deviation over mean."""


class SandboxTimes(Section):
    alone_s: float = Field(gt=0)
    """Seconds of a program."""
    spread: float = Field(default=0, ge=0)
    """Standard deviation over mean."""
    calls: float = Field(default=1, ge=0)
    """Programs an episode."""


class Pools(Section):
    proposer: PoolTimes
    sandbox: SandboxTimes | None = None
    """None: episodes run no programs."""
    committee: PoolTimes
    prober: PoolTimes


class TrainerTimes(Section):
    token_s: float = Field(default=0, ge=0)
    """Seconds of one worker for a token."""
    step_s: float = Field(default=0, ge=0)
    """Seconds more a step, until its weights are served."""


class Given(Section):
    """A file of times."""

    pools: Pools
    submitted: Fraction = 1.0
    accepted: Fraction = 0.5
    kept: Fraction = 1.0
    tokens: int = Field(default=1000, ge=1)
    trainer: TrainerTimes = TrainerTimes()
    between_s: float = Field(default=0, ge=0)


DRAWN = 4096
"""Episodes drawn of given times."""


def read(path: Path) -> Times:
    """Times given in a file. Raises Failure, with a line for each fault."""
    try:
        tree = loading.parse(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}; expected a YAML file of times") from None
    except UnicodeDecodeError:
        raise Failure(f"{path}: not UTF-8; expected a YAML file of times") from None
    except loading.NotYAML as e:
        raise Failure(f"{path}{e.where}: not YAML ({e})") from None
    try:
        return drawn(Given.model_validate(tree), Random(0))
    except ValidationError as e:
        raise Failure("\n  ".join(f"{path}: {_fault(error)}" for error in e.errors())) from None


def _fault(error: Any) -> str:
    """One of pydantic's, in one line: the field, what would be accepted, the value."""
    where = ".".join(map(str, error["loc"])) or "file"
    if error["type"] == "missing":
        return f"{where}: required"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown field"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]} (got {error['input']!r})"


def drawn(given: Given, random: Random) -> Times:
    pools = given.pools

    def seconds(mean: float, spread: float) -> float:
        return random.gammavariate(spread**-2, mean * spread**2) if spread else mean

    def episode() -> Trace:
        programs = 0
        if pools.sandbox is not None:
            programs = int(pools.sandbox.calls) + (random.random() < pools.sandbox.calls % 1)
        engine = seconds(pools.proposer.alone_s, pools.proposer.spread) / (programs + 1)
        box = pools.sandbox
        turns = [(engine, seconds(box.alone_s, box.spread)) for _ in range(programs) if box is not None]
        judged = random.random() < given.submitted
        accepted = judged and random.random() < given.accepted
        return Trace(
            (*turns, (engine, 0.0)),
            seconds(pools.committee.alone_s, pools.committee.spread) if judged else None,
            seconds(pools.prober.alone_s, pools.prober.spread) if accepted else None,
            accepted and random.random() < given.kept,
            given.tokens,
        )

    traces = [episode() for _ in range(DRAWN)]
    slowdown = {kind: {kind: getattr(pools, kind).slowdown} for kind in SHARED}
    return Times(traces, slowdown, given.trainer.token_s, given.trainer.step_s, given.between_s, 1)
