"""Mean@n, Pass@k, Best-of-n and Maj@n against counting by hand and against enumeration; two models, paired."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scoring.measures import Item, bootstrap, compare, flipped, measures, verdict


def item(name, judged, answers=None):
    names = {"+": "equal", "-": "different", "?": "unknown"}
    return Item(name, [names[j] for j in judged], list(answers or judged))


def values(items):
    return {k: v["value"] for k, v in measures(items, 1).items() if isinstance(v, dict)}


def test_by_hand():
    found = measures([item("a", "++--", "xxyz"), item("b", "+---", ["1", "2", "2", None]), item("c", "----")], 1)
    assert {k: v["value"] for k, v in found.items() if isinstance(v, dict)} == pytest.approx(
        {
            "mean@4": (0.5 + 0.25 + 0) / 3, "pass@1": (0.5 + 0.25 + 0) / 3, "pass@2": (5 / 6 + 1 / 2) / 3,
            "pass@4": 2 / 3, "best@4": 2 / 3, "maj@4": 1 / 3,
        }
    )  # fmt: skip
    assert (found["samples"], found["no_answer"], found["unknown"], found["problems_unknown"]) == (12, 1, 0, 0)


def test_ties_of_a_vote_are_shared_and_no_answer_has_no_vote():
    assert values([item("a", "+-", "xy")])["maj@2"] == 0.5
    assert values([item("a", "+---", ["x", None, None, None])])["maj@4"] == 1.0
    assert values([item("a", "--", [None, None])])["maj@2"] == 0.0


def test_what_nobody_can_judge_is_left_out_and_counted():
    found = measures([item("a", "+?"), item("b", "??"), item("c", "-+")], 1)
    assert found["mean@2"]["value"] == pytest.approx(0.75)
    assert (found["unknown"], found["problems_unknown"]) == (3, 1)
    assert "pass@2" not in found  # one problem has one judged sample only
    nothing = measures([item("a", "??")], 1)
    assert nothing["mean@2"] == {"value": None, "interval": None}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("+-", min_size=4, max_size=4), min_size=1, max_size=6))
def test_pass_at_k_is_the_share_of_subsets(judged):
    found = values([item(str(i), j) for i, j in enumerate(judged)])
    for k in (1, 2, 4):
        subsets = [[any(x == "+" for x in s) for s in itertools.combinations(j, k)] for j in judged]
        assert found[f"pass@{k}"] == pytest.approx(np.mean([np.mean(s) for s in subsets]))
    assert found["best@4"] == found["pass@4"] and found["mean@4"] == pytest.approx(found["pass@1"])


def test_intervals_hold_what_they_promise():
    """Of 60 samples of 60 problems, about 95 % of the intervals hold the truth, and each is as wide as theory says."""
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for seed in range(60):
        (interval,) = bootstrap((rng.random((1, 60)) < 0.3).astype(float), seed)
        hits += interval[0] <= 0.3 <= interval[1]
        widths.append(interval[1] - interval[0])
    assert 51 <= hits <= 60
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 60), rel=0.1)
    assert bootstrap(np.ones((1, 5)), 3) == [[1.0, 1.0]] and bootstrap(np.ones((2, 0)), 3) == [None, None]


def model(pattern):
    return {str(i): item(str(i), j) for i, j in enumerate(pattern)}


def test_two_models_by_hand():
    a, b = model(["++", "+-", "--", "--", "++"]), model(["++", "++", "+-", "--"])
    found = compare(a, b, 1)
    assert (found["problems"], found["only_a"], found["only_b"]) == (4, 1, 0)
    assert (found["a"], found["b"], found["difference"]) == pytest.approx((0.375, 0.625, 0.25))
    assert (found["better"], found["worse"]) == (2, 0)
    assert found["changed"] == [{"id": "1", "a": 0.5, "b": 1.0}, {"id": "2", "a": 0.0, "b": 0.5}]
    assert found["p"] == 0.5  # of the four ways to flip two signs, two are as large


def test_flipping_signs_is_exact_for_few_and_near_it_for_many():
    rng = np.random.default_rng(2)
    moved = rng.choice([-0.25, 0.5, 0.75], 14)
    ways = [abs(np.dot(s, moved)) >= abs(moved.sum()) - 1e-12 for s in itertools.product((1, -1), repeat=14)]
    assert flipped(moved, 0) == pytest.approx(np.mean(ways))
    more = np.concatenate([moved, [0.0] * 5, [1e-15]])  # past the bound: drawn
    assert flipped(more, 0) == pytest.approx(np.mean(ways), abs=0.02)
    assert flipped(np.zeros(4), 0) == 1.0


def test_alike_models_differ_rarely_and_unlike_ones_do():
    rng = np.random.default_rng(4)

    def drawn(p):
        return {
            str(i): Item(str(i), ["equal" if x < p else "different" for x in rng.random(4)], "abcd") for i in range(40)
        }

    alike = [compare(drawn(0.5), drawn(0.5), s)["p"] for s in range(25)]
    assert np.mean(np.array(alike) < 0.05) <= 0.2
    worse = compare(drawn(0.7), drawn(0.3), 0)
    assert worse["p"] < 0.001 and verdict(worse).startswith("B is worse")
    assert verdict(compare(drawn(0.3), drawn(0.7), 0)).startswith("B is better")
    assert verdict(compare({}, {}, 0)).startswith("nothing to compare")
    same = drawn(0.5)
    assert verdict(compare(same, same, 0)).startswith("no difference is shown")
