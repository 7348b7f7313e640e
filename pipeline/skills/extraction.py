"""Skills: the prompts that ask a teacher for them, their text form, and the library on disk.

Invariant: a `Skill` has one text form, in a teacher's reply and in `<library>/<id>/SKILL.md` alike, which
`replies.read` reads.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from actors.prompts import fill
from pipeline.records import Failure, Skill
from pipeline.skills import table
from pipeline.skills.replies import FORM, SECTIONS, read
from pipeline.store.digests import MANIFEST, files_below
from pipeline.store.files import replace, whole_folder
from pipeline.store.manifest import seal_folder, verified_folder

QA_PROMPT = """You take apart worked examples. Below is a question with its answer. Work backwards: which atomic \
skills does one need to get from the question to the answer? Describe the knowledge behind it so that someone could \
write new problems from it. Never repeat the question, its story or its numbers.

{{form}}

Question and answer:
{{text}}"""

TEXT_PROMPT = """You read for what can be practised. Below is a piece of text. Work backwards: which atomic reasoning \
skills does it explain or use? Describe the knowledge, apart from this text's own wording, examples and numbers, so \
that someone could write problems from it. A passage that teaches nothing gets a low score.

{{form}}

Text:
{{text}}"""


@dataclass(frozen=True)
class Document:
    """One piece of the corpus."""

    source: str
    """Where it came from, e.g. file name and line."""
    kind: Literal["qa", "text"]
    text: str
    path: str = ""
    """The file, as it can be found again."""
    origin: str | None = None
    """What its place, or its row, says of where it is from."""
    license: str | None = None


def acquisition_messages(document: Document, template: str, categories: Sequence[str] = ()) -> list[dict[str, str]]:
    """The conversation that asks a teacher for the skills of one document."""
    filled = fill(template, form=FORM, text=document.text, categories=", ".join(categories))
    return [{"role": "user", "content": filled}]


def repair_messages(asked: list[dict[str, str]], reply: str, faults: Sequence[str]) -> list[dict[str, str]]:
    """The conversation `asked`, which goes on to ask once more for what could not be read of its reply."""
    listed = "\n".join(f"- {fault}" for fault in faults)
    again = f"This could not be read:\n{listed}\nWrite these skills again, corrected, and only these.\n\n{FORM}"
    return [
        *asked,
        {"role": "assistant", "content": reply},
        {"role": "user", "content": again},
    ]


# ---------------------------------------------------------------- one text form


def render(skill: Skill, with_script: bool = True) -> str:
    """The document of a skill, as a teacher writes it."""
    structure, _, action = skill.method.partition("\n\n")
    front = yaml.safe_dump(
        {"name": skill.id, "category": skill.category, "intent": skill.intent, "score": skill.score},
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )
    body = dict(zip(SECTIONS, (structure, action, skill.difficulty, skill.tool_hint), strict=True))
    text = f"---\n{front}---\n" + "".join(f"## {name}\n{body[name]}\n" for name in SECTIONS)
    if with_script and skill.script:
        text += f"## Script\n```python\n{skill.script.rstrip()}\n```\n"
    return text


# ---------------------------------------------------------------- the library

CANDIDATES = "candidates.parquet"
FILES = (MANIFEST, table.TABLE, CANDIDATES)
"""What may lie beside the folders of skills; `skills.candidates` says what the last one is."""


class SkillLibrary:
    """Skills by id, in a fixed order; saved as one directory per skill (SKILL.md, and script.py where there is one) and
    as a table beside them, which the folders overrule."""

    def __init__(self, skills: Iterable[Skill] = ()):
        self._skills: dict[str, Skill] = {}
        for skill in skills:
            if skill.id in self._skills:
                raise Failure(
                    f"skill library: two skills are called {skill.id!r}; `propose skills merge` keeps the better one"
                )
            self._skills[skill.id] = skill

    def __iter__(self) -> Iterator[Skill]:
        return iter(self._skills.values())

    def __len__(self) -> int:
        return len(self._skills)

    def __getitem__(self, id: str) -> Skill:
        if id not in self._skills:
            raise Failure(f"skill library: no skill {id!r} among {len(self)}")
        return self._skills[id]

    @property
    def version(self) -> str:
        """Of its content."""
        return table.version_of(self)

    def save(self, folder: Path, sealed: bool = True, candidates: bytes | None = None) -> None:
        """Write every skill, all of them or none; skills of an earlier save that are no longer here go, and what else
        is there stays. What is `sealed` is a run's, and loads only as it was written; else it is somebody's to edit.
        `candidates` is the content of that file."""

        def stays(name: str) -> bool:
            top, _, rest = name.partition("/")
            if not (folder / top / "SKILL.md").exists():
                return name not in FILES
            return top in self._skills and rest not in ("SKILL.md", "script.py")

        with whole_folder(folder, stays) as new:
            for skill in self:
                if skill.script is not None:
                    replace(new / skill.id / "script.py", skill.script)
                text = render(skill, with_script=False)
                source = yaml.safe_dump({"source": skill.source}, allow_unicode=True, width=1000)
                replace(new / skill.id / "SKILL.md", text.replace("\n---\n", f"\n{source}---\n", 1))
            replace(new / table.TABLE, table.written(self))
            if candidates is not None:
                replace(new / CANDIDATES, candidates)
            if sealed:
                seal_folder(new, "skills", files_below(new), version=self.version)

    @classmethod
    def load(cls, place: Path) -> SkillLibrary:
        """Inverse of `save`, of a folder or of a table. Raises Failure that names the file that is missing or broken,
        or not what was saved; a library that somebody wrote or edited by hand has no manifest, and is read as it is."""
        if place.suffix == ".parquet" and place.is_file():
            skills = table.read(place)
        elif not place.is_dir():
            raise Failure(f"skill library {place}: no such folder")
        else:
            skills = [read_folder(folder) for folder in folders_of(place)]
        if not skills:
            raise Failure(f"skill library {place}: holds no skill")
        return cls(skills)


def folders_of(library: Path) -> list[Path]:
    """One a skill; of a library with a manifest, those that it lists. Raises Damage for what is not what it says."""
    folders = sorted(p for p in library.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not (library / MANIFEST).exists():
        return folders
    saved = {name.partition("/")[0] for name in verified_folder(library)["files"]}
    return [p for p in folders if p.name in saved]


def read_folder(folder: Path) -> Skill:
    """The skill of a folder. Raises Failure that names the file, and what is wrong with it."""
    document, code = folder / "SKILL.md", folder / "script.py"
    try:
        text = document.read_text(encoding="utf-8")
        script = code.read_text(encoding="utf-8") if code.exists() else None
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"skill library: {document}: {e}") from None
    found = read(text, source=str(document))
    if found.faults:
        raise Failure(f"skill library: {found.faults[0]}")
    if [skill.id for skill in found.skills] != [folder.name]:
        raise Failure(f"skill library: {document} must hold one skill called {folder.name!r}")
    (skill,) = found.skills
    if script is not None:
        if skill.script is not None:
            raise Failure(f"skill library: {document}: has a script, and so has {code}; expected one of them")
        skill = skill.model_copy(update={"script": script})
    if skill.script is not None:
        _refuse_no_python(skill.script, code if script is not None else document)
    return skill


def _refuse_no_python(script: str, path: Path) -> None:
    try:
        ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise Failure(f"skill library: {path}: {e}; expected Python, or no such file") from None


def named_apart(skills: Sequence[Skill]) -> list[Skill]:
    """Different skills, in their order: of those with one name, the first keeps it, the next gets a number."""
    taken = {skill.id for skill in skills}
    used: set[str] = set()
    found: list[Skill] = []
    for skill in skills:
        id = skill.id
        if id in used:
            id = next(name for n in itertools.count(2) if (name := f"{skill.id}_{n}") not in taken)
            taken.add(id)
        used.add(id)
        found.append(skill.model_copy(update={"id": id}))
    return found
