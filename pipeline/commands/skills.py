"""What `propose skills` does: a library read, edited, tried and put together with others.

Invariant: the library of a run is never changed, because its stages were made with it; what is added has run in the
sandbox on its self-test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands import target
from pipeline.config import SandboxConfig
from pipeline.records import Failure, Skill
from pipeline.skills import candidates, sameness, table
from pipeline.skills.admission import SelfTest, admit, self_tests
from pipeline.skills.extraction import SkillLibrary, named_apart, read_folder, render
from pipeline.skills.lint import lint as find_faults
from pipeline.store.digests import MANIFEST


def listed(place: str, category: str | None) -> dict[str, Any]:
    path = _place(place)
    library, weights = SkillLibrary.load(path), candidates.weights(candidates.read(path))
    rows = [_row(skill) | {"p_skill": weights.get(skill.id)} for skill in library if category in (None, skill.category)]
    if not rows:
        there = ", ".join(sorted({skill.category for skill in library}))
        raise Failure(f"{place}: no skill of category {category!r}; expected one of {there}")
    return {"version": library.version, "skills": rows}


def _row(skill: Skill) -> dict[str, Any]:
    return {
        "id": skill.id,
        "category": skill.category,
        "intent": skill.intent,
        "score": skill.score,
        "version": table.version(skill),
        "script": skill.script is not None,
        "self_test": bool(skill.script and list(self_tests(skill.script))),
    }


def render_list(found: dict[str, Any]) -> str:
    rows = found["skills"]
    wide = max(len(row["id"]) for row in rows), max(len(row["category"]) for row in rows)
    lines = [f"{len(rows)} skills, version {found['version']}"]
    for row in rows:
        tool = "tested" if row["self_test"] else "script" if row["script"] else "-"
        about = f"{row['id']:<{wide[0]}}  {row['category']:<{wide[1]}}  {row['score']:.2f}  {tool:<6}  {row['version']}"
        lines.append(f"{about}  {row['intent']}")
    return "\n".join(lines)


def shown(place: str, id: str) -> dict[str, Any]:
    path = _place(place)
    skill = SkillLibrary.load(path)[id]
    of = [candidate for candidate in candidates.read(path) if candidate.of == id]
    return {
        **skill.model_dump(),
        "version": table.version(skill),
        "document": render(skill),
        "marks": [mark.model_dump() for candidate in of if candidate.outcome == "kept" for mark in candidate.marks],
        "origins": [
            {"path": c.path, "source": c.skill.source, "origin": c.origin, "license": c.license, "name": c.skill.id}
            for c in of
        ],
    }


def render_shown(found: dict[str, Any]) -> str:
    lines = [f"{mark['item']} {mark['points']:.2f}: {mark['reason']}" for mark in found["marks"]]
    for origin in found["origins"]:
        licence = origin["license"] or "licence unknown"
        where = ", ".join(filter(None, (origin["source"], origin["origin"], licence)))
        lines.append(f"from {origin['path']} ({where}), as {origin['name']}")
    return "\n".join([found["document"].rstrip("\n"), *(["---", *lines] if lines else [])])


def stats(place: str) -> dict[str, Any]:
    path = _place(place)
    library, proposed = SkillLibrary.load(path), candidates.read(path)
    scores = sorted(skill.score for skill in library)
    return {
        "version": library.version,
        "skills": len(library),
        "categories": dict(sorted(Counter(skill.category for skill in library).items())),
        "scripts": sum(skill.script is not None for skill in library),
        "self_tests": sum(bool(skill.script and list(self_tests(skill.script))) for skill in library),
        "scores": {"lowest": scores[0], "median": scores[len(scores) // 2], "highest": scores[-1]},
        "sources": len({c.path for c in proposed if c.of} or {skill.source for skill in library}),
        "licenses": dict(sorted(Counter(c.license or "unknown" for c in proposed if c.of).items())),
        "candidates": dict(sorted(Counter(c.cause or c.outcome for c in proposed).items())),
    }


def lint(place: str) -> dict[str, Any]:
    found = find_faults(_place(place), SandboxConfig())
    return {"findings": [{"where": f.where, "rule": f.rule, "what": f.what} for f in found]}


def add(place: str, sources: Sequence[str], replace: bool, self_test: SelfTest) -> dict[str, Any]:
    """Skills of folders, tables or libraries into a library of one's own, which need not be there yet."""
    path = _own(place)
    there = list(SkillLibrary.load(path)) if path.exists() else []
    given = [_given(source) for source in sources]
    new = [skill for _, skills in given for skill in skills]
    _refuse_twice(new)
    clashing = _clashing(new, there)
    if clashing and not replace:
        id, old = clashing[0]
        raise Failure(f"{id}: {path} has it already, as {old}; --replace puts the new one in its place")
    admission = admit(new, SandboxConfig(), self_test)
    if admission.untried:
        raise Failure(f"no script can be tried: {admission.untried}", "infra_error")
    for id, why in admission.refused.items():
        raise Failure(f"{id}: its script is refused: {why}")
    gone = {old for _, old in clashing}
    library = SkillLibrary(sorted([*(s for s in there if s.id not in gone), *new], key=lambda skill: skill.id))
    known = [c for c in candidates.read(path) if c.of not in gone]
    for source in dict.fromkeys(source for source, _ in given):
        names = {skill.id for from_, skills in given if from_ == source for skill in skills}
        known += [c for c in candidates.read(source) if c.of in names]
    library.save(path, sealed=False, candidates=candidates.written(known) if known else None)
    return {"added": [s.id for s in new], "replaced": sorted(gone), "skills": len(library), "version": library.version}


