"""Synthesis has no waves: a straggler holds nobody, and nothing that comes back in another order changes a byte."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pools import endpoints
from pipeline.pools.buffer import MOST_OPEN
from pipeline.records import Failure, Halt
from pipeline.store import accounts
from pipeline.store.ledger import NOT_NEEDED, Ledger
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir
from tests.pipeline.stages.test_synthesize import WAVE, Pools, by_hand, problems, run


def every_file(root):
    """What the stage left and what it was made of, without moments of time."""
    steps = sorted((root / "steps" / "synthesize").glob("*/*.parquet")) + sorted((root / "dataset").rglob("*.*"))
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in steps if p.name != "manifest.json"}
    return files | {"metrics": [row["accepted"] for row in read_metrics(RunDir.look(root))["synthesize"]]}


def account(root):
    found = accounts.audit(RunDir.look(root))
    assert [line for line in found["findings"] if not line.startswith("mgpo")] == []
    return found["stages"]["synthesize"]["totals"]


def test_a_straggler_holds_nobody(root):
    """Task 4 takes as long as six waves: as many others are played meanwhile as if it did not, and it is a row."""
    pools = Pools(lambda n: n, seconds=lambda n: 6 if n == 4 else 1)
    run(root, pools, target=40)
    assert pools.played.index(4) >= 5 * (WAVE - 1)
    assert problems(root) == by_hand(lambda n: n, 40)
    assert pools.most == WAVE and account(root)["live"] == 0


def test_behind_one_that_takes_for_ever_no_more_steps_are_open_than_may_be(root):
    pools = Pools(lambda n: n, seconds=lambda n: 40 if n == 2 else 1, wave=4)
    run(root, pools, target=60, wave=4)
    assert pools.played.index(2) == MOST_OPEN * 4 - 1
    assert problems(root) == by_hand(lambda n: n, 60)


SLOW = st.lists(st.sampled_from([0, 1, 1, 2, 3, 40]), min_size=1, max_size=12)
NUMBERS = {"each its own": lambda n: n, "each twice": lambda n: n // 2, "few": lambda n: n // 9 * 3 + n % 3}


@settings(max_examples=6, deadline=None)
@given(SLOW, st.integers(1, 30), st.integers(4, 9), st.sampled_from(sorted(NUMBERS)), st.integers(0, 60))
def test_whatever_comes_back_when_the_data_set_is_the_same(seconds, target, wave, name, dies):
    """Also if it is ended in the middle, and begins again; nothing that was begun lacks its end."""
    number = NUMBERS[name]

    def slow(n):
        return seconds[n % len(seconds)]

    def dying(n):
        if n == dies:
            raise Halt("budget_usd 1: $1 is spent")
        return slow(n)

    with tempfile.TemporaryDirectory() as folder:
        one, other, even = (Path(folder) / place for place in ("one", "other", "even"))
        pools = Pools(number, slow, wave)
        result = run(one, pools, target, 10**4, wave)
        assert problems(one) == by_hand(number, target) and pools.most <= wave and not pools.waiting
        n = int(problems(one)[-1]["answer"])
        assert result["episodes"] == n + 1  # the last task that is in a step brought the last problem
        assert account(one)["live"] == 0 and account(one)["not_needed"] == len(pools.begun) - (n + 1)
        run(even, Pools(number, lambda _: 1, wave), target, 10**4, wave)
        try:
            run(other, Pools(number, dying, wave), target, 10**4, wave)
        except Exception as e:
            assert "$1 is spent" in str(e)
            run(other, Pools(number, lambda n: slow(n + 1), wave), target, 10**4, wave)
        assert account(other)["live"] == 0
        assert every_file(one) == every_file(even)
        for name in ("problems", "provenance"):
            assert (one / "dataset" / f"{name}.jsonl").read_text() == (other / "dataset" / f"{name}.jsonl").read_text()


@pytest.mark.parametrize("target, most", [(3, 8), (240, 375)])
def test_little_more_is_begun_than_is_needed(root, target, most):
    """Two of three become rows: 5 and 360 episodes make these, and waves of 64 were 64 and 384."""
    pools = Pools(lambda n: n, wave=64)
    run(root, pools, target=target, wave=64)
    assert len(pools.begun) <= most


def test_what_nobody_needs_is_cancelled_and_has_its_end(root):
    pools = Pools(lambda n: n, seconds=lambda n: 100 if n > 13 else 1)
    run(root, pools, target=9)  # until task 13
    assert sorted(pools.begun) == sorted(pools.played + pools.cancelled) and pools.cancelled
    journals = [p.read_text() for p in sorted((root / "ledger" / "synthesize").glob("*.jsonl"))]
    ended = [e["id"] for text in journals for e in map(json.loads, text.splitlines()) if e.get("reason") == NOT_NEEDED]
    assert len(ended) == len(pools.cancelled) == account(root)["not_needed"]


def test_steps_that_a_process_began_before_it_died_and_nobody_needs_are_closed(root):
    run(root, Pools(lambda n: n), target=9)
    (root / "stages" / "synthesize.json").unlink(missing_ok=True)
    for step in (3, 4):
        ledger = Ledger(RunDir.look(root), "synthesize")
        ledger.begin(step)
        ledger.issue(f"synthesize-{step:06d}-0000-00")
        ledger.close()
    assert account(root)["live"] == 2
    run(root, Pools(lambda n: n), target=9)
    assert (account(root)["live"], account(root)["interrupted"]) == (0, 2)


def test_tokens_are_a_target_which_ends_with_the_task_that_brings_the_last(root):
    """Ten tokens an episode, and none is counted of a probe."""
    pools = Pools(lambda n: n, seconds=lambda n: 9 if n == 5 else 1)
    result = run(root, pools, target=100, sets=["synthesize.target_tokens=195"])
    assert (result["ended_by"], result["tokens"], result["episodes"]) == ("tokens", 200, 20)
    assert problems(root) == [row for row in by_hand(lambda n: n, 100) if int(row["answer"]) < 20]
    assert len(pools.begun) <= 22 and account(root)["live"] == 0
    assert result["tokens_per_problem"] == pytest.approx(200 / 13)
    assert run(root, again := Pools(lambda n: n), target=100, sets=["synthesize.target_tokens=195"]) == result
    assert again.begun == []


def test_hours_are_a_target_after_which_nothing_begins_and_what_began_is_kept(root):
    """Each second eight tasks, for 3.6 seconds: the last begin at 3 s."""
    pools = Pools(lambda n: n, seconds=lambda n: 1)
    result = run(root, pools, target=100, sets=["synthesize.target_hours=0.001"])
    assert (result["ended_by"], len(pools.begun), result["episodes"]) == ("hours", 4 * WAVE, 4 * WAVE)
    assert problems(root) == [row for row in by_hand(lambda n: n, 100) if int(row["answer"]) < 4 * WAVE]
    assert run(root, Pools(lambda n: n), target=100, sets=["synthesize.target_hours=0.001"])["ended_by"] == "hours"
    paces = [row["left_s"] for row in read_metrics(RunDir.look(root))["synthesize"]]
    assert len(paces) == 4 and paces[-1] == 0.0 < paces[0] <= 3.6


def test_dollars_are_a_target_and_what_a_problem_costs_is_told(root, monkeypatch):
    """An earlier stage has spent 5; each episode costs 0.1, the answer that came last too."""
    pools = Pools(lambda n: n, seconds=lambda n: 1)
    monkeypatch.setattr(endpoints, "spent", lambda: {"http://x/v1": {"usd": 5 + 0.1 * len(pools.played)}})
    result = run(root, pools, target=100, sets=["synthesize.target_usd=1.5"])
    assert (result["ended_by"], result["episodes"]) == ("usd", len(pools.begun)) and 15 <= len(pools.begun) < 15 + WAVE
    assert result["usd_per_problem"] == pytest.approx(0.1 * len(pools.begun) / result["accepted"])
    assert read_metrics(RunDir.look(root))["synthesize"][-1]["usd_per_problem"] == result["usd_per_problem"]


def test_a_straggler_at_the_end_of_the_hours_loses_nothing(root):
    """Tasks that began in time, some in a step of which others never did."""
    pools = Pools(lambda n: n, seconds=lambda n: 50 if n == 9 else 1 + n % 2)
    result = run(root, pools, target=100, sets=["synthesize.target_hours=0.001"])
    assert sorted(pools.played) == list(range(result["episodes"])) and not pools.cancelled
    assert result["episodes"] % WAVE and account(root)["failed"] == 0


def test_shares_are_filled_in_the_order_of_the_tasks_whatever_comes_back_when(root, tmp_path):
    sets = ["synthesize.categories={maths: 0.5, code: 0.25}"]
    result = run(root, Pools(lambda n: n), target=8, sets=sets)
    assert result["by_category"] == {"maths": 4, "code": 2, "science": 2} and result["ended_by"] == "problems"
    run(tmp_path / "other", Pools(lambda n: n, seconds=lambda n: n % 5), target=8, sets=sets)
    assert every_file(root) == every_file(tmp_path / "other")


def test_a_category_that_is_not_offered_is_named(root):
    with pytest.raises(Failure, match=r"synthesize\.categories\.poetry: no skill .*; expected of code, maths, science"):
        run(root, Pools(), sets=["synthesize.categories={poetry: 0.5}"])


@pytest.fixture
def root(tmp_path):
    return tmp_path / "run"
