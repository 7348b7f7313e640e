"""Shares of a data set: places are the target, rows of a kind are as many as its share says, in the order of tasks."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import SynthesizeStage
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.selection import Selection
from pipeline.scoring.shares import places, shares_of
from tests.pipeline.judged import episode, probe, task, verdict

BANDS = ({"low": 0.1, "high": 0.5, "share": 0.4}, {"low": 0.5, "high": 1.0, "share": 0.25})


def judged(i, rho, category="maths"):
    e = episode(task(f"g-{i:04d}").model_copy(update={"category": category}), question=f"Problem {i}?")
    return Judged(e, verdict(e), probe(e, rho).model_copy(update={"above_chance": rho > 0}))


def selection(**config):
    nothing = SimpleNamespace(is_heldout=lambda _: False, identity=lambda q: None)
    config = SynthesizeStage(**config)
    return Selection(
        nothing, Register(nothing.identity), shares=shares_of(config), never_solved=config.never_solved == "keep",
        always_solved=config.always_solved == "keep",
    )  # fmt: skip


@given(st.integers(1, 500), st.lists(st.floats(0, 1), max_size=6))
def test_places_are_the_target_and_each_kind_has_its_share_but_for_rounding(target, weights):
    whole = max(1.0, sum(weights))
    shares = {i: w / whole for i, w in enumerate(weights)}
    found = places(target, shares)
    assert sum(found.values()) == target and min(found.values()) >= 0
    assert all(abs(found[i] - target * share) <= 1 for i, share in shares.items())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0, 0.05]), st.sampled_from(["maths", "code"]))))
def test_the_first_that_find_a_place_are_the_rows(drawn):
    """Against a count by hand of each kind of difficulty and category."""
    s = selection(target=20, difficulty=BANDS, categories={"code": 0.3})
    left = {"easy": 5, "hard": 8, "other": 7, "code": 6, "maths": 14}
    expected = []
    for i, (rho, category) in enumerate(drawn):
        kind = "hard" if 0.1 <= rho < 0.5 else "easy" if rho >= 0.5 else "other"
        if left[kind] and left[category]:
            left[kind], left[category] = left[kind] - 1, left[category] - 1
            expected.append(f"g-{i:04d}")
        s.take([judged(i, rho, category)])
    assert [j.episode.id for j in s.chosen] == expected
    assert sum(s.left_out.values()) == len(drawn) - len(expected)
    assert set(s.left_out) <= {"beyond the share of their difficulty", "beyond the share of their category"}


@pytest.mark.parametrize(
    "config, rows, unsolved, left_out",
    [
        ({}, [1, 2], [0], {}),
        ({"never_solved": "keep"}, [0, 1, 2], [], {}),
        ({"always_solved": "leave_out"}, [1], [0], {"solved every time": 1}),
    ],
)
def test_what_nobody_solves_and_what_is_always_solved(config, rows, unsolved, left_out):
    s = selection(**config)
    s.take([judged(0, 0.0), judged(1, 0.5), judged(2, 1.0)])
    assert [j.episode.id for j in s.chosen] == [f"g-{i:04d}" for i in rows]
    assert [j.episode.id for j in s.unsolved] == [f"g-{i:04d}" for i in unsolved]
    assert s.left_out == left_out
