"""What became of each skill that a teacher proposed, and the library that is made of them.

    <library>/candidates.parquet    every candidate: where it came from, what it was given, and what became of it

Invariant: nothing is dropped without a row. A candidate is kept, or it is a kept one again (`merged`), or it
is rejected with the reason; each kept one is a skill of the library.

p_skill(k) is proportional to 1[r(k) >= tau_r] times how often the teacher proposed k (PAPER, stage 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Record, Skill
from pipeline.skills import sameness
from pipeline.skills.extraction import CANDIDATES, named_apart
from pipeline.skills.rubric import Mark
from pipeline.store.tables import parse, records

OTHER = "other"
"""The category of skills whose own would be too small to be offered."""

Outcome = Literal["kept", "merged", "rejected"]
Cause = Literal["example", "no score", "low score", "script"]
"""Of a rejection: it repeats the prompt's example · no mark of the rubric could be read · below acquire.min_score · its
script was refused."""


class Candidate(Record):
    skill: Skill
    """As proposed, with the score that counts."""
    proposed_score: float
    """What its teacher gave it."""
    path: str
    """Of the document that it came from."""
    origin: str | None
    """Where that is from, as far as it is said."""
    license: str | None
    teacher: str = ""
    """Who proposed it; empty where that is not on record."""
    marks: tuple[Mark, ...] = ()
    outcome: Outcome = "kept"
    cause: Cause | None = None
    of: str | None = None
    """Name of the skill of the library that it is."""
    reason: str = ""
    """Why it was rejected."""

    def rejected(self, cause: Cause, reason: str) -> Candidate:
        return self.model_copy(update={"outcome": "rejected", "of": None, "cause": cause, "reason": reason})


def settle(
    candidates: Sequence[Candidate], min_score: float, into: Mapping[str, str] | None = None
) -> tuple[list[Skill], list[Candidate]]:
    """The skills to keep, sorted by name, and all candidates in their order, with what became of them. `into`: category
    -> the one that it is taken for."""
    alive = [i for i, candidate in enumerate(candidates) if candidate.outcome != "rejected"]
    found = list(candidates)
    kept: list[int] = []
    members: dict[int, list[int]] = {}
    for group in sameness.groups([_in_category(candidates[i].skill, into or {}) for i in alive]):
        first, *more = (alive[place] for place in group)
        best = candidates[first].skill
        if best.score < min_score:
            for i in (first, *more):
                score = candidates[i].skill.score
                found[i] = candidates[i].rejected(
                    "low score", f"scored {score:.2f}, below acquire.min_score ({min_score:g})"
                )
            continue
        kept.append(first)
        members[first] = more
    skills = named_apart([candidates[i].skill for i in kept])
    for place, skill in zip(kept, skills, strict=True):
        found[place] = candidates[place].model_copy(update={"of": skill.id})
        for i in members[place]:
            found[i] = candidates[i].model_copy(update={"outcome": "merged", "of": skill.id})
    return sorted(skills, key=lambda skill: skill.id), found


def refuse(
    candidates: Sequence[Candidate], settled: Sequence[Candidate], refused: Mapping[str, str]
) -> list[Candidate]:
    """The candidates before they were settled, those whose own scripts are refused rejected with the reason: another
    proposal of the same skill may take its place."""
    return [
        one.rejected("script", refused[now.of])
        if now.outcome == "kept" and now.of is not None and now.of in refused
        else one
        for one, now in zip(candidates, settled, strict=True)
    ]


def weights(candidates: Iterable[Candidate]) -> dict[str, float]:
    """p_skill of each skill of the library."""
    counts = Counter(c.of for c in candidates if c.of is not None)
    return {id: count / counts.total() for id, count in sorted(counts.items())}


# ---------------------------------------------------------------- categories


def placed(
    skills: Sequence[Skill], named: Sequence[str], merged: Mapping[str, str], min_skills: int
) -> tuple[list[Skill], dict[str, str]]:
    """Skills in the categories that a domain names, or that were proposed beside them; and which went into which.

    A proposed category goes where the user says (`merged`), else into the named one that it is in another spelling or
    a part of (`maths/algebra`), else it stands; too small to be offered, it goes to `other`.
    """
    into = spelled({skill.category for skill in skills}, named, merged)
    sizes = Counter(into.get(skill.category, skill.category) for skill in skills)
    for category, to in into.items():
        if to not in named and category not in merged and sizes[to] < min_skills:
            into[category] = OTHER
    found = [_in_category(skill, into) for skill in skills]
    return found, {category: to for category, to in sorted(into.items()) if category != to}


def spelled(categories: Iterable[str], named: Sequence[str], merged: Mapping[str, str]) -> dict[str, str]:
    """Category -> where it goes, whatever its size."""
    into = {}
    for category in categories:
        spellings = () if category in named else (category, category.partition("/")[0])
        near = [name for name in named if any(sameness.alike(name, spelling) for spelling in spellings)]
        into[category] = merged.get(category, near[0] if near else category)
    return into


def _in_category(skill: Skill, into: Mapping[str, str]) -> Skill:
    return skill.model_copy(update={"category": into.get(skill.category, skill.category)})


# ---------------------------------------------------------------- the table


def written(candidates: Iterable[Candidate]) -> bytes:
    into = BytesIO()
    pq.write_table(pa.Table.from_batches([Candidate.to_arrow(candidates)]), into, compression="zstd")
    return into.getvalue()


def read(library: Path) -> list[Candidate]:
    """Those of a library; none of one that somebody wrote by hand. Raises Damage."""
    path = library / CANDIDATES
    return records(path, parse(path), Candidate) if path.is_file() else []
