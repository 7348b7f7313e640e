"""Times inferred from spans: against a simulation whose slowdowns are known."""

from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.commands.capacity.calibration import Way, _inferred, _load, fit, work_done
from pipeline.commands.capacity.simulation import Clock, Machine, Pool, settle


def world(slowdown, n=150, seed=0, spread=0.2, count=1):
    """Calls of two pools on so many machines, in waves: (pool, begin, end, size, work) of each."""
    clock, random = Clock(), Random(seed)
    pools = {name: Pool(name, clock, random) for name in ("proposer", "prober")}
    machines = [Machine(clock) for _ in range(count)]
    for machine in machines:
        for pool in pools.values():
            pool.add(machine, 40)
    settle(machines, slowdown)
    rows = []

    def begin(name, lane, size, work):
        began = clock.now
        lane.work(work, lambda: (rows.append((name, began, clock.now, size, work)), lane.leave()))

    for i in range(n):
        for name, apart in (("proposer", 0.5), ("prober", 1.5)):
            size = random.uniform(1, 10)
            work = size * random.uniform(1 - spread, 1 + spread)
            when = i * apart + (i // 25) * 60
            clock.at(when, lambda a=(name, size, work): pools[a[0]].seat(lambda lane: begin(a[0], lane, *a[1:])))
    clock.run()
    return rows


@pytest.mark.parametrize(
    "slowdown",
    [
        {"proposer": {"proposer": 0.1}, "prober": {"prober": 0.0}},
        {"proposer": {"proposer": 0.03, "prober": 0.15}, "prober": {"prober": 0.33, "proposer": 0.03}},
    ],
)
def test_known_slowdowns_are_found_again_and_so_is_the_work(slowdown):
    rows = world(slowdown)
    spans = {name: np.array([(b, e) for k, b, e, _, _ in rows if k == name]) for name in ("proposer", "prober")}
    times = np.unique(np.concatenate(list(spans.values())))
    loads = {name: _load(times, s) for name, s in spans.items()}
    for name, s in spans.items():
        sizes = np.array([size for k, *_, size, _ in rows if k == name])
        works = np.array([work for k, *_, work in rows if k == name])
        exact = work_done(times, loads, name, slowdown[name], s[:, 0], s[:, 1])
        assert exact == pytest.approx(works, rel=1e-6)
        costs = fit(times, loads, name, ["proposer", "prober"], s[:, 0], s[:, 1], sizes)
        found = work_done(times, loads, name, costs, s[:, 0], s[:, 1])
        assert np.mean(np.abs(found / works - 1)) < 0.1, costs
    taken = np.array([e - b for k, b, e, _, _ in rows if k == "proposer"])
    worked = np.array([work for k, *_, work in rows if k == "proposer"])
    assert np.mean(taken) > 1.5 * np.mean(worked)  # so much there was to find


def test_calls_are_slowed_by_those_on_their_own_machine_alone():
    """Of three machines, each has a third of the calls: what one call adds is not a third of what it does."""
    known = 0.15
    rows = [row for row in world({"proposer": {"proposer": known}}, n=600, count=3) if row[0] == "proposer"]
    ways = [
        Way(
            {"proposer": (began, ended)},
            SimpleNamespace(episode=SimpleNamespace(sampled_tokens=size, turns=()), probe=None),
        )
        for _, began, ended, size, _ in rows
    ]
    works = np.array([work for *_, work in rows])
    alone, slowdown = _inferred(ways, {"proposer": 3, "committee": 1, "prober": 1}, beside=False)
    assert slowdown["proposer"]["proposer"] == pytest.approx(known, rel=0.5)
    assert np.mean(alone["proposer"]) == pytest.approx(np.mean(works), rel=0.2)


def test_the_load_is_what_is_under_way_between_two_moments():
    spans = np.array([(0.0, 4.0), (1.0, 3.0), (3.0, 4.0)])
    assert list(_load(np.array([0.0, 1.0, 3.0, 4.0]), spans)) == [1, 2, 2]
