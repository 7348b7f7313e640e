"""Filling a step up with groups that teach, against any student."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.solver import Completion
from pipeline.flow.groups import Group, filled, rewarded
from pipeline.records import Failure, Problem

PROBLEM = Problem.make("What is 1 + 1?", "2")
OUTCOME = st.tuples(st.sampled_from(["equal", "different", "unknown"]), st.booleans())


def group(number, outcomes):
    """`outcomes`: (judgement, cut off) of each completion; none: the problem was not answered."""
    made = tuple(Completion(f"g-{number}/{i}", 1, "", 1, cut) for i, (_, cut) in enumerate(outcomes))
    failure = None if outcomes else Failure("no answer")
    return Group(PROBLEM, made, tuple(o for o, _ in outcomes), failure)


def filled_with(students, first, size, refill, masks):
    """The groups of a step, and what was asked in each round."""
    rounds = []

    async def ask(positions):
        rounds.append(list(positions))
        return [group(p, students[p % len(students)]) for p in positions]

    return asyncio.run(filled(ask, first, size, refill, masks)), rounds


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(OUTCOME, max_size=4), min_size=1, max_size=12),
    st.integers(0, 30), st.integers(1, 8), st.sampled_from([0.0, 0.4, 1.0, 2.5]), st.booleans(),
)  # fmt: skip
def test_a_step_is_filled_up_within_its_bound_and_everything_has_one_end(students, first, size, refill, masks):
    groups, rounds = filled_with(students, first, size, refill, masks)
    asked = [p for positions in rounds for p in positions]
    assert asked == list(range(first, first + len(groups)))  # in the order of the data, nothing twice
    assert len(groups) <= size + int(refill * size)
    teach = [g for g in groups if g.teaches(masks)]
    assert len(teach) >= size or len(groups) == size + int(refill * size)
    if len(rounds) > 1:  # no round is asked once enough teach
        before = groups[: len(groups) - len(rounds[-1])]
        assert sum(g.teaches(masks) for g in before) < size

    rows, ends = rewarded(groups, refill, masks)
    completions = [(g, c, o) for g in groups for c, o in zip(g.completions, g.judged, strict=True)]
    assert set(ends) == {(c.episode_id, c.attempt) for _, c, _ in completions}
    kept = {key for key, _, _ in rows}
    for g, c, outcome in completions:
        key = (c.episode_id, c.attempt)
        assert (ends[key] == "failed") == (outcome == "unknown")
        assert (ends[key] == "trained") == (key in kept)
        if key in kept:
            assert not (masks and c.truncated)
            assert g.teaches(masks) or not refill or not teach
    for _, _, reward in rows:
        assert reward in (0.0, 1.0)
    for g in groups:  # nobody is trained on alone
        assert sum((c.episode_id, c.attempt) in kept for c in g.completions) != 1


def test_an_answer_that_was_cut_off_is_wrong_or_left_out():
    cut = group(0, [("equal", False), ("different", True), ("equal", False)])
    assert cut.teaches(masks=False) and not cut.teaches(masks=True)
    rows, ends = rewarded([cut], 0.0, masks=True)
    assert [reward for _, _, reward in rows] == [1.0, 1.0]
    assert list(ends.values()) == ["trained", "filtered", "trained"]
    rows, ends = rewarded([cut], 0.0, masks=False)
    assert [reward for _, _, reward in rows] == [1.0, 0.0, 1.0] and set(ends.values()) == {"trained"}


def test_rounds_are_as_large_as_the_share_that_teaches_asks_for():
    """Half of the groups teach: of eight four, so a round of eight more."""
    half = [[("equal", False), ("different", False)], [("equal", False)] * 2]
    groups, rounds = filled_with(half, 0, 8, 3.0, False)
    assert list(map(len, rounds)) == [8, 8] and sum(g.teaches(False) for g in groups) == 8
