"""What a step amounts to, counted again in plain loops; and a ledger that adds up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Failure, Outcome
from pipeline.scoring.judged import Judged
from pipeline.scoring.summary import ends, pruned, staleness, summarize
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
    facts = summarize(judged)
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
    solved = [1 - r for r in rho if r > 0]
    assert facts["solved_yield_per_1k"] == pytest.approx(1000 * sum(solved) / (10 * len(played)))
    if rho:
        assert facts["unsolved_rate"] == pytest.approx(rho.count(0) / len(rho))
        assert facts["difficulty"] == pytest.approx(1 - sum(rho) / len(rho))
        first = next(j for j in judged if j.accepted)
        without = summarize(judged, {first.key})
        assert without["duplicate_rate"] == pytest.approx(1 / len(rho))
        assert without["hard_yield_per_1k"] == pytest.approx(1000 * sum(1 - r for r in rho[1:]) / (10 * len(played)))
        assert without["accepted_rate"] == facts["accepted_rate"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=40), st.data())
def test_the_ledger_adds_up(kinds, data):
    judged = [one(i, kind) for i, kind in enumerate(kinds)]
    usable = [j.key for j in judged if not j.failed]
    trained = data.draw(st.lists(st.sampled_from(usable), unique=True)) if usable else []
    ended = ends(judged, trained)
    assert set(ended) == {j.key for j in judged}
    assert {key for key, end in ended.items() if end == "trained"} == set(trained)
    failed = sum(k in ("undecided", "infra_error", "data_error") for k in kinds)
    assert list(ended.values()).count("failed") == failed


@pytest.mark.parametrize(("key", "why"), [(("g-01", 1), "failed"), (("other", 1), "unknown"), (("g-00", 2), "unknown")])
def test_what_failed_or_was_never_played_is_not_trained(key, why):
    with pytest.raises(Failure, match=f"{key[0]} .attempt {key[1]}. cannot be trained: it is {why}"):
        ends([one(0, "accepted"), one(1, "infra_error")], [key])


def test_pruned_is_fewer_skills_than_offered():
    assert not pruned(episode())
    assert pruned(episode(active=("first",)))


def test_staleness_is_counted_by_the_oldest_token():
    versions = [(4,), (3, 4), (4,), (2, 3, 4), ()]
    judged = [
        Judged(episode(task(f"g-{i}")).model_copy(update={"policy_versions": v}), None, None)
        for i, v in enumerate(versions)
    ]
    assert staleness(judged, step=5) == {"staleness/0": 2.0, "staleness/1": 1.0, "staleness/2": 1.0}
