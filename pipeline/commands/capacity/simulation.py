"""A discrete-event simulation of pools whose calls share machines.

A pool admits calls to its seats, first come first served. A call that has a seat works there: so many seconds as it
would take alone on the machine. Calls that work side by side on a machine slow each other: the pace of a call of pool p
is 1 / (1 + sum over q of slowdown[p][q] * n_q), n_q other calls of pool q on its machine. So 0 is a delay that nobody
notices, 1 a single server that all share, one seat a machine a plain server.

Invariant: time only moves on, and work is conserved: a call ends when the integral of its pace is its work. The same
seed gives the same events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from math import inf, ulp
from random import Random
from typing import Any

Then = Callable[[], Any]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._due: list[tuple[float, int, Then]] = []
        self._count = 0

    def at(self, when: float, then: Then) -> None:
        self._count += 1
        heappush(self._due, (when, self._count, then))

    def run(self) -> None:
        """Until nothing is left to happen."""
        due = self._due
        while due:
            self.now, _, then = heappop(due)
            self.events += 1
            then()


class Lane:
    """The seats of one pool on one machine."""

    __slots__ = (
        "_count", "alone", "apart", "beside", "done", "held", "machine", "number", "pace", "pool", "seats", "working",
    )  # fmt: skip

    def __init__(self, pool: Pool, machine: Machine, seats: int):
        self.pool, self.machine, self.seats = pool, machine, seats
        self.held = 0
        self.number = -1
        """Its place among the pool's lanes with a free seat; -1: it has none."""
        self.working: list[tuple[float, int, Then]] = []
        self.done = 0.0
        """Work that a call which was here all the time would have done."""
        self.pace = 1.0
        self.alone = 1.0
        """Slowness before the sum over `beside`, in which a call counts itself too."""
        self.beside: Sequence[tuple[list[Any], float]] = ()
        """What works in the lanes of the machine whose calls slow its own, and how much each does."""
        self.apart = True
        """Nothing slows its calls, and they slow nothing."""
        self._count = 0

    def work(self, amount: float, then: Then) -> None:
        if self.apart:
            self.machine.clock.at(self.machine.clock.now + amount, then)
            return
        self.machine.catch_up()
        if not self.working:
            self.done = 0.0
        self._count += 1
        heappush(self.working, (self.done + amount, self._count, then))
        self.machine.foresee()

    def leave(self) -> None:
        self.pool.left(self)


class Machine:
    def __init__(self, clock: Clock):
        self.clock = clock
        self.lanes: list[Lane] = []
        self.shared: list[Lane] = []
        """Those that are not apart."""
        self._since = 0.0
        self._due = inf
        self._ending = False

    def catch_up(self) -> None:
        passed = self.clock.now - self._since
        if passed > 0:
            for lane in self.shared:
                lane.done += passed * lane.pace
            self._since = self.clock.now

    def foresee(self) -> None:
        """Set the paces, and come back when the first call ends."""
        if self._ending:
            return
        first, now = inf, self.clock.now
        for lane in self.shared:
            working = lane.working
            if working:
                slow = lane.alone
                for others, cost in lane.beside:
                    slow += cost * len(others)
                lane.pace = 1.0 / slow
                due = now + (working[0][0] - lane.done) * slow
                if due < first:
                    first = due
        if first < now:
            first = now
        if first < self._due:  # what was foreseen for later finds nothing to end, and looks again
            self._due = first
            self.clock.at(first, self._end)

    def _end(self) -> None:
        now = self.clock.now
        if now < self._due:
            return  # a forecast that an earlier one has replaced
        self._due = inf
        self.catch_up()
        ended = []
        for lane in self.shared:
            working = lane.working
            if working:
                near = lane.done + max(1e-9 * (1.0 + lane.done), ulp(now))  # no clock tells less apart
                while working and working[0][0] <= near:
                    ended.append(heappop(working)[2])
        self._ending = True
        for then in ended:
            then()
        self._ending = False
        self.foresee()


class Pool:
    def __init__(self, name: str, clock: Clock, random: Random):
        self.name, self._clock, self._random = name, clock, random.random
        self.lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._queue: deque[tuple[float, Callable[[Lane], Any]]] = deque()
        self.held = 0
        self.calls = 0
        self.waited_s = 0.0
        self.held_s = 0.0
        """Seconds that seats were held, all together."""
        self._since = 0.0

    def add(self, machine: Machine, seats: int) -> None:
        lane = Lane(self, machine, seats)
        machine.lanes.append(lane)
        self.lanes.append(lane)
        self._open(lane)

    def seat(self, then: Callable[[Lane], Any]) -> None:
        """Call `then` with a lane in which there is a seat, as soon as there is."""
        self.calls += 1
        free = self._free
        if not free:
            self._queue.append((self._clock.now, then))
            return
        # As Ray Serve's router does: the less busy of two that it draws.
        lane = free[int(self._random() * len(free))]
        if len(free) > 1:
            other = free[int(self._random() * len(free))]
            if other.held * lane.seats < lane.held * other.seats:
                lane = other
        self._count(1)
        lane.held += 1
        if lane.held == lane.seats:
            last = free.pop()
            if last is not lane:
                free[lane.number] = last
                last.number = lane.number
            lane.number = -1
        then(lane)

    def left(self, lane: Lane) -> None:
        if self._queue:
            came, then = self._queue.popleft()
            self.waited_s += self._clock.now - came
            then(lane)
            return
        self._count(-1)
        lane.held -= 1
        if lane.number < 0:
            self._open(lane)

    def _open(self, lane: Lane) -> None:
        lane.number = len(self._free)
        self._free.append(lane)

    def _count(self, change: int) -> None:
        self.held_s += self.held * (self._clock.now - self._since)
        self._since = self._clock.now
        self.held += change


def settle(machines: Sequence[Machine], slowdown: Mapping[Any, Mapping[Any, float]]) -> None:
    """Say how calls slow each other, once all pools have their lanes."""
    for machine in machines:
        for lane in machine.lanes:
            costs = slowdown.get(lane.pool.name, {})
            beside = ((other, costs.get(other.pool.name, 0.0)) for other in machine.lanes)
            lane.beside = [(other.working, cost) for other, cost in beside if cost]
            lane.alone = 1.0 - costs.get(lane.pool.name, 0.0)
        felt = {id(working) for lane in machine.lanes for working, _ in lane.beside}
        for lane in machine.lanes:
            lane.apart = not lane.beside and id(lane.working) not in felt
        machine.shared = [lane for lane in machine.lanes if not lane.apart]
