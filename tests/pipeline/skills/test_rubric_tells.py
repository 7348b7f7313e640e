"""The rubric tells planted bad skills from good ones as well as its judge allows: the judge errs by draws that are
known, so what share of pairs is ordered rightly (AUC) can be worked out, and is what comes out.

Bad in four ways: a topic, a fact, a copy of the text's example, something that nothing can check. A judge knows of each
item the truth, and says it, or with probability `errs` any number of points.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import yaml

from pipeline.skills import rubric
from pipeline.skills.extraction import render
from pipeline.skills.replies import read

PLANTED = yaml.safe_load((Path(__file__).parent / "planted_skills.yaml").read_text(encoding="utf-8"))
TRUTH = {
    "good": (4, 4, 4, 3),
    "topic": (0, 3, 1, 0),
    "fact": (1, 0, 1, 2),
    "copy": (3, 0, 2, 4),
    "vague": (2, 3, 1, 0),
}
"""Kind -> the points of each item, in the order of the rubric."""
TEMPLATE = rubric.PROMPT
Law = dict[float, float]
"""Score -> its probability."""


def auc(good: Law, bad: Law) -> float:
    """That a draw of one is above a draw of the other; a tie counts half."""
    return sum(p * q * ((a > b) + (a == b) / 2) for (a, p), (b, q) in product(good.items(), bad.items()))


def law(kind: str, errs: float) -> Law:
    """Of the mean of the items of a skill of this kind."""
    found: Law = {0.0: 1.0}
    for true in TRUTH[kind]:
        points = {n: errs / 5 + (1 - errs) * (n == true) for n in range(5)}
        sums: Counter[float] = Counter()
        for (total, p), (n, q) in product(found.items(), points.items()):
            sums[total + n] += p * q
        found = dict(sums)
    return {total / 16: p for total, p in found.items()}


def mixed(kinds: list[str], errs: float) -> Law:
    found: Counter[float] = Counter()
    for kind in kinds:
        for score, p in law(kind, errs).items():
            found[score] += p / len(kinds)
    return dict(found)


class Judge:
    def __init__(self, errs: float, seed: int):
        self._errs, self._rng = errs, random.Random(seed)

    def reply(self, messages: list[dict[str, str]], kind: str) -> str:
        document = messages[0]["content"].partition("<skill>")[2].partition("</skill>")[0]
        assert len(read(document, "s").skills) == 1, "the judge is shown the whole skill, in the form of the library"
        said = {}
        for item, true in zip(rubric.ITEMS, TRUTH[kind], strict=True):
            points = self._rng.randrange(5) if self._rng.random() < self._errs else true
            said[item] = {"reason": f"I give it {points}.", "points": points}
        return f"Here is what I think.\n```json\n{json.dumps(said)}\n```"


def skills() -> list[tuple[str, str]]:
    """(kind, document)."""
    found = []
    for planted in PLANTED:
        (skill,) = read(planted["document"], "planted").skills
        found.append((planted["kind"], render(skill)))
    return found


def scored(errs: float, times: int, seed: int) -> tuple[Law, Law]:
    """What good and bad ones are given, each judged so many times."""
    judge = Judge(errs, seed)
    found: tuple[Counter[float], Counter[float]] = (Counter(), Counter())
    for kind, document in skills() * times:
        marks = rubric.read(judge.reply(rubric.messages(TEMPLATE, document, "Some text."), kind))
        assert not isinstance(marks, str)
        found[kind != "good"][rubric.score(marks)] += 1
    good, bad = ({score: n / of.total() for score, n in of.items()} for of in found)
    return good, bad


@pytest.mark.parametrize("errs", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_share_of_pairs_ordered_rightly_is_what_the_judges_errors_allow(errs: float) -> None:
    times = 40
    kinds = [kind for kind, _ in skills() if kind != "good"]
    expected = auc(law("good", errs), mixed(kinds, errs))
    measured = auc(*scored(errs, times, seed=5))
    good, bad = (times * sum((kind == "good") == is_good for kind, _ in skills()) for is_good in (True, False))
    q1, q2 = expected / (2 - expected), 2 * expected**2 / (1 + expected)  # Hanley and McNeil, 1982
    variance = expected * (1 - expected) + (good - 1) * (q1 - expected**2) + (bad - 1) * (q2 - expected**2)
    assert measured == pytest.approx(expected, abs=3.5 * (max(variance, 0) / (good * bad)) ** 0.5 + 1e-9)
    if errs in (0, 1):
        assert measured == pytest.approx(1 - errs / 2, abs=0.06)


def test_four_items_tell_more_than_any_one_of_them_from_a_judge_that_errs() -> None:
    kinds, errs = ["topic", "fact", "copy", "vague"], 0.5
    whole = auc(law("good", errs), mixed(kinds, errs))

    def of_item(kind: str, n: int) -> Law:
        return {points: errs / 5 + (1 - errs) * (points == TRUTH[kind][n]) for points in range(5)}

    for n in range(4):
        bad = {points: sum(of_item(kind, n)[points] for kind in kinds) / len(kinds) for points in range(5)}
        assert auc(of_item("good", n), bad) < whole - 0.03


def test_at_tau_r_what_a_judge_without_errors_lets_pass() -> None:
    """acquire.min_score is 0.5 by default: a copied example scores above it, which is why copies are looked for by
    name too."""
    passes = {kind: sum(points) / 16 >= 0.5 for kind, points in TRUTH.items()}
    assert passes == {"good": True, "topic": False, "fact": False, "copy": True, "vague": False}
