"""The simulation against what queueing theory says of the same system, and against hand-worked cases."""

from heapq import heappop, heappush
from math import factorial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commands.capacity.simulation import Clock, Machine, Pool, settle


class Served:
    """Calls that come at given moments to one pool; what became of each."""

    def __init__(self, machines, seats, slowdown, arrivals, works, seed=0):
        self.clock = Clock()
        self.pool = Pool("a", self.clock, Random(seed))
        there = [Machine(self.clock) for _ in range(machines)]
        for machine in there:
            self.pool.add(machine, seats)
        settle(there, {"a": {"a": slowdown}})
        self.began, self.ended = {}, {}
        for i, (when, work) in enumerate(zip(arrivals, works, strict=True)):
            self.clock.at(when, lambda i=i, work=work: self.pool.seat(lambda lane: self._sit(lane, i, work)))
        self.arrivals = arrivals
        self.clock.run()

    def _sit(self, lane, i, work):
        self.began[i] = self.clock.now
        lane.work(work, lambda: self._leave(lane, i))

    def _leave(self, lane, i):
        self.ended[i] = self.clock.now
        lane.leave()

    def mean_wait(self):
        return sum(self.began[i] - t for i, t in enumerate(self.arrivals)) / len(self.arrivals)

    def mean_stay(self):
        return sum(self.ended[i] - t for i, t in enumerate(self.arrivals)) / len(self.arrivals)


def poisson(random, rate, n):
    now, found = 0.0, []
    for _ in range(n):
        now += random.expovariate(rate)
        found.append(now)
    return found


def erlang_c_wait(c, load, service):
    """Mean wait of M/M/c: `load` = arrival rate times mean service time."""
    term = load**c / factorial(c) * c / (c - load)
    waits = term / (sum(load**k / factorial(k) for k in range(c)) + term)
    return waits * service / (c - load)


@pytest.mark.parametrize(("c", "use"), [(1, 0.5), (2, 0.6), (4, 0.6)])
@pytest.mark.parametrize("apart", [True, False])
def test_plain_servers_wait_as_erlang_says(c, use, apart):
    """c machines of one seat, and one machine of c seats that do not slow each other, are both M/M/c. The mean of so
    many waits has a standard deviation of 6 to 10 %."""
    random, n = Random(c), 12_000
    arrivals = poisson(random, c * use / 2.0, n)
    works = [random.expovariate(1 / 2.0) for _ in range(n)]
    seen = Served(c if apart else 1, 1 if apart else c, 0.0, arrivals, works)
    assert seen.mean_wait() == pytest.approx(erlang_c_wait(c, c * use, 2.0), rel=0.25)
    assert seen.pool.waited_s / n == pytest.approx(seen.mean_wait(), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 5)), min_size=1, max_size=60), st.integers(1, 5))
def test_each_wait_is_that_of_the_recursion_for_plain_servers(load, c):
    """Whoever comes next gets the server that is free first (Kiefer and Wolfowitz), on every path."""
    gaps, works = zip(*load, strict=True)
    arrivals = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    seen, free = Served(c, 1, 0.0, arrivals, works), [0.0] * c
    for i, (came, work) in enumerate(zip(arrivals, works, strict=True)):
        begins = max(came, heappop(free))
        heappush(free, begins + work)
        assert seen.began[i] == pytest.approx(begins, abs=1e-6)


@pytest.mark.parametrize("exponential", [True, False])
def test_a_machine_that_all_share_is_processor_sharing(exponential):
    """M/G/1-PS: the mean stay is s / (1 - use), whatever the distribution."""
    random, n = Random(5), 12_000
    arrivals = poisson(random, 0.7, n)
    works = [random.expovariate(1.0) if exponential else 1.0 for _ in range(n)]
    seen = Served(1, n, 1.0, arrivals, works)
    assert seen.mean_stay() == pytest.approx(1 / (1 - 0.7), rel=0.1)


Loads = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(Loads, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_littles_law_order_and_bounds(load, machines, seats, slowdown):
    """Mean seats in use times the time = the sum of all stays on a seat; nobody overtakes in the queue; nobody is done
    faster than alone, nor slower than with all seats taken."""
    gaps, works = zip(*load, strict=True)
    arrivals = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    seen = Served(machines, seats, slowdown, arrivals, works)
    assert len(seen.ended) == len(load)
    stays = [seen.ended[i] - seen.began[i] for i in range(len(load))]
    assert seen.pool.held_s == pytest.approx(sum(stays), rel=1e-6)
    assert [seen.began[i] for i in range(len(load))] == sorted(seen.began.values())
    for stay, work in zip(stays, works, strict=True):
        assert work * (1 - 1e-6) <= stay <= work * (1 + slowdown * (seats - 1)) * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=20), st.sampled_from([0.0, 0.25, 1.0]))
def test_work_is_conserved(works, slowdown):
    """All come at once to one machine: the n-th to end has waited for what is left of all, by hand."""
    seen = Served(1, len(works), slowdown, [0.0] * len(works), works)
    now = before = 0.0
    for rank, work in enumerate(sorted(works)):
        beside = len(works) - rank - 1
        now, before = now + (work - before) * (1 + slowdown * beside), work
        assert sorted(seen.ended.values())[rank] == pytest.approx(now, rel=1e-6)


def test_short_calls_late_on_the_clock_end():
    """After a year the clock's ticks are longer than a share of a short call that is left over."""
    random, n = Random(1), 300
    arrivals = [3.2e7 + i * 0.013 for i in range(n)]
    seen = Served(1, 3, 0.013, arrivals, [random.uniform(0.01, 0.05) for _ in range(n)])
    assert len(seen.ended) == n and seen.mean_stay() < 0.5


def test_pools_on_one_machine_slow_each_other():
    """A call of a and one of b side by side, each at half its pace; then the longer one alone."""
    clock = Clock()
    pools = {name: Pool(name, clock, Random(0)) for name in "ab"}
    machine = Machine(clock)
    ended = {}
    for pool in pools.values():
        pool.add(machine, 1)
    settle([machine], {"a": {"a": 1.0, "b": 1.0}, "b": {"a": 1.0}})
    for name, work in (("a", 1.0), ("b", 3.0)):
        pools[name].seat(lambda lane, n=name, w=work: lane.work(w, lambda: ended.setdefault(n, clock.now)))
    clock.run()
    assert ended == {"a": pytest.approx(2.0), "b": pytest.approx(4.0)}


def test_what_is_done_elsewhere_keeps_its_seat_and_slows_nobody():
    clock = Clock()
    pool = Pool("a", clock, Random(0))
    machine = Machine(clock)
    pool.add(machine, 2)
    settle([machine], {"a": {"a": 1.0}})
    ended, lanes = [], []

    def away(lane):  # works for 1 s, is away for 10 s, works for 1 s
        lane.work(1.0, lambda: clock.at(clock.now + 10, lambda: lane.work(1.0, lambda: done(lane))))

    def done(lane):
        ended.append(clock.now)
        lane.leave()

    def beside(lane):
        lanes.append(lane)
        lane.work(4.0, lambda: done(lane))

    pool.seat(away)
    pool.seat(beside)
    pool.seat(away)  # waits for a seat, though the first is away
    clock.run()
    # 0-2 both at half pace; 2-5 alone; it ends at 5, the third sits down: alone 5-6, away; 12-13 the first; 16-17
    assert ended == [pytest.approx(5.0), pytest.approx(13.0), pytest.approx(17.0)]
