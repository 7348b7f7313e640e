"""What became of each skill that a teacher proposed, and the library that is made of them.

    <library>/candidates.parquet    every candidate: where it came from, what it was given, and what became of it

Invariant: nothing is dropped without a row. A candidate is kept, or it is a kept one again (`merged`), or it
is rejected with the reason; each kept one is a skill of the library.

p_skill(k) is proportional to 1[r(k) >= tau_r] times how often the teacher proposed k (PAPER, stage 1).

A large corpus gives more candidates than memory should hold: they lie on a `Shelf`, and of what became of them only
that is in memory (`Settled`). What grows in memory is the library, not the corpus.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple, overload

import pyarrow.parquet as pq

from pipeline.records import Record, Skill
from pipeline.skills import sameness
from pipeline.skills.extraction import CANDIDATES, named_apart
from pipeline.skills.rubric import Mark
from pipeline.store.files import writing
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


# ---------------------------------------------------------------- many of them

_BATCH = 1024
"""Rows of the table that are in memory at once while it is written."""


class Rows(Sequence[Candidate]):
    """Candidates that are made when they are looked at."""

    @abstractmethod
    def at(self, place: int) -> Candidate:
        """The one at a place that is there, counted from 0."""

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> list[Candidate]: ...
    def __getitem__(self, place: int | slice) -> Candidate | list[Candidate]:
        found = range(len(self))[place]
        return [self.at(i) for i in found] if isinstance(found, range) else self.at(found)


class Shelf(Rows):
    """On disk, in the order in which they were put there; the file has no name, and goes with the process."""

    def __init__(self, folder: Path):
        """Raises Failure where the folder takes no file."""
        self._folder = folder
        with writing(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the shelf
        self._ends = array("Q", [0])

    def put(self, candidate: Candidate) -> None:
        line = candidate.model_dump_json().encode()
        with writing(self._folder):
            self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def at(self, place: int) -> Candidate:
        with writing(self._folder):
            self._file.flush()
        start, end = self._ends[place], self._ends[place + 1]
        return Candidate.model_validate_json(os.pread(self._file.fileno(), end - start, start))


class _Became(NamedTuple):
    """Fields of a candidate that its end decides."""

    outcome: Outcome
    of: str | None = None
    cause: Cause | None = None
    reason: str = ""


class Settled(Rows):
    """Candidates with what became of them."""

    def __init__(self, proposed: Sequence[Candidate], became: Mapping[int, _Became]):
        self.proposed, self.became = proposed, became

    def __len__(self) -> int:
        return len(self.proposed)

    def at(self, place: int) -> Candidate:
        found, end = self.proposed[place], self.became.get(place)
        return found if end is None else found.model_copy(update=end._asdict())


class _Skills(Sequence[Skill]):
    """Those of candidates at some places, in the categories that they are taken for."""

    def __init__(self, of: Sequence[Candidate], places: Sequence[int], into: Mapping[str, str]):
        self._of, self._places, self._into = of, places, into

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Skill: ...
    @overload
    def __getitem__(self, place: slice) -> _Skills: ...
    def __getitem__(self, place: int | slice) -> Skill | _Skills:
        if isinstance(place, slice):
            return _Skills(self._of, self._places[place], self._into)
        return _in_category(self._of[self._places[place]].skill, self._into)


# ---------------------------------------------------------------- what becomes of them


def settle(
    candidates: Sequence[Candidate], min_score: float, into: Mapping[str, str] | None = None
) -> tuple[list[Skill], Settled]:
    """The skills to keep, sorted by name, and all candidates in their order, with what became of them. `into`: category
    -> the one that it is taken for."""
    alive = array("Q", (i for i, candidate in enumerate(candidates) if candidate.outcome != "rejected"))
    became: dict[int, _Became] = {}
    kept: list[Skill] = []
    members: list[list[int]] = []
    for group in sameness.groups(_Skills(candidates, alive, into or {})):
        places = [alive[place] for place in group]
        best = candidates[places[0]].skill
        if best.score >= min_score:
            kept.append(best)
            members.append(places)
            continue
        for i in places:
            score = candidates[i].skill.score
            reason = f"scored {score:.2f}, below acquire.min_score ({min_score:g})"
            became[i] = _Became("rejected", cause="low score", reason=reason)
    skills = named_apart(kept)
    for skill, (first, *more) in zip(skills, members, strict=True):
        became[first] = _Became("kept", skill.id)
        became.update((i, _Became("merged", skill.id)) for i in more)
    return sorted(skills, key=lambda skill: skill.id), Settled(candidates, became)


def refuse(candidates: Sequence[Candidate], refused: Mapping[int, str]) -> Settled:
    """The candidates, those rejected whose own scripts are refused (place -> why): another proposal of the same skill
    may take its place."""
    new = {i: _Became("rejected", cause="script", reason=why) for i, why in refused.items()}
    if isinstance(candidates, Settled):  # by an earlier call
        return Settled(candidates.proposed, {**candidates.became, **new})
    return Settled(candidates, new)


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
    into, rows = BytesIO(), iter(candidates)
    with pq.ParquetWriter(into, Candidate.schema_arrow(), compression="zstd") as file:
        while batch := list(itertools.islice(rows, _BATCH)):
            file.write_batch(Candidate.to_arrow(batch))
    return into.getvalue()


def read(library: Path) -> list[Candidate]:
    """Those of a library; none of one that somebody wrote by hand. Raises Damage."""
    path = library / CANDIDATES
    return records(path, parse(path), Candidate) if path.is_file() else []
