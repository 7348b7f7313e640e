"""The form that a teacher is asked to write skills in, and the reader of what it wrote.

A document is front matter between `---` lines, a body in four sections, optionally a script. Invariants: what
`skills.render` writes is read back; any text can be read, and gives skills and, for each document that is none, the
reason; a document that repeats the form is none. Nothing of a reply is executed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from actors.tool_calls import visible
from pipeline.config import loading
from pipeline.records import Skill
from pipeline.skills.scripts import MAX_ID_CHARS, skill_id

SECTIONS = ("Structure", "Action", "Effect", "Tool hint")
KEYS = ("name", "category", "intent", "score")

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
def snake_case_name(x):
    \"\"\"One line, and a test.

    >>> snake_case_name(2)
    4
    \"\"\"
    ...
```

The script is optional: definitions only, no calls, and an error raised wherever the skill does not fit. The example in
its docstring is run: a script without one, or that does not give to the letter what stands there (round fractions), is
refused, and the skill with it. Leave out a script rather than its example.
If the text shows no skill, reply NONE."""


@dataclass(frozen=True)
class Reading:
    """What a reply holds."""

    skills: tuple[Skill, ...]
    faults: tuple[str, ...]
    """Why a document, or the whole reply, is none. Both empty: the teacher said that there is no skill."""


def read(reply: str, source: str) -> Reading:
    """A teacher's reply -> its skills. Whatever else stands around a document is passed over."""
    text = visible(reply.replace("\r\n", "\n")).strip()
    lines = text.split("\n")
    heads = list(_heads(lines))
    if not heads:
        if (_NONE.match(text) or _SO_NONE.search(text)) and "```" not in text.strip("`"):
            return Reading((), ())
        return Reading((), (f"{source}: {_nothing(reply, text)}",))
    ends = [head.first for head in heads[1:]] + [len(lines)]
    skills: list[Skill] = []
    faults: list[str] = []
    for head, end in zip(heads, ends, strict=True):
        try:
            skills.append(_skill(head.fields, lines[head.body : end], source))
        except _Fault as e:
            faults.append(f"{source}: skill {head.fields.get('name', '?')[:64]!r}: {e}")
    return Reading(tuple(skills), tuple(faults))


class _Fault(Exception):
    """Why a document is none."""


_NONE = re.compile(r"[\s`*_\"'#>.-]*none\b", re.IGNORECASE)

_SO_NONE = re.compile(r"(?:\n|[.:] )[*`\"]*NONE[*`\".]*\Z")


def _nothing(reply: str, text: str) -> str:
    if not reply.strip():
        return "the teacher's reply is empty"
    if not text:
        return "the teacher's reply is a thought that did not end"
    return "the teacher's reply holds no skill document (front matter between --- lines)"


# ---------------------------------------------------------------- front matter


@dataclass(frozen=True)
class _Head:
    first: int
    """Its first line, an opening `---` included."""
    body: int
    """The line after it."""
    fields: dict[str, str]


_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,}|={3,})\s*")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)")
_KEY = re.compile(r"\s*(?:[-*+]\s+)?[*_`\"']{0,3}([A-Za-z]+)[*_`\"']{0,3}\s*[:：][*_]{0,2}\s*(.*)")
_ALIASES = {"skill": "name", "title": "name", "id": "name"}
_KNOWN = {*KEYS, "source", *_ALIASES}


def _heads(lines: list[str]) -> Iterator[_Head]:
    """Front matters: known keys, a line each, up to a `---` or the first heading; an opening `---` may be missing."""
    at = 0
    while at < len(lines):
        start = at
        while start < len(lines) and start - at < 3 and (_RULE.fullmatch(lines[start]) or not lines[start].strip()):
            start += 1
        fields, end = _fields(lines, start)
        opened = any(_RULE.fullmatch(line) for line in lines[at:start])
        closed = end < len(lines) and _ends_front(lines[end])
        if closed and ({"name"} <= set(fields) or (opened and fields)):
            yield _Head(at, end if _HEADING.fullmatch(lines[end]) else end + 1, fields)
            at = end
        at += 1


def _ends_front(line: str) -> bool:
    return bool(_RULE.fullmatch(line) or _FENCE.fullmatch(line) or _HEADING.fullmatch(line))


def _fields(lines: list[str], start: int) -> tuple[dict[str, str], int]:
    """(fields, the line after them) of the front matter that begins at `start`."""
    found: dict[str, list[str]] = {}
    key = ""
    at = start
    while at < len(lines):
        line = lines[at]
        named = _KEY.fullmatch(line)
        name = named[1].lower() if named else ""
        if named and name in _KNOWN:
            key = _ALIASES.get(name, name)
            if key in found:
                break
            found[key] = [named[2] or ""]
        elif key and line[:1] in (" ", "\t") and line.strip():
            found[key].append(line.strip())
        elif not (key and named and not line[:1].isspace()) and (line.strip() or not key):
            break
        at += 1
    return {name: _value(parts) for name, parts in found.items()}, at


def _value(lines: list[str]) -> str:
    """A value as YAML would give it where it is quoted or a block, else as it stands: "intent: a: b" is "a: b"."""
    first, *more = lines
    if first.strip() in ("|", ">", "|-", ">-", "|+", ">+"):
        return " ".join(more)
    text = " ".join([first.strip(), *more])
    if text[:1] in ("'", '"'):
        inside = text[1:-1] if text[-1] == text[0] and len(text) > 1 else text
        try:
            value = loading.parse(text)
        except loading.NotYAML:
            return inside
        # In double quotes, YAML takes the beginning of \\frac for a form feed.
        return value if isinstance(value, str) and not re.search(r"[\x00-\x09\x0b-\x1f]", value) else inside
    marked = re.fullmatch(r"(\*\*|\*|`)(.*)\1", text)
    return marked[2] if marked else text


