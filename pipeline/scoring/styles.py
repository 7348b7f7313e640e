"""Expert trajectories: of which style each is, which are cloned so that styles and categories balance, and why the
others are not.

Invariant: what is kept of a step follows from that step and the counts of those before it, in the order of the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from actors.chat import parse_turn
from pipeline.config import STYLES, SFTStage, Style
from pipeline.records import Episode
from pipeline.scoring.judged import Judged
from pipeline.scoring.summary import pruned

Cell = tuple[Style, str]
"""A style and a category."""
FULL = "enough of its style and category"
"""Why an accepted trajectory is not cloned."""


def style(episode: Episode) -> Style:
    """As it was played, whatever was asked for: a skill dropped, a draft written anew, something run, or neither.

    A draft that is written anew after a check that passed is of the stage that the environment suggests then, finalize;
    here it counts as what it says it is, for that is what is cloned of it."""
    if pruned(episode):
        return "pruned"
    if any(turn.stage == "refine" or parse_turn(turn.text)[0] == "refine" for turn in episode.turns):
        return "refined"
    return "checked" if any(turn.action == "exec" for turn in episode.turns) else "at_once"


def cell(judged: Judged) -> Cell:
    return style(judged.episode), judged.episode.task.category


def most(stage: SFTStage, categories: int) -> int | None:
    """Trajectories of a cell that are cloned at most; None: as many as come."""
    if stage.balance is None:
        return None
    return max(1, round(stage.balance * stage.trajectories / (len(STYLES) * categories)))


def kept(judged: Sequence[Judged], so_far: Counter[Cell], limit: int | None) -> list[Judged]:
    """The accepted ones of a step, as far as their cells have room; `so_far` grows by them."""
    found = []
    for one in judged:
        if one.accepted and (limit is None or so_far[cell(one)] < limit):
            so_far[cell(one)] += 1
            found.append(one)
    return found


def rejection(judged: Judged) -> str:
    """Why a trajectory is not among the accepted; empty for one that is."""
    outcome, verdict = judged.episode.outcome, judged.verdict
    if outcome.kind not in ("ok", "model_error"):
        return f"{outcome.kind}: {outcome.reason}"
    if verdict is None:
        return outcome.reason or "nothing submitted"
    return "" if verdict.accepted else f"{verdict.decision}: {verdict.reason}"
