"""Skills: the prompts that ask a teacher for them, their text form, and the library on disk.

Invariant: a `Skill` has one text form, in a teacher's reply and in `<library>/<id>/SKILL.md` alike, which
`skill_documents` reads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from actors.prompts import fill
from pipeline.records import Failure, Skill
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


class SkillLibrary:
    """Skills by id, in a fixed order; saved as one directory per skill: SKILL.md, and script.py where there is one."""

    def __init__(self, skills: Iterable[Skill] = ()):
        self._skills: dict[str, Skill] = {}
        for skill in skills:
            if skill.id in self._skills:
                raise Failure(f"skill library: two skills are called {skill.id!r}; select() keeps the better one")
            self._skills[skill.id] = skill

    def __iter__(self) -> Iterator[Skill]:
        return iter(self._skills.values())

    def __len__(self) -> int:
        return len(self._skills)

    def __getitem__(self, id: str) -> Skill:
        if id not in self._skills:
            raise Failure(f"skill library: no skill {id!r} among {len(self)}")
        return self._skills[id]

    def save(self, folder: Path) -> None:
        """Write every skill, all of them or none; skills of an earlier save that are no longer here go, and what else
        is there stays."""

        def stays(name: str) -> bool:
            return name != MANIFEST and not (folder / name.partition("/")[0] / "SKILL.md").exists()

        with whole_folder(folder, stays) as new:
            for skill in self:
                if skill.script is not None:
                    replace(new / skill.id / "script.py", skill.script)
                text = render(skill, with_script=False)
                source = yaml.safe_dump({"source": skill.source}, allow_unicode=True, width=1000)
                replace(new / skill.id / "SKILL.md", text.replace("\n---\n", f"\n{source}---\n", 1))
            seal_folder(new, "skills", files_below(new))

    @classmethod
    def load(cls, folder: Path) -> SkillLibrary:
        """Inverse of `save`. Raises Failure that names the file that is missing or broken, or not what was saved; a
        library that somebody wrote by hand has no manifest, and is read as it is."""
        if not folder.is_dir():
            raise Failure(f"skill library {folder}: no such folder")
        folders = sorted(p for p in folder.iterdir() if p.is_dir())
        if (folder / MANIFEST).exists():
            saved = {name.partition("/")[0] for name in verified_folder(folder)["files"]}
            folders = [p for p in folders if p.name in saved]
        skills = []
        for skill_folder in folders:
            try:
                text = (skill_folder / "SKILL.md").read_text(encoding="utf-8")
                script = (
                    (skill_folder / "script.py").read_text(encoding="utf-8")
                    if (skill_folder / "script.py").exists()
                    else None
                )
            except (OSError, UnicodeDecodeError) as e:
                raise Failure(f"skill library: {skill_folder / 'SKILL.md'}: {e}") from None
            found = read(text, source=str(skill_folder / "SKILL.md"))
            if found.faults:
                raise Failure(f"skill library: {found.faults[0]}")
            if [skill.id for skill in found.skills] != [skill_folder.name]:
                raise Failure(
                    f"skill library: {skill_folder / 'SKILL.md'} must hold one skill called {skill_folder.name!r}"
                )
            if script is not None:
                _refuse_no_python(script, skill_folder / "script.py")
            skills.append(found.skills[0].model_copy(update={"script": script}))
        if not skills:
            raise Failure(f"skill library {folder}: holds no skill")
        return cls(skills)


def _refuse_no_python(script: str, path: Path) -> None:
    try:
        ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise Failure(f"skill library: {path}: {e}; expected Python, or no such file") from None


def select(candidates: Iterable[Skill], min_score: float) -> SkillLibrary:
    """The library K_self: candidates with score >= min_score, each skill once, sorted by id.

    Candidates are the same skill when they share an id, or category and intent (case and spaces ignored); the best
    scored stays, the first among equals.
    """
    best: dict[str, Skill] = {}
    good = [c for c in candidates if c.score >= min_score]
    for skill in sorted(good, key=lambda s: -s.score):
        same = f"{skill.category} {' '.join(skill.intent.lower().split())}"
        if skill.id not in best and all(same != f"{b.category} {b.intent.lower()}" for b in best.values()):
            best[skill.id] = skill
    return SkillLibrary(best[id] for id in sorted(best))
