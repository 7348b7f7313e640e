"""Which candidates become the library: settled, then their scripts are tried, until every one that stands has run.

Where the script of the best proposal of a skill is refused, the next best proposal stands for it. Invariant: whoever is
refused has a script of its own that was tried; each script is tried once; the same candidates give the same skills.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.records import Skill
from pipeline.skills.admission import Admission
from pipeline.skills.candidates import Candidate, Settled, refuse, settle


def select(
    proposed: Sequence[Candidate],
    min_score: float,
    into: Mapping[str, str],
    admit: Callable[[list[Skill]], Admission],
    say: Callable[[str], None],
) -> tuple[list[Skill], Settled, str]:
    """The skills to keep, which may be none; all candidates with what became of them; why no script could be tried, if
    none could."""
    trials = _Trials(admit)
    while True:
        skills, settled = settle(proposed, min_score, into)
        refused = _refused(settled, trials)
        for place, why in refused.items():
            say(f"{settled[place].skill.id} is refused: {why}")
        if not refused:
            return skills, settled, trials.untried
        proposed = refuse(proposed, refused)


class _Trials:
    def __init__(self, admit: Callable[[list[Skill]], Admission]):
        self._admit = admit
        self._known: dict[str, str] = {}
        """Script -> why it is refused; empty where it is not."""
        self.untried = ""

    def of(self, candidates: Mapping[int, Candidate]) -> dict[int, str]:
        """Those of them whose scripts are refused, and why."""
        scripts = {i: candidate.skill.script for i, candidate in candidates.items() if candidate.skill.script}
        new = {script: i for i, script in scripts.items() if script not in self._known}
        admission = self._admit([candidates[i].skill.model_copy(update={"id": str(i)}) for i in new.values()])
        self.untried = self.untried or admission.untried
        self._known |= {script: admission.refused.get(str(i), "") for script, i in new.items()}
        return {i: why for i, script in scripts.items() if (why := self._known[script])}


def _refused(settled: Settled, trials: _Trials) -> dict[int, str]:
    """Place -> why, of those that stand for their skill and cannot, and of those next in turn for it that cannot."""
    turn = {i: candidate for i, candidate in enumerate(settled) if candidate.outcome == "kept"}
    turn = {i: candidate for i, candidate in turn.items() if candidate.skill.script}
    refused: dict[int, str] = {}
    waiting: dict[str, list[int]] | None = None
    while new := trials.of(turn):
        refused |= new
        if waiting is None:
            waiting = _behind(settled, {turn[i].of for i in new})
        places = [behind.pop() for i in new if (behind := waiting[turn[i].of or ""])]
        turn = {i: settled[i] for i in places}
    return refused


def _behind(settled: Settled, names: set[str | None]) -> dict[str, list[int]]:
    """Name of a skill of the library -> places of its other proposals, the best last."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in names if name is not None}
    for i, candidate in enumerate(settled):
        if candidate.outcome == "merged" and candidate.of in found:
            found[candidate.of].append((candidate.skill.score, -i))
    return {name: [-place for _, place in sorted(those)] for name, those in found.items()}
