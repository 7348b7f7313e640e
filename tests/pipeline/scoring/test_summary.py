"""What a step amounts to, counted again in plain loops; and a ledger that adds up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.passk import estimate, wilson
from pipeline.config import RewardConfig
from pipeline.records import Attempts, Failure, Outcome
from pipeline.scoring import chance
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
        assert facts["solved_difficulty"] == pytest.approx(sum(solved) / max(len(solved), 1))
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


def test_what_weaker_probers_sampled_is_counted_too():
    e = episode(task())
    weaker = (Attempts(prober="small", correct=0, judged=7, unknown=1, tokens=90),)
    found = estimate("p", 4, 4, 0, 4, "large").model_copy(update={"tokens": 50, "weaker": weaker})
    facts = summarize([Judged(e, verdict(e), chance.measured(found, 0.0, RewardConfig()))])
    assert (facts["probe_samples"], facts["probe_tokens"]) == (16, 140)


def test_what_the_reward_pays_for_leaves_out_what_nobody_solves_and_probes_that_ended_early_are_counted():
    """rho by the rate: 2 and 8 of 8 right (the second spared 8 samples), and one that nobody solves."""
    counts = [(2, 8, 0), (8, 8, 8), (0, 16, 0)]
    judged = []
    for i, (correct, n, spared) in enumerate(counts):
        e = episode(task(f"g-{i:02d}"), question=f"What is {i} + 1?")
        found = estimate("p", correct, n - correct, 0, 4, "m").model_copy(update={"spared": spared, "tokens": 10 * n})
        judged.append(Judged(e, verdict(e), chance.measured(found, 0.0, RewardConfig(rho="rate"))))
    facts = summarize(judged)
    assert facts["solved_difficulty"] == pytest.approx((0.75 + 0.0) / 2)
    assert facts["unsolved_rate"] == pytest.approx(1 / 3)
    assert facts["pass_rate"] == pytest.approx((0.25 + 1 + 0) / 3)
    assert (facts["probe_samples"], facts["probe_samples_spared"]) == (32, 8)
    assert (facts["probe_tokens"], facts["probe_tokens_spared"]) == (320, 80)
    widths = [high - low for low, high in (wilson(8, 2), wilson(8, 8), wilson(16, 0))]
    assert facts["rate_width"] == pytest.approx(sum(widths) / 3)
