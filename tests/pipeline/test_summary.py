"""What a step amounts to, counted again in plain loops; and a ledger that adds up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Failure, Outcome
from pipeline.stream import Judged
from pipeline.summary import account, pruned, summarize
from tests.pipeline.judged import episode, probe, task, verdict

KINDS = ("accepted", "rejected", "undecided", "model_error", "infra_error", "data_error")


def one(i, kind):
    of = task(f"g-{i:02d}")
    if kind in ("accepted", "rejected", "undecided"):
        e = episode(of, question=f"What is {i} + 1?")
        return Judged(e, verdict(e, kind), probe(e, 0.25 * (i % 5)) if kind == "accepted" else None)
    return Judged(episode(of, outcome=Outcome(kind=kind, reason="r")), None, None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=40))
def test_every_figure_of_a_step(kinds):
    judged = [one(i, kind) for i, kind in enumerate(kinds)]
    facts = summarize(judged, duplicates=0)
    failed = sum(k in ("undecided", "infra_error", "data_error") for k in kinds)
    played = [k for k in kinds if k in ("accepted", "rejected", "model_error")]
    rho = [0.25 * (i % 5) for i, k in enumerate(kinds) if k == "accepted"]
    assert (facts["episodes"], facts["failed"]) == (len(kinds), failed)
    assert facts["sampled_tokens"] == 10 * len(played)
    if not played:
        assert facts["accepted_rate"] == facts["submitted_rate"] == facts["hard_yield_per_1k"] == 0
        return
    assert facts["accepted_rate"] == pytest.approx(len(rho) / len(played))
    assert facts["submitted_rate"] == pytest.approx(1 - played.count("model_error") / len(played))
    assert facts["undecided_rate"] == pytest.approx(kinds.count("undecided") / len(kinds))
    assert facts["hard_yield_per_1k"] == pytest.approx(1000 * sum(1 - r for r in rho) / (10 * len(played)))
    if rho:
        assert facts["difficulty"] == pytest.approx(1 - sum(rho) / len(rho))
        assert summarize(judged, duplicates=1)["duplicate_rate"] == pytest.approx(1 / len(rho))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=40), st.data())
def test_the_ledger_adds_up(kinds, data):
    judged = [one(i, kind) for i, kind in enumerate(kinds)]
    usable = sum(not j.failed for j in judged)
    trained = data.draw(st.integers(0, usable))
    ledger = account(judged, trained)
    assert ledger["issued"] == len(kinds) == ledger["trained"] + ledger["filtered"] + ledger["failed"]
    assert min(ledger.values()) >= 0 and ledger["trained"] == trained
    assert ledger["failed"] == sum(k in ("undecided", "infra_error", "data_error") for k in kinds)


def test_more_trained_than_there_was_is_told():
    with pytest.raises(Failure, match="ledger: 2 trained and 1 failed of 2 issued"):
        account([one(0, "accepted"), one(1, "infra_error")], 2)


def test_pruned_is_fewer_skills_than_offered():
    assert not pruned(episode())
    assert pruned(episode(active=("first",)))