def _clashing(new: Sequence[Skill], there: Sequence[Skill]) -> list[tuple[str, str]]:
    """(a new one, one that is there) that have one name, or are one skill."""
    found = {(one.id, old.id) for one in new for old in there if one.id == old.id}
    for group in sameness.groups([*new, *there]):
        mine = [new[place].id for place in group if place < len(new)]
        olds = [there[place - len(new)].id for place in group if place >= len(new)]
        found.update((one, old) for one in mine for old in olds)
    return sorted(found)


def _refuse_twice(skills: Sequence[Skill]) -> None:
    for id, count in Counter(skill.id for skill in skills).items():
        if count > 1:
            raise Failure(f"{id}: {count} of the skills to add are called so; `propose skills merge` keeps the best")


def remove(place: str, ids: Sequence[str]) -> dict[str, Any]:
    path = _own(place)
    library = SkillLibrary.load(path)
    gone = {library[id].id for id in ids}
    kept = SkillLibrary(skill for skill in library if skill.id not in gone)
    if not len(kept):
        raise Failure(f"{path}: no skill would be left; delete the folder instead")
    known = [c for c in candidates.read(path) if c.of not in gone]
    kept.save(path, sealed=False, candidates=candidates.written(known) if known else None)
    return {"removed": sorted(gone), "skills": len(kept), "version": kept.version}


def merge(out: str, places: Sequence[str]) -> dict[str, Any]:
    """One library of several, each skill once: the best scored of those that are the same."""
    path = _own(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Failure(f"{out}: is there; expected a folder that is new or empty")
    owners = [(path, skill) for path in map(_place, places) for skill in SkillLibrary.load(path)]
    skills = [skill for _, skill in owners]
    found = sameness.groups(skills)
    named = named_apart([skills[first] for first, *_ in found])
    library = SkillLibrary(sorted(named, key=lambda skill: skill.id))
    now = {(owners[i][0], skills[i].id): to.id for group, to in zip(found, named, strict=True) for i in group}
    best = {(owners[first][0], skills[first].id) for first, *_ in found}
    known = [
        _renamed(c, now[from_, c.of], (from_, c.of) in best) if c.of is not None else c
        for from_ in dict.fromkeys(path for path, _ in owners)
        for c in candidates.read(from_)
        if c.of is None or (from_, c.of) in now  # somebody may have deleted the folder of its skill
    ]
    library.save(path, sealed=False, candidates=candidates.written(known) if known else None)
    same = {skills[first].id: sorted({skills[i].id for i in more}) for first, *more in found if more}
    renamed = sorted({skill.id for skill in library} - {skill.id for skill in skills})
    return {"read": len(skills), "skills": len(library), "same": same, "renamed": renamed, "version": library.version}


def _renamed(candidate: candidates.Candidate, of: str, best: bool) -> candidates.Candidate:
    """In a library where its skill has this name, and is the best of those that are the same, or not."""
    merged = candidate.outcome == "kept" and not best
    return candidate.model_copy(update={"of": of} | ({"outcome": "merged"} if merged else {}))


# ---------------------------------------------------------------- places


def _place(name: str) -> Path:
    """A library: a run's, a folder, or a table. Raises Failure for what is not there."""
    path = Path(name)
    if not path.exists():
        path = target.existing(name)
    if (path / "config.yaml").is_file():
        path = path / "skills"
    if not path.exists():
        raise Failure(f"{name}: no such library; expected a run that has acquired, a folder of skills, or a .parquet")
    return path


def _own(name: str) -> Path:
    """A library that may be changed, or is yet to be."""
    path = Path(name)
    if any((path / file).exists() for file in ("config.yaml", MANIFEST)):
        raise Failure(f"{name}: is a run's, which was made with it; `propose skills merge OUT {name}` makes your own")
    if path.is_file():
        raise Failure(f"{name}: a file; expected a folder of skills")
    return path


def _given(source: str) -> tuple[Path, list[Skill]]:
    """The library that a source is, or is the folder of a skill of; and the skills that are meant."""
    path = Path(source)
    path = path.parent if path.name == "SKILL.md" else path
    if (path / "SKILL.md").is_file():
        return path.absolute().parent, [read_folder(path)]
    library = _place(source)
    return library, list(SkillLibrary.load(library))
