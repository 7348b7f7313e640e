"""What is wrong with a skill library, whoever wrote it: all of it, where loading stops at the first fault.

Invariant: nothing is changed, and a script runs in the sandbox only. A finding names the file, the rule, and what was
found there.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.scripts import names
from pipeline.config import SandboxConfig
from pipeline.records import Failure, Skill
from pipeline.skills import sameness, table
from pipeline.skills.admission import Tried, self_tests, try_scripts
from pipeline.skills.extraction import FILES, SkillLibrary, read_folder
from pipeline.skills.replies import KEYS, SECTIONS, read
from pipeline.skills.scripts import length
from pipeline.store.digests import MANIFEST, files_below
from pipeline.store.manifest import Damage, verified_folder

MAX_INTENT = 200
"""Of the line that is all an agent sees of a skill at first; in Latin letters."""
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
_CALLED = re.compile(r"(?<![\w.\\])([A-Za-z_]\w*)\(")


@dataclass(frozen=True, order=True)
class Finding:
    where: str
    """A file or a folder of the library."""
    rule: str
    what: str


def lint(place: Path, settings: SandboxConfig) -> list[Finding]:
    """Every finding. Raises Failure for a place that is none, and where no script can be run."""
    if place.is_file():
        rows = table.read(place)
        skills = {skill.id: skill for skill in rows}
        said = {Finding(place.name, rule, f"{s.id}: {what}") for s in rows for rule, what in _content(s)}
        said |= {
            Finding(place.name, "name", f"{count} skills are called {id!r}")
            for id, count in Counter(skill.id for skill in rows).items()
            if count > 1
        }
        return sorted({*said, *_together(place.name, skills), *_scripts(place.name, skills, settings)})
    if not place.is_dir():
        raise Failure(f"skill library {place}: no such folder")
    found: set[Finding] = set()
    skills = {}
    for entry in sorted(place.iterdir()):
        if entry.is_symlink():
            found.add(Finding(entry.name, "link", "a link, which a copy of the library does not follow"))
        elif entry.is_dir() and not entry.name.startswith("."):
            mine, skill = _folder(entry)
            found |= mine
            if skill is not None:
                skills[entry.name] = skill
        elif entry.name not in FILES:
            found.add(Finding(entry.name, "stray file", "no part of a library"))
    if not skills and not found:
        found.add(Finding(".", "empty", "holds no skill"))
    found |= {*_together("", skills), *_scripts("", skills, settings), *_beside(place, skills)}
    return sorted(found)


# ---------------------------------------------------------------- one folder


def _folder(folder: Path) -> tuple[set[Finding], Skill | None]:
    where = f"{folder.name}/SKILL.md"
    found = {
        Finding(f"{folder.name}/{name}", "stray file", "no part of a skill; expected SKILL.md, script.py")
        for name in files_below(folder)
        if name not in ("SKILL.md", "script.py")
    }
    document, code = folder / "SKILL.md", folder / "script.py"
    if not document.is_file():
        return found | {Finding(where, "missing document", "is not there")}, None
    texts = {}
    for path in (document, code):
        try:
            texts[path] = path.read_text(encoding="utf-8") if path.exists() else ""
        except UnicodeDecodeError as e:
            return found | {Finding(f"{folder.name}/{path.name}", "encoding", f"not UTF-8 at byte {e.start}")}, None
        except OSError as e:
            return found | {Finding(f"{folder.name}/{path.name}", "unreadable", str(e.strerror))}, None
        if hidden := _INVISIBLE.search(texts[path]):
            sign = f"U+{ord(hidden[0]):04X} {unicodedata.name(hidden[0], '')}".strip()
            found.add(Finding(f"{folder.name}/{path.name}", "invisible sign", f"holds {sign}"))
    text = texts[document]
    found |= {Finding(where, rule, what) for rule, what in _form(text)}
    reading = read(text, where)
    found |= {Finding(where, "document", fault.partition(": ")[2]) for fault in reading.faults}
    if len(reading.skills) != 1:
        if not reading.faults or reading.skills:
            found.add(Finding(where, "document", f"holds {len(reading.skills)} skills; expected one"))
        return found, None
    if reading.skills[0].id != folder.name:
        said = reading.skills[0].id
        return found | {Finding(where, "name", f"calls itself {said!r}; expected {folder.name!r}, as its folder")}, None
    if code.exists() and not texts[code].strip():
        return found | {
            Finding(f"{folder.name}/script.py", "script", "is empty; expected Python, or no such file")
        }, None
    try:
        skill = read_folder(folder)
    except Failure as e:
        said = str(e).removeprefix("skill library: ")
        return found | {Finding(f"{folder.name}/script.py", "script", said.partition(": ")[2])}, None
    found |= {Finding(where, rule, what) for rule, what in _content(skill)}
    return found, skill


def _form(text: str) -> Iterator[tuple[str, str]]:
    """What a reader passes over."""
    front = re.match(r"\s*---\n(.*?)^---$", text, re.DOTALL | re.MULTILINE)
    keys = re.findall(r"^([\w-]+):", front[1], re.MULTILINE) if front else []
    for key, count in Counter(keys).items():
        if count > 1:
            yield "front matter", f"gives {key!r} {count} times"
        elif key not in (*KEYS, "source"):
            yield "front matter", f"unknown key {key!r}; expected {', '.join((*KEYS, 'source'))}"
    headings = re.findall(r"^## *(.+?) *$", _FENCED.sub("", text), re.MULTILINE)
    for heading, count in Counter(headings).items():
        if heading not in (*SECTIONS, "Script"):
            yield "section", f"unknown section {heading!r}; expected {', '.join((*SECTIONS, 'Script'))}"
        elif count > 1:
            yield "section", f"has {count} sections {heading!r}"


def _content(skill: Skill) -> Iterator[tuple[str, str]]:
    if length(skill.intent) > MAX_INTENT:
        yield "intent", f"has {length(skill.intent)} letters; expected at most {MAX_INTENT}"
    if skill.intent.casefold().replace(" ", "_") == skill.id:
        yield "intent", "only repeats the name"
    if not skill.script:
        return
    own = names(skill.script)
    defined = own.defined if own else frozenset()
    called = set(_CALLED.findall(skill.tool_hint))
    if defined and called and called.isdisjoint(defined):
        yield "tool hint", f"names {', '.join(sorted(called))}, which the script does not define"
    if not any(map(ast.get_docstring, _documented(skill.script))):
        yield "docstring", "its script has none"
    if not list(self_tests(skill.script)):
        yield "no self-test", "no docstring of its script holds an example (>>>)"


def _documented(script: str) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """What may have a docstring."""
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# ---------------------------------------------------------------- all together


def _scripts(place: str, skills: dict[str, Skill], settings: SandboxConfig) -> Iterator[Finding]:
    tried = try_scripts({id: skill.script for id, skill in skills.items() if skill.script}, settings)
    if isinstance(tried, str):
        raise Failure(f"no script can be tried: {tried}", "infra_error")
    for id, one in tried.items():
        where = place or f"{id}/script.py"
        for rule, what in _run(one):
            yield Finding(where, rule, f"{id}: {what}" if place else what)


def _run(tried: Tried) -> Iterator[tuple[str, str]]:
    if tried.fault:
        yield "script", tried.fault
    if tried.failed:
        yield "self-test", tried.failed
    if tried.printed.strip():
        yield "output", f"prints when it is loaded: {tried.printed.strip().splitlines()[0][:80]!r}"


def _together(place: str, skills: dict[str, Skill]) -> Iterator[Finding]:
    """What is wrong with skills beside each other."""
    listed = list(skills.values())
    for first, *more in sameness.groups(listed):
        for other in more:
            yield Finding(place or listed[other].id, "duplicate", f"{listed[other].id} is {listed[first].id} again")
    owners: dict[str, list[str]] = {}
    for id, skill in skills.items():
        own = names(skill.script or "")
        for name in sorted(own.defined if own else ()):
            owners.setdefault(name, []).append(id)
    for name, those in owners.items():
        if len(those) > 1:
            what = f"its script defines {name!r}, and so does that of {those[0]}: the later one wins in a session"
            yield from (Finding(place or f"{id}/script.py", "clash", what) for id in those[1:])
    sizes = Counter(skill.category for skill in listed)
    for category, count in sizes.items():
        near = [c for c in sizes if c != category and sizes[c] >= count and sameness.alike(c, category)]
        if near and (sizes[near[0]] > count or near[0] < category):
            what = f"{category!r} ({count} skills) beside {near[0]!r} ({sizes[near[0]]}): one category in two spellings"
            yield Finding(place or ".", "category", what)
        elif count == 1 and len(listed) > 1:
            yield Finding(place or ".", "category", f"{category!r} has one skill, and a task takes two of a category")


def _beside(library: Path, skills: dict[str, Skill]) -> Iterator[Finding]:
    """What the files beside the folders say."""
    if (library / table.TABLE).is_file():
        try:
            rows = SkillLibrary(table.read(library / table.TABLE))
        except Failure as e:
            yield Finding(table.TABLE, "table", str(e).removeprefix("skill library: "))
        else:
            if rows.version != table.version_of(skills.values()):
                yield Finding(table.TABLE, "table", "holds other skills than the folders, which count")
    if not (library / MANIFEST).exists():
        return
    try:
        files = verified_folder(library)["files"]
    except Damage as e:
        name = e.path.relative_to(library).as_posix() if e.path.is_relative_to(library) else e.path.name
        yield Finding(name, "sealed", f"{e.what}; without {MANIFEST} the library is read as it is now")
        return
    listed = {name.partition("/")[0] for name in files}
    for id in sorted(set(skills) - listed):
        yield Finding(id, "sealed", f"{MANIFEST} does not list it, so it is not loaded")
