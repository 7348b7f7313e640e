"""Expert trajectories: their style, what is cloned of each, and why the others are not."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import SFTStage
from pipeline.config.loading import load
from pipeline.records import Failure, Outcome, Turn
from pipeline.scoring import styles
from pipeline.scoring.judged import Judged
from tests.pipeline.judged import episode, task, verdict


def played(name="g-00", moves=(), active=None, category="maths", decision="accepted"):
    turns = [Turn(stage=stage, action=action, start=0, end=1, text="t") for stage, action in moves]
    e = episode(task(name), active=active)
    asked = e.task.model_copy(update={"category": category})
    e = e.model_copy(update={"turns": (*turns, *e.turns), "task": asked})
    return Judged(e, verdict(e, decision), None)


DRAFT, RUN, AGAIN = ("draft", "think"), ("check", "exec"), ("refine", "think")


@pytest.mark.parametrize(
    "moves, active, style",
    [
        ((DRAFT,), None, "at_once"),
        ((DRAFT, ("check", "think")), None, "at_once"),
        ((DRAFT, RUN), None, "checked"),
        ((DRAFT, RUN, AGAIN, RUN), None, "refined"),
        ((DRAFT, RUN, AGAIN, RUN), ("first",), "pruned"),
    ],
)
def test_the_style_is_how_it_was_played(moves, active, style):
    assert styles.style(played(moves=moves, active=active).episode) == style


def test_a_draft_written_anew_after_a_check_that_passed_is_refined():
    """As style_refined.md asks for it; the environment had suggested to finalize."""
    e = played(moves=(DRAFT, RUN, ("finalize", "think"), RUN)).episode
    assert styles.style(e) == "checked"
    anew = e.turns[2].model_copy(update={"text": "## Refine\nThe whole problem anew."})
    assert styles.style(e.model_copy(update={"turns": (*e.turns[:2], anew, *e.turns[3:])})) == "refined"


def test_reasons():
    accepted, rejected = played(), played(decision="rejected")
    e = episode(outcome=Outcome(kind="model_error", reason="turn limit"))
    lost = episode(outcome=Outcome(kind="infra_error", reason="sandbox is gone"))
    assert styles.rejection(accepted) == "" and styles.rejection(rejected) == "rejected: "
    assert styles.rejection(Judged(e, None, None)) == "turn limit"
    assert styles.rejection(Judged(lost, None, None)) == "infra_error: sandbox is gone"
    assert styles.rejection(Judged(episode(question=None), None, None)) == "nothing submitted"


MOVES = {"at_once": (DRAFT,), "checked": (DRAFT, RUN), "refined": (DRAFT, AGAIN)}
PLAYED = st.builds(
    played, moves=st.sampled_from(list(MOVES.values())), category=st.sampled_from(["maths", "code"]),
    decision=st.sampled_from(["accepted", "rejected"]),
)  # fmt: skip


@given(st.lists(PLAYED, max_size=30), st.integers(1, 4), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_cells_fill_in_the_order_of_the_tasks_however_the_waves_are_cut(judged, limit, cut):
    whole: Counter = Counter()
    kept = styles.kept(judged, whole, limit)
    parts: Counter = Counter()
    again = [*styles.kept(judged[:cut], parts, limit), *styles.kept(judged[cut:], parts, limit)]
    assert kept == again and whole == parts
    accepted = Counter(styles.cell(j) for j in judged if j.accepted)
    assert whole == Counter({cell: min(n, limit) for cell, n in accepted.items()})
    assert all(j.accepted for j in kept) and styles.kept(judged, Counter(), None) == [j for j in judged if j.accepted]


def test_an_equal_share_times_the_balance():
    assert styles.most(SFTStage(trajectories=1200, balance=2.0), categories=3) == 200
    assert styles.most(SFTStage(trajectories=2, balance=1.0), categories=9) == 1
    assert styles.most(SFTStage(balance=None), 3) is None


def test_shares_that_ask_for_nothing_are_refused():
    with pytest.raises(Failure, match=r"sft: styles: every share is 0"):
        load(None, ["sft.styles={at_once: 0, checked: 0, refined: 0, pruned: 0}"])
    with pytest.raises(Failure, match=r"sft: extraction"):
        load(None, ["sft.extraction=1"])
