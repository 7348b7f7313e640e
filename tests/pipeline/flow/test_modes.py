"""On-policy the pools and the trainer alternate; with staleness they overlap, and no token is older than allowed. The
stage itself runs, over pools and a trainer that only take their time."""

from __future__ import annotations

import pytest
import ray

from pipeline.config.loading import load
from pipeline.records import Episode, Failure, Rollout
from pipeline.store import accounts
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from tests.pipeline.paced import Pace, Paced, run

pytestmark = pytest.mark.engine  # a small Ray

STEPS = 6
SIZES = (f"mgpo.steps={STEPS}", "mgpo.groups=3", "mgpo.group_size=4", "committee.spot_checks=0")
PLAYING_LONGEST = Pace(tick_s=0.002, tokens=40, tool_s=0.01, judge_s=0.01, probe_s=0.01, train_s=0.1, update_s=0.01)


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def play(root, staleness, pace, *sets):
    found, log = run(root, load(None, [*SIZES, f"mgpo.max_staleness={staleness}", *sets]), pace)
    assert accounts.audit(found)["findings"] == []
    return found, log


def behind(found):
    """Of each rollout that was trained: how many versions its oldest token is behind the policy of its step."""
    return [
        int(folder.name) - 1 - min(r.versions)
        for folder in found.steps("mgpo")
        for r in read_records(folder / "rollouts.parquet", Rollout)
    ]


def overlapping(log):
    """Training steps during which some episode was being played."""
    return sum(any(b < end and e > begin for _, b, e, _ in log.played) for begin, end in log.trained)


def test_on_policy_they_alternate(tmp_path):
    found, log = play(tmp_path / "run", 0, PLAYING_LONGEST)
    assert len(log.trained) == STEPS and overlapping(log) == 0
    assert behind(found) == [0] * (STEPS * 12)
    assert all(len(set(versions)) == 1 for *_, versions in log.played)


def test_with_staleness_they_overlap_and_the_bound_holds(tmp_path):
    found, log = play(tmp_path / "run", 1, PLAYING_LONGEST)
    assert overlapping(log) >= STEPS - 2
    ages = behind(found)
    assert len(ages) == STEPS * 12 and set(ages) == {0, 1}  # step 1 has nothing older than itself
    rows = read_metrics(found)["mgpo"]
    for age in (0, 1):
        assert sum(row.get(f"staleness/{age}", 0) for row in rows) == ages.count(age)


STRAGGLERS = Pace(tick_s=0.002, tokens=12, tail=1.5, train_s=0.01, update_s=0.01)


def spans(log):
    """Begin and end of the episodes of each step."""
    found = {}
    for name, begin, end, _ in log.played:
        found.setdefault(int(name.split("-")[1]), []).append((begin, end))
    return found


def test_while_a_step_waits_for_its_last_episodes_the_next_fills_the_pool(tmp_path):
    found, log = play(tmp_path / "run", 1, STRAGGLERS, "proposer.pool.max_ongoing=4")
    steps = spans(log)
    ahead = [sum(begin < max(end for _, end in steps[n]) for begin, _ in steps[n + 1]) for n in range(1, STEPS)]
    assert sum(n > 0 for n in ahead) >= STEPS // 2
    every = [span for step in steps.values() for span in step]
    assert max(sum(b <= moment < e for b, e in every) for moment, _ in every) <= 4
    assert [folder.name for folder in found.steps("mgpo")] == [f"{n:06d}" for n in range(1, STEPS + 1)]
    rows = read_metrics(found)
    assert [row["step"] for row in rows["mgpo"]] == list(range(1, STEPS + 1))  # written in order
    assert [row["live"] for row in rows["mgpo-ledger"]][-1] == 0


def test_on_policy_nothing_of_the_next_step_is_begun(tmp_path):
    _, log = play(tmp_path / "run", 0, STRAGGLERS, "proposer.pool.max_ongoing=4")
    steps = spans(log)
    for n in range(1, STEPS):
        assert min(begin for begin, _ in steps[n + 1]) > max(end for _, end in steps[n])


@pytest.mark.parametrize("dies_in", [2, 4])
def test_a_run_that_died_with_two_steps_under_way_goes_on_with_the_same_tasks(tmp_path, monkeypatch, dies_in):
    """Attempts that were open in either step are counted as failed, and what is offered does not depend on when a step
    was begun."""
    whole, _ = play(tmp_path / "whole", 1, STRAGGLERS)
    train = Paced._train

    async def dying(self, spec, loader, *rest):
        for step in range(1, dies_in):
            await loader.next_batch.remote(0, 1, step)
            await loader.step_done.remote(step, {"loss": 0.0, "done_at": 0.0})
        await loader.next_batch.remote(0, 1, dies_in)
        raise Failure("the trainer is gone", "infra_error")

    monkeypatch.setattr(Paced, "_train", dying)
    with pytest.raises(Failure, match="the trainer is gone"):
        play(tmp_path / "run", 1, STRAGGLERS)
    broken = RunDir(tmp_path / "run")
    assert accounts.audit(broken)["findings"] == []
    assert accounts.check(broken, "mgpo")["live"] > 0
    monkeypatch.setattr(Paced, "_train", train)
    found, _ = play(tmp_path / "run", 1, STRAGGLERS)
    total = accounts.check(found, "mgpo")
    assert (total["trained"], total["live"]) == (STEPS * 12, 0) and total["interrupted"] > 0
    offered = [
        [e.task for folder in run.steps("mgpo") for e in read_records(folder / "episodes.parquet", Episode)]
        for run in (whole, found)
    ]
    assert offered[0] == offered[1]


@pytest.mark.parametrize("staleness", [1, 2])
def test_a_trainer_that_is_slow_makes_the_pools_wait_at_the_bound(tmp_path, staleness):
    slow = Pace(tick_s=0.0005, tokens=4, train_s=0.15, update_s=0.01)
    found, log = play(tmp_path / "run", staleness, slow)
    assert max(behind(found)) == staleness
    # When a step's first episode begins, the trainer has done all but the allowed number of those before.
    for step in range(1, STEPS + 1):
        begun = min(b for name, b, _, _ in log.played if name.startswith(f"mgpo-{step:06d}"))
        assert sum(end <= begun for _, end in log.trained) >= step - 1 - staleness


def test_requests_in_flight_go_on_under_new_weights(tmp_path):
    """Episodes longer than a training step: some of their tokens are of one version, the rest of the next."""
    found, log = play(tmp_path / "run", 1, Pace(tick_s=0.004, tokens=20, train_s=0.15, update_s=0.01))
    mixed = [versions for *_, versions in log.played if len(set(versions)) == 2]
    assert mixed and all(versions == sorted(versions) for versions in mixed)
    stored = [r for s in found.steps("mgpo") for r in read_records(s / "rollouts.parquet", Rollout)]
    assert sum(len(set(r.versions)) == 2 for r in stored) == len(mixed)
