"""Skill documents: the prompts that ask a teacher for them, the parser of its replies, and the library on disk.

Invariant: a `Skill` has one text form, in a teacher's reply and in `<library>/<id>/SKILL.md` alike: YAML front matter
for discovery, a body in four sections, optionally a script. What cannot be read ends in a `Failure` that names what
was wrong; nothing of a reply is ever executed here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from pipeline.config import loading
from pipeline.digests import MANIFEST, files_below
from pipeline.records import Failure, Skill
from pipeline.store.files import replace, writing
from pipeline.store.manifest import seal_folder, verified_folder

SECTIONS = ("Structure", "Action", "Effect", "Tool hint")

FORM = """Reply with one document per skill, nothing before, between or after them, in exactly this form:

---
name: snake_case_name
category: one lower-case word
intent: one line, what the skill asks of a solver
score: 0.0 to 1.0, how useful and how well supported by the text
---
## Structure
What such a problem holds.
## Action
What the solver does.
## Effect
How the skill makes a problem harder.
## Tool hint
How code can check it.
## Script
```python
def snake_case_name(x): ...
```

The script is optional: definitions only, no calls, and an error raised wherever the skill does not fit.
If the text shows no skill, reply NONE."""

QA_PROMPT = """You take apart worked examples. Below is a question with its answer. Work backwards: which atomic \
skills does one need to get from the question to the answer? Describe the knowledge behind it so that someone could \
write new problems from it. Never repeat the question, its story or its numbers.

{form}

Question and answer:
{text}"""

TEXT_PROMPT = """You read for what can be practised. Below is a piece of text. Work backwards: which atomic reasoning \
skills does it explain or use? Describe the knowledge, apart from this text's own wording, examples and numbers, so \
that someone could write problems from it. A passage that teaches nothing gets a low score.

{form}

Text:
{text}"""


@dataclass(frozen=True)
class Document:
    """One piece of the corpus."""

    source: str
    """Where it came from, e.g. file name and line."""
    kind: Literal["qa", "text"]
    text: str


def acquisition_messages(document: Document, template: str) -> list[dict[str, str]]:
    """The conversation that asks a teacher for the skills of one document."""
    return [{"role": "user", "content": template.format(form=FORM, text=document.text)}]


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


_DOCUMENT = re.compile(r"^---[ \t]*\n(?P<front>(?:(?!---).*\n)*?)---[ \t]*\n", re.MULTILINE)
_SCRIPT = re.compile(r"^##\s*Script\s*$", re.MULTILINE)
_HEADING = re.compile(r"^##\s*(.+?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"```(?:python)?[ \t]*\n(.*?)```", re.DOTALL)


def parse_reply(reply: str, source: str) -> list[Skill]:
    """A teacher's reply -> its skills, [] for NONE. Raises Failure where the reply or a document in it is malformed."""
    if reply.strip().strip(".").upper() == "NONE":
        return []
    heads = list(_DOCUMENT.finditer(reply.strip() + "\n"))
    if not heads:
        raise Failure(f"{source}: the teacher's reply holds no skill document (front matter between --- lines)")
    text = reply.strip() + "\n"
    if text[: heads[0].start()].strip():
        raise Failure(f"{source}: text before the first skill document: {text.strip()[:60]!r}")
    ends = [h.start() for h in heads[1:]] + [len(text)]
    return [_read(h["front"], text[h.end() : end], source) for h, end in zip(heads, ends, strict=True)]


def _read(front: str, body: str, source: str) -> Skill:
    head = _front(front, source)
    where = f"{source}: skill {head.get('name', '?')!r}"
    for key in ("name", "category", "intent", "score"):
        if head.get(key) in (None, ""):
            raise Failure(f"{where}: front matter lacks {key!r}")
    name, score = head["name"], head["score"]
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise Failure(f"{where}: name must be snake_case, at most 64 characters")
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        raise Failure(f"{where}: score is {score!r}, expected a number from 0 to 1")
    prose, *code = _SCRIPT.split(body, maxsplit=1)
    parts = _sections(prose)
    for section in SECTIONS:
        if not parts.get(section.lower()):
            raise Failure(f"{where}: section '## {section}' is missing or empty")
    script = None
    if code:
        fence = _FENCE.search(code[0])
        if fence is None:
            raise Failure(f"{where}: '## Script' holds no ```python block")
        script = fence[1]
    try:
        return Skill(
            id=name,
            category=str(head["category"]).strip().lower(),
            intent=" ".join(str(head["intent"]).split()),
            method=f"{parts['structure']}\n\n{parts['action']}",
            difficulty=parts["effect"],
            tool_hint=parts["tool hint"],
            script=script,
            score=float(score),
            source=str(head.get("source", source)),
        )
    except ValidationError as e:
        raise Failure(f"{where}: {e.errors()[0]['msg']}") from None


def _front(text: str, source: str) -> dict[str, Any]:
    try:
        head = loading.parse(text)
    except loading.NotYAML as e:
        raise Failure(f"{source}: front matter is not YAML ({e})") from None
    if not isinstance(head, dict):
        raise Failure(f"{source}: front matter is {type(head).__name__}, expected name, category, intent, score")
    return head


def _sections(body: str) -> dict[str, str]:
    heads = list(_HEADING.finditer(body))
    ends = [h.start() for h in heads[1:]] + [len(body)]
    return {h[1].lower(): body[h.end() : end].strip() for h, end in zip(heads, ends, strict=True)}


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
        """Write every skill, each of its files whole or not at all; skills of an earlier save that are no longer here
        are removed."""
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                if (old / "SKILL.md").exists() and old.name not in self._skills:
                    shutil.rmtree(old)
            for skill in self:
                place = folder / skill.id
                if skill.script is not None:
                    replace(place / "script.py", skill.script)
                else:
                    (place / "script.py").unlink(missing_ok=True)
                text = render(skill, with_script=False)
                source = yaml.safe_dump({"source": skill.source}, allow_unicode=True, width=1000)
                replace(place / "SKILL.md", text.replace("\n---\n", f"\n{source}---\n", 1))
        seal_folder(folder, "skills", [f for f in files_below(folder) if f.partition("/")[0] in self._skills])

    @classmethod
    def load(cls, folder: Path) -> SkillLibrary:
        """Inverse of `save`. Raises Failure that names the file that is missing or broken, or not what was saved; a
        library that somebody wrote by hand has no manifest, and is read as it is."""
        if not folder.is_dir():
            raise Failure(f"skill library {folder}: no such folder")
        if (folder / MANIFEST).exists():
            verified_folder(folder)
        skills = []
        for place in sorted(p for p in folder.iterdir() if p.is_dir()):
            try:
                text = (place / "SKILL.md").read_text(encoding="utf-8")
                script = (place / "script.py").read_text(encoding="utf-8") if (place / "script.py").exists() else None
            except (OSError, UnicodeDecodeError) as e:
                raise Failure(f"skill library: {place / 'SKILL.md'}: {e}") from None
            found = parse_reply(text, source=str(place / "SKILL.md"))
            if len(found) != 1 or found[0].id != place.name:
                raise Failure(f"skill library: {place / 'SKILL.md'} must hold one skill called {place.name!r}")
            skills.append(found[0].model_copy(update={"script": script}))
        if not skills:
            raise Failure(f"skill library {folder}: holds no skill")
        return cls(skills)


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