# ---------------------------------------------------------------- the body

_HEADING = re.compile(
    r"\s*(?=#|\*\*|__)#{0,6}\s*(?:\*\*|__)?\s*(?:\d+[.)]\s*)?(structure|action|effect|tool[ _-]?hints?|script)"
    r"(?:\s*\([^)]*\))?\s*(?:\*\*|__)?\s*(?::\s*(?:\*\*|__)?\s*(.*))?",
    re.IGNORECASE,
)


def _sections(lines: list[str]) -> dict[str, list[str]]:
    """Lower-case name of a section -> its lines. Headings inside fences are none."""
    found: dict[str, list[str]] = {}
    name, fence = "", ""
    for line in lines:
        marks = _FENCE.fullmatch(line) if name else None  # before the first section it belongs to the front matter
        if marks and not fence:
            fence = marks[1]
        elif marks and marks[1].startswith(fence) and not marks[2].strip():
            fence = ""
        if not fence and not marks and (heading := _HEADING.fullmatch(line)):
            name = heading[1].lower()
            name = "tool hint" if name.startswith("tool") else name
            found[name] = [heading[2] or ""]
        elif name:
            found[name].append(line)
    return found


def _prose(lines: list[str]) -> str:
    """A section without what stands between documents: rules, empty headings, the fence around the whole."""
    kept = list(lines)
    while kept and (not kept[-1].strip() or _RULE.fullmatch(kept[-1]) or re.match(r"\s*(?:#|`{3,}|~{3,})", kept[-1])):
        if _FENCE.fullmatch(kept[-1]) and sum(bool(_FENCE.fullmatch(line)) for line in kept) % 2 == 0:
            break  # it closes one of the section's own
        kept.pop()
    return "\n".join(kept).strip()


def _script(lines: list[str]) -> str | None:
    """The first fenced block, else what looks like code; None where the teacher says that there is none."""
    opened = next((i for i, line in enumerate(lines) if _FENCE.fullmatch(line)), None)
    if opened is not None:
        marks = _FENCE.fullmatch(lines[opened])
        assert marks is not None
        inside = lines[opened + 1 :]
        end = next((i for i, line in enumerate(inside) if line.strip() == marks[1]), len(inside))
        code = "\n".join(inside[:end])
        return code + "\n" if code.strip() else None
    text = _prose(lines)
    if not text or re.match(
        r"[\W_]*(?:none|n/?a|not needed|no (?:script|code)|optional)\b|[\W_]*\Z", text, re.IGNORECASE
    ):
        return None
    if re.match(r"(?:def|class|import|from|@|#)\b|[@#]", text):
        return text + "\n"
    raise _Fault("'## Script' holds no code")


# ---------------------------------------------------------------- the skill


def _skill(fields: dict[str, str], body: list[str], source: str) -> Skill:
    for key in KEYS:
        if not fields.get(key):
            raise _Fault(f"front matter lacks {key!r}")
    parts = _sections(body)
    texts = {name: _prose(parts.get(name.lower(), [])) for name in SECTIONS}
    for name, text in texts.items():
        if not text:
            raise _Fault(f"section '## {name}' is missing or empty")
    _refuse_echo({**{key: fields[key] for key in KEYS}, **texts})
    name, category = _name(fields["name"]), _category(fields["category"])
    try:
        return Skill(
            id=name,
            category=category,
            intent=" ".join(fields["intent"].split()),
            method=f"{texts['Structure']}\n\n{texts['Action']}",
            difficulty=texts["Effect"],
            tool_hint=texts["Tool hint"],
            script=_script(parts["script"]) if "script" in parts else None,
            score=_score(fields["score"]),
            source=fields.get("source", source),
        )
    except ValidationError as e:
        raise _Fault(e.errors()[0]["msg"]) from None


def _name(text: str) -> str:
    if (name := skill_id(text)) is None:
        raise _Fault(f"name must be snake_case, in letters of any script, at most {MAX_ID_CHARS} characters")
    return name


def _category(text: str) -> str:
    words = text.strip().lower().split()
    if not words or len(words) > 3 or not re.fullmatch(r"[^\W_][\w&+/.-]*", "_".join(words)):
        raise _Fault(f"category is {text[:40]!r}, expected one lower-case word")
    return "_".join(words)


_SCORE = re.compile(r"[\"']?(\d*\.?\d+|\d+\.)\s*(%|/\s*\d+(?:\.\d+)?|out of \d+)?[\"']?\s*(?:[(,;#–—-].*)?")


def _score(text: str) -> float:
    found = _SCORE.fullmatch(text.strip())
    if found is None:
        raise _Fault(f"score is {text[:40]!r}, expected a number from 0 to 1")
    whole = re.sub(r"[^\d.]", "", (found[2] or "1").replace("%", "100"))
    score = float(found[1]) / (float(whole) or 1)
    if not 0 <= score <= 1:
        raise _Fault(f"score is {text[:40]!r}, expected a number from 0 to 1")
    return score


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _form() -> dict[str, str]:
    lines = FORM.split("\n")
    head = next(_heads(lines))
    parts = _sections(lines[head.body :])
    return {**head.fields, **{name: _prose(parts[name.lower()]) for name in SECTIONS}}


_ECHOES = {key: _plain(text) for key, text in _form().items()}


_COPIED = {"name": re.compile(r"_case_name$"), "category": re.compile(r"lower.case.word")}


def _refuse_echo(values: dict[str, str]) -> None:
    """A field that says what the form says there was copied, not filled in."""
    for key, value in values.items():
        if _plain(value) == _ECHOES[key] or (key in _COPIED and _COPIED[key].search(value.lower())):
            raise _Fault(f"{key} repeats the form ({value[:40]!r})")
