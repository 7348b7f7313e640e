"""A stage's flow: its order, its totals, and its rate against the pool that can do least."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commands.capacity.times import Times, Trace
from pipeline.commands.capacity.workload import Group, Steps, capacity, machines_for, simulate

ONE = Trace(((2.0, 1.0), (3.0, 0.0)), 4.0, 6.0, True, 100)


def times(traces=(ONE,), slowdown=None, token_s=0.0, step_s=0.0, between_s=0.0, workers=1):
    return Times(traces, slowdown or {}, token_s, step_s, between_s, workers)


def groups(proposer=1, seats=1, judges=1, judging=1, sandbox=1):
    return [
        Group("proposer", proposer, {"proposer": seats}),
        Group("judges", judges, {"committee": judging, "prober": judging}),
        Group("sandbox", sandbox, {"sandbox": 1}),
    ]


def test_one_episode_takes_the_sum_of_its_parts():
    seen = simulate(groups(), times(between_s=0.5), Steps(3, 1, 1, None))
    assert seen.seconds == pytest.approx(3 * (2 + 1 + 3 + 4 + 6) + 0.5) and (seen.episodes, seen.kept) == (3, 3)
    assert seen.held["proposer"] == pytest.approx(18 / 48.5)  # its seat is kept while the program runs


def test_a_straggler_holds_nobody_until_as_many_steps_wait_as_may_be_open():
    """Two steps of 2 at once, one task in four takes 20 times as long: by turns, 5 steps would each take 20 s."""
    slow, fast = (Trace(((s, 0.0),), None, None, True, 100) for s in (20.0, 1.0))
    there = groups(2, 4)
    alone = simulate(there, times((fast,)), Steps(10, 2, 2, None)).seconds
    assert alone == pytest.approx(10)
    mixed = simulate(there, times((slow, fast, fast, fast)), Steps(10, 2, 2, None))
    assert mixed.seconds <= 20 * 5 / 2 + 15 + 20  # the work of 5 long and 15 short ones shared by two, and the last
    held = simulate(there, times((slow._replace(turns=((500.0, 0.0),)), *[fast] * 199)), Steps(100, 2, 2, None))
    assert 500 < held.seconds < 500 + 200  # it keeps one of two; 20 steps behind it the other waits too


@pytest.mark.parametrize("staleness, seconds", [(0, 4 * (16 + 1 + 20 + 3)), (1, 17 + 4 * 20 + 3), (3, 17 + 4 * 20 + 3)])
def test_with_no_staleness_pools_and_trainer_take_turns_with_some_they_overlap(staleness, seconds):
    """Playing takes 16 s and the trainer 20 s + 3 s until it is served: side by side the trainer sets the pace. With
    one version of staleness it still has to wait for nothing: the next step was played meanwhile."""
    known = times(token_s=0.2, step_s=3.0, between_s=1.0)
    seen = simulate(groups(2, 4, 2, 4, 4), known, Steps(4, 1, 8, staleness))
    assert seen.seconds == pytest.approx(seconds) and seen.training_s == pytest.approx(80)


def test_episodes_of_a_run_come_as_they_came_so_that_a_slow_step_does_not_hold_up_the_others():
    """Two steps of 4 s and two of 20 s by turns; dealt out, nearly every step has an episode of 20 s."""
    quick, slow = ([Trace(((s, 0.0),), None, None, True, 100)] * 4 for s in (4.0, 20.0))
    there, steps = groups(1, 4), Steps(4, 4, 4, 0)
    known = times((*quick, *slow, *quick, *slow))
    assert simulate(there, replace(known, as_they_came=True), steps).seconds == pytest.approx(2 * (4 + 20))
    assert simulate(there, known, steps).seconds > 60


def test_more_workers_share_the_tokens():
    alone, four = (
        simulate(groups(), times(token_s=0.2, workers=2), Steps(1, 1, 1, 0, workers)).training_s for workers in (2, 4)
    )
    assert (alone, four) == (pytest.approx(20), pytest.approx(10))


Turns = st.lists(st.tuples(st.floats(0.1, 3), st.sampled_from([0.0, 0.5])), min_size=1, max_size=3).map(tuple)
Judged = st.tuples(st.none(), st.none()) | st.tuples(st.floats(0.1, 3), st.none() | st.floats(0.1, 3))
Traces = st.lists(
    st.tuples(Turns, Judged, st.booleans(), st.integers(1, 9)).map(lambda t: Trace(t[0], *t[1], *t[2:])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(Traces, *[st.integers(1, most) for most in (3, 3, 5, 7)], st.sampled_from([None, 0, 1, 2]))
def test_every_task_comes_back_once_and_no_pool_does_more_than_it_can(traces, machines, seats, count, tasks, staleness):
    known = times(traces, {"proposer": {"proposer": 0.5}, "committee": {"committee": 0.2}}, 0.01, 0.1, 0.1)
    there = groups(machines, seats, 1, seats, machines)
    seen = simulate(there, known, Steps(count, tasks * len(traces), 4, staleness))
    assert seen.episodes == count * tasks * len(traces)
    assert seen.kept == count * tasks * sum(t.kept for t in traces)
    for group in there:
        assert seen.episodes / seen.seconds <= capacity(group, known) * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]))
def test_the_rate_is_that_of_the_pool_that_can_do_least(proposer, seats, judges, sandbox, slowdown):
    """So many tasks at once that only the pools hold them back."""
    own = {kind: {kind: slowdown} for kind in ("proposer", "prober")}
    known, there = times(slowdown=own), groups(proposer, seats + 1, judges, 3, sandbox)
    seen = simulate(there, known, Steps(1, 600, 600, None))
    most = min(capacity(group, known) for group in there)
    assert 0.8 * most <= seen.episodes / seen.seconds <= most * (1 + 1e-6)


def test_capacity_by_hand():
    known = times(slowdown={"proposer": {"proposer": 0.1}})
    assert capacity(Group("p", 3, {"proposer": 4}), known) == pytest.approx(3 * (7.5 - 48.25**0.5))
    without = times((ONE._replace(turns=((5.0, 0.0),)),), {"proposer": {"proposer": 0.1}})
    assert capacity(Group("p", 3, {"proposer": 4}), without) == pytest.approx(3 * 4 / (5 * 1.3))
    assert capacity(Group("s", 2, {"sandbox": 4}), known) == pytest.approx(8)
    both = Group("j", 1, {"committee": 100, "prober": 100})
    shared = times(slowdown={k: {"committee": 1.0, "prober": 1.0} for k in ("committee", "prober")})
    assert capacity(both, shared) == pytest.approx(1 / (4 + 6), rel=1e-3)  # one server for both
    assert capacity(Group("s", 1, {"sandbox": 1}), times((ONE._replace(turns=((1.0, 0.0),)),))) == float("inf")


@given(st.integers(1, 50), st.floats(0.01, 20), st.sampled_from([0.5, 0.85, 1.0]))
def test_as_many_machines_as_it_takes_and_no_more(seats, rate, share):
    known = times(slowdown={"proposer": {"proposer": 0.05}})
    n = machines_for(Group("p", 7, {"proposer": seats}), known, rate, share)
    can = [capacity(Group("p", m, {"proposer": seats}), known) * share for m in (n - 1, n)]
    assert can[0] < rate * (1 + 1e-6) and (rate <= can[1] * (1 + 1e-6) or n == 1)
