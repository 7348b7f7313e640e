"""Kappa against cases worked out by hand, and what it is for: judges that err alike are found."""

from __future__ import annotations

from random import Random

import pytest

from pipeline.records import Verdict, Vote
from pipeline.scoring.agreement import judges_kappa, kappa, pairwise


def verdict(second: bool = False, **votes: bool | None) -> Verdict:
    cast = [Vote(verifier=name, valid=valid) for name, valid in votes.items()]
    extra = [Vote(verifier="auditor", valid=True, second=True)] if second else []
    return Verdict(problem_id="p", votes=(*cast, *extra), flags=(), decision="rejected", reason="r")


def test_kappa_is_agreement_beyond_chance():
    # Cohen's own kind of table: 20 both yes, 5 and 10 apart, 15 both no: (0.7 - 0.5) / (1 - 0.5).
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([(True, True), (False, False)]) == 1
    assert kappa([(True, False), (False, True)]) == -1
    assert kappa([(True, True), (True, False), (False, True), (False, False)]) == 0


@pytest.mark.parametrize("pairs", [[], [(True, True)], [(True, True), (True, False)]])
def test_nothing_follows_where_one_of_them_always_says_the_same(pairs):
    assert kappa(pairs) is None


def test_pairs_are_those_who_both_voted_and_the_audit_is_no_vote():
    found = pairwise([verdict(a=True, b=True), verdict(a=False, b=False, second=True), verdict(a=None, b=True)])
    assert found == {"a~b": 1.0} and judges_kappa([verdict(a=True)]) == {}


def test_judges_that_err_alike_are_told_from_judges_that_are_merely_good():
    rng = Random(0)
    truths = [rng.random() < 0.5 for _ in range(4000)]
    alike, apart = [], []
    for truth in truths:
        common = rng.random() < 0.2
        alike.append(verdict(a=truth ^ common, b=truth ^ common))
        apart.append(verdict(a=truth ^ (rng.random() < 0.2), b=truth ^ (rng.random() < 0.2)))
    assert pairwise(alike, truths)["a~b"] == pytest.approx(1)
    assert abs(pairwise(apart, truths)["a~b"]) < 0.05 < 0.3 < judges_kappa(apart)["judges_kappa"]
