"""Two extractions of the same documents, compared: how many skills a document each admitted, and which of them are the
same ones.

Invariant: documents are paired by their path and place in it, never by order; a document counts in both, also where it
gave nothing. Skills are the same where `sameness` says so, whatever their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.records import Skill
from pipeline.scoring.statistics import interval_of_mean, mean
from pipeline.skills import sameness
from pipeline.skills.candidates import Candidate

Place = tuple[str, str]
"""Path and source of a document."""


@dataclass(frozen=True)
class Extraction:
    """What one of them made of the documents."""

    library: Sequence[Skill]
    candidates: Sequence[Candidate]


def compare(teacher: Extraction, other: Extraction, documents: int) -> dict[str, Any]:
    """The keys are `keys.EXTRACTION_KEYS`; recall and precision hold the other against the teacher, by skills of
    documents."""
    both = [*teacher.library, *other.library]
    same = {place: number for number, group in enumerate(sameness.groups(both)) for place in group}
    mine = _admitted(teacher, {skill.id: same[i] for i, skill in enumerate(teacher.library)})
    start = len(teacher.library)
    theirs = _admitted(other, {skill.id: same[start + i] for i, skill in enumerate(other.library)})
    counts = [(len(mine.get(d, ())), len(theirs.get(d, ()))) for d in mine.keys() | theirs.keys()]
    nothing = documents - len(counts)
    differences = [b - a for a, b in counts] + [0] * nothing
    shared = sum(len(mine.get(d, set()) & theirs.get(d, set())) for d in mine)
    all_mine, all_theirs = (sum(map(len, found.values())) for found in (mine, theirs))
    return {
        "documents": documents,
        "teacher_per_document": all_mine / documents,
        "proposer_per_document": all_theirs / documents,
        "difference": mean(differences),
        "difference_interval": interval_of_mean(differences),
        "shared": shared,
        "recall": shared / all_mine if all_mine else None,
        "precision": shared / all_theirs if all_theirs else None,
        "teacher_skills": len(teacher.library),
        "proposer_skills": len(other.library),
        "shared_skills": len({same[i] for i in range(start)} & {same[i] for i in range(start, len(both))}),
    }


def _admitted(found: Extraction, same: dict[str, int]) -> dict[Place, set[int]]:
    """Document -> the skills of the library that were read from it, each once."""
    admitted: dict[Place, set[int]] = {}
    for candidate in found.candidates:
        if candidate.of is not None:
            place = candidate.path, candidate.skill.source.removesuffix(" (repair)")
            admitted.setdefault(place, set()).add(same[candidate.of])
    return admitted
