"""What a stage does with its pools: episodes through proposer, sandbox, committee and prober, step after step.

    mgpo         a step begins when the version `max_staleness` + 1 before it is served; steps are written, and trained
                 on, in their order
    synthesize   a window over the tasks of all steps: one begins where one comes back, until so many steps as may be
                 open wait for the first of them to be written

Invariant: each task that was issued comes back once, and the order of steps is the stage's own (stages/mgpo.py,
flow/window.py). Nothing fails, and all replicas are there from the start.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from random import Random

import numpy as np

from pipeline.commands.capacity.simulation import Clock, Lane, Machine, Pool, settle
from pipeline.commands.capacity.times import KINDS, Kind, Times, Trace
from pipeline.pools.buffer import MOST_OPEN


@dataclass(frozen=True)
class Group:
    """Machines that are alike."""

    name: str
    machines: int
    seats: Mapping[Kind, int]
    """Of each pool, on one of them."""


@dataclass(frozen=True)
class Steps:
    """How the stage goes on."""

    count: int
    tasks: int
    """Of one."""
    at_once: int
    """Of the tasks of one step; where nothing is trained, of all steps."""
    staleness: int | None
    """None: nothing is trained, steps are a window."""
    workers: int = 1


@dataclass(frozen=True)
class Seen:
    """What a simulation came to."""

    seconds: float
    episodes: int
    kept: int
    training_s: float
    held: Mapping[Kind, float]
    """Mean number of seats in use."""
    waited_s: Mapping[Kind, float]
    """Mean, of a call for a seat."""
    events: int


def simulate(groups: Sequence[Group], times: Times, steps: Steps, seed: int = 0) -> Seen:
    stage = _Stage(groups, times, steps, seed)
    collects = gc.isenabled()
    gc.disable()  # it would look at all tasks again and again, of which none is garbage in a circle
    try:
        stage.go_on()
        stage.clock.run()
    finally:
        if collects:
            gc.enable()
    end = max(stage.clock.now, 1e-9)
    return Seen(
        seconds=end,
        episodes=stage.episodes,
        kept=stage.kept,
        training_s=stage.training_s,
        held={kind: pool.held_s / end for kind, pool in stage.pools.items()},
        waited_s={kind: pool.waited_s / max(pool.calls, 1) for kind, pool in stage.pools.items()},
        events=stage.clock.events,
    )


class _Stage:
    def __init__(self, groups: Sequence[Group], times: Times, steps: Steps, seed: int):
        self.clock, self.random = Clock(), Random(seed)
        self.times, self.steps = times, steps
        self.pools: dict[Kind, Pool] = {kind: Pool(kind, self.clock, self.random) for kind in KINDS}
        for group in groups:
            machines = [Machine(self.clock) for _ in range(group.machines)]
            for machine in machines:
                for kind, seats in group.seats.items():
                    self.pools[kind].add(machine, seats)
            settle(machines, times.slowdown)
        self.episodes = self.kept = 0
        self.training_s = 0.0
        self._begun = self._written = self._served = 0
        self._window = _Room() if steps.staleness is None else None
        self._newest: _Step
        self._came: dict[int, int] = {}
        """Steps that were played, and wait for those before them -> their tokens."""
        self._trainer_free = 0.0
        self._deck: list[Trace] = []

    def go_on(self) -> None:
        """Begin the next steps, as many as may."""
        while self._begun < self.steps.count and self._may_begin():
            self._begun += 1
            self._newest = _Step(self, self._begun, self._window or _Room())
            self._newest.fill()

    def _may_begin(self) -> bool:
        if self._window is not None:
            return self._window.inside < self.steps.at_once and self._begun - self._served < MOST_OPEN
        return self._begun <= self._served + (self.steps.staleness or 0)

    def fill(self, step: _Step) -> None:
        """Where a task of this step has come back, one begins."""
        if self._window is None:
            step.fill()
        else:
            self._newest.fill()
            self.go_on()

    def draw(self) -> Trace:
        """The episodes that are known, all of them each time round; as they came, or in another order each time."""
        if not self._deck:
            self._deck = list(self.times.traces)
            if self.times.as_they_came:
                self._deck.reverse()
            else:
                self.random.shuffle(self._deck)
        return self._deck.pop()

    def played(self, number: int, tokens: int) -> None:
        self._came[number] = tokens
        while self._written + 1 in self._came:
            self._written += 1
            came = self._came.pop(self._written)
            self.clock.at(self.clock.now + self.times.between_s, partial(self._train, came))

    def _train(self, tokens: int) -> None:
        if self.steps.staleness is None:
            self._done()
            return
        each = self.times.token_s * self.times.workers / self.steps.workers
        begins, training = max(self.clock.now, self._trainer_free), tokens * each
        self.training_s += training
        self._trainer_free = begins + training
        self.clock.at(self._trainer_free + self.times.step_s, self._done)

    def _done(self) -> None:
        self._served += 1
        self.go_on()


class _Room:
    """For `at_once` tasks."""

    inside = 0


class _Step:
    """The tasks of one step."""

    def __init__(self, stage: _Stage, number: int, room: _Room):
        self._stage, self._number, self._room = stage, number, room
        self._left, self._open, self._tokens = stage.steps.tasks, stage.steps.tasks, 0

    def fill(self) -> None:
        while self._left and self._room.inside < self._stage.steps.at_once:
            self._left -= 1
            self._room.inside += 1
            _Task(self._stage, self._stage.draw(), self.back).begin()

    def back(self, trace: Trace) -> None:
        self._room.inside -= 1
        self._open -= 1
        self._tokens += trace.tokens
        self._stage.episodes += 1
        self._stage.kept += trace.kept
        if not self._open:
            self._stage.played(self._number, self._tokens)
        self._stage.fill(self)


class _Task:
    __slots__ = ("_ahead", "_back", "_box", "_lane", "_seconds", "_stage", "_trace", "_turn")

    def __init__(self, stage: _Stage, trace: Trace, back: Callable[[Trace], None]):
        self._stage, self._trace, self._back, self._turn = stage, trace, back, 0
        self._ahead: list[tuple[Kind, float]] = []
        """Where it still has to go, the next one last."""
        if trace.probing is not None:
            self._ahead.append(("prober", trace.probing))
        if trace.judging is not None:
            self._ahead.append(("committee", trace.judging))
        self._seconds: float
        self._lane: Lane
        self._box: Lane

    def begin(self) -> None:
        self._stage.pools["proposer"].seat(self._sat)

    def _sat(self, lane: Lane) -> None:
        self._lane = lane
        self._think()

    def _think(self) -> None:
        self._lane.work(self._trace.turns[self._turn][0], self._thought)

    def _thought(self) -> None:
        if self._trace.turns[self._turn][1]:
            self._stage.pools["sandbox"].seat(self._runs)
        else:
            self._on()

    def _runs(self, box: Lane) -> None:
        self._box = box
        box.work(self._trace.turns[self._turn][1], self._ran)

    def _ran(self) -> None:
        self._box.leave()
        self._on()

    def _on(self) -> None:
        self._turn += 1
        if self._turn < len(self._trace.turns):
            self._think()
            return
        self._next()

    def _next(self) -> None:
        """To the committee, from there to the prober, as far as the episode came."""
        self._lane.leave()
        if not self._ahead:
            self._back(self._trace)
            return
        kind, self._seconds = self._ahead.pop()
        self._stage.pools[kind].seat(self._checks)

    def _checks(self, lane: Lane) -> None:
        self._lane = lane
        lane.work(self._seconds, self._next)


# ---------------------------------------------------------------- what machines can do at most


def capacity(group: Group, times: Times) -> float:
    """Episodes a second that the machines of a group can take part in, however many tasks wait; infinite where no
    episode needs them.

    Of x episodes a second, pool k has by Little's law x w_k s_k calls at work on a machine, s_k = 1 + sum of
    slowdown times calls, which is linear in the calls: the largest x whose solution fits into the seats, of which the
    proposer's are kept while a program runs.
    """
    work = times.work()
    kinds = [kind for kind in group.seats if work[kind] > 0]
    if not kinds:
        return float("inf")
    low, high = 0.0, min(group.seats[kind] / work[kind] for kind in kinds)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _fits(group, times, kinds, work, middle) else (low, middle)
    return low * group.machines


def _fits(group: Group, times: Times, kinds: Sequence[Kind], work: Mapping[Kind, float], rate: float) -> bool:
    """Whether calls that come at this rate find seats. The solution grows with the rate, and beyond what the machine
    can do it is no longer positive."""
    cost = np.array([[times.slowdown.get(k, {}).get(q, 0.0) for q in kinds] for k in kinds])
    load = np.array([rate * work[k] for k in kinds])
    alone = np.maximum(load * (1.0 - cost.diagonal()), 1e-12)
    try:
        calls = np.linalg.solve(np.eye(len(kinds)) - load[:, None] * cost, alone)
    except np.linalg.LinAlgError:
        return False
    away = [rate * work["sandbox"] if k == "proposer" else 0.0 for k in kinds]
    return bool(np.all(calls >= 0) and np.all(calls + away <= [group.seats[k] for k in kinds]))


def machines_for(group: Group, times: Times, rate: float, share: float) -> int:
    """How many machines do `rate` episodes a second, at this share of what they can do."""
    each = capacity(group, times) / group.machines
    return max(1, ceil(rate / (each * share) - 1e-9)) if each < float("inf") else 1
