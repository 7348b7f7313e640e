"""The harness: what it plants is unsound by another reader's judgement, and its figures are what they say."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from actors.committee import Committee
from pipeline.domains.mini.defects import plant, sound_problems
from pipeline.records import Failure, Problem, Verdict, Vote
from pipeline.scoring.audit import figures, run_audit, spot_check
from tests.actors.pools import Boxes, handle, sandbox, solver_pool
from tests.mini import MINI
from tests.pipeline.domains.mini import oracle


@cache
def sound(n, seed):
    return sound_problems(n, seed)


def test_every_defect_is_planted_about_equally_often_and_the_same_for_a_seed():
    problems = sound(170, 0)
    planted = plant(problems, 1)
    assert planted == plant(problems, 1) != plant(problems, 2)
    counts = {d: sum(p.defect == d for p in planted) for d in {p.defect for p in planted}}
    assert len(counts) == 14 and len(planted) == 170
    assert min(counts.values()) >= 10


def test_what_is_planted_differs_from_what_it_was_made_of():
    problems = sound(170, 0)
    for (problem, active), spoiled in zip(problems, plant(problems, 1), strict=True):
        assert (spoiled.problem, spoiled.active) != (problem, active)


def verdict(decision, **votes):
    cast = tuple(Vote(verifier=name, valid=valid, wall_s=0.5) for name, valid in votes.items())
    return Verdict(problem_id="p", votes=cast, flags=(), decision=decision, reason="r")


def test_figures_count_what_their_names_say():
    good = [
        verdict("accepted", a=True, b=True),
        verdict("rejected", a=False, b=True),
        verdict("undecided", a=None, b=True),
    ]
    bad = [
        ("injection", verdict("accepted", a=True, b=None)),
        ("injection", verdict("rejected", a=False, b=True)),
        ("trivial", verdict("rejected", a=False, b=False)),
        ("trivial", verdict("undecided", a=None, b=None)),
    ]
    found = figures(good, bad)
    committee, a, b = found["committee"], found["verifiers"]["a"], found["verifiers"]["b"]
    assert (found["sound"], found["planted"], found["injections_accepted"]) == (3, 4, 1)
    assert committee["false_accept"] == 1 / 4 and committee["false_reject"] == 1 / 3
    assert committee["abstention"] == 2 / 7 and committee["disagreement"] == 2 / 7
    assert committee["latency_s"] == committee["latency_p95_s"] == 0.5
    assert a["false_accept"] == 1 / 4 and a["false_reject"] == 1 / 3 and a["abstention"] == 2 / 7
    assert a["disagreement"] == 0 and b["disagreement"] == 2 / 4  # of the votes on decided problems
    assert b["false_accept"] == 1 / 4 and b["false_reject"] == 0
    assert found["by_defect"] == {"injection": {"n": 2, "accepted": 1}, "trivial": {"n": 2, "accepted": 0}}
    assert committee["false_accept"] < committee["false_accept_high"] < 1


def audit(count, seed, tell=lambda line: None):
    pool, sandbox_handle = sandbox()
    try:
        committee = Committee(MINI.committee, sandbox_handle, solver_pool(Boxes("2", "7", None)))
        problems = sound_problems(count, seed)
        return asyncio.run(run_audit(handle(committee, "judge_many"), problems, plant(problems, seed), seed, tell))
    finally:
        pool.close()


def test_a_small_audit_of_the_real_committee():
    lines = []
    found = audit(33, 3, lines.append)
    assert lines[-1] == "66/66 problems judged"
    assert found["sound"] == found["planted"] == 33 and found["injections_accepted"] == 0
    assert found["committee"]["false_accept"] == found["committee"]["false_reject"] == 0
    assert set(found["verifiers"]) == {"symbolic-0", "executing-1", "model-2"}


@pytest.mark.slow
def test_the_committee_on_a_thousand_sound_and_a_thousand_planted_problems():
    found = audit(1000, 11)
    assert found["planted"] == 1000
    assert found["committee"]["false_accept"] <= 0.005 and found["committee"]["false_reject"] <= 0.02
    assert found["injections_accepted"] == 0


def test_planted_problems_are_unsound_to_a_third_reader():
    """tests/pipeline/domains/mini/oracle.py shares no code with the committee's parser nor with the generator. (Names,
    strange sentences and unused skills it does not look at.)"""
    looked_at = {"wrong_answer", "off_by_one", "missing_quantity", "contradictory", "division_by_zero", "unit_error"}
    spoiled = [p for p in plant(sound(170, 0), 9) if p.defect in looked_at]
    assert {p.defect for p in spoiled} == looked_at
    for p in spoiled:
        try:
            answer, _ = oracle.solve(p.problem.question)
        except oracle.Bad:
            continue
        assert answer != p.problem.answer, p


@pytest.mark.parametrize(
    "text", ["Prove it.", "How many primes are there below 20?", "Why?", "Let x be real. Find x if x + 2 = 5."]
)
def test_problems_in_free_text_are_spoiled_too(text):
    problem = Problem.make(text, "8")
    spoiled = plant([(problem, ("primes",))] * 20, 0)
    assert len(spoiled) == 20
    assert all((p.problem.question, p.problem.answer, p.active) != (text, "8", ("primes",)) for p in spoiled)


def test_a_spot_check_counts_what_gets_through():
    taken_in = []

    class Gullible:
        async def judge_many(self, cases):
            taken_in.extend("vote" in p.question for p, _, _ in cases)
            return [verdict("accepted" if "vote" in p.question else "rejected") for p, _, _ in cases]

    committee = handle(Gullible(), "judge_many")
    found = asyncio.run(spot_check(committee, sound(170, 0), plant, 150, 4, 60))
    assert len(taken_in) == 150 and 0 < sum(taken_in) < 150
    assert found == {"planted": 150, "planted_accepted": sum(taken_in)}
    assert asyncio.run(spot_check(committee, [], plant, 5, 4, 60)) == {}


def test_a_spot_check_waits_no_longer_than_it_is_told():
    class Silent:
        async def judge_many(self, cases):
            await asyncio.sleep(60)

    with pytest.raises(Failure, match=r"committee: no answer within 0\.01 s"):
        asyncio.run(spot_check(handle(Silent(), "judge_many"), sound(170, 0), plant, 5, 4, 0.01))
