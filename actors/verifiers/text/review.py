"""A review of a problem as a model writes it: reasoning, then one JSON object at the end.

Invariant: any text can be read. What can only be meant one way is read (true for 1, a flag's other name, a list where
one word was asked for, LaTeX with one backslash); a text without a vote is no review. Nothing of it is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from actors import loose_json
from actors.answers.replies import extract_boxed, visible
from pipeline.config import Flag

FLAGS: tuple[Flag, ...] = get_args(Flag)


@dataclass(frozen=True)
class Review:
    valid: bool
    flags: tuple[Flag, ...] = ()
    used_skills: tuple[str, ...] | None = None
    category: str | None = None
    on_task: bool | None = None
    rationale: str = ""


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string"},
        "vote": {"type": "integer", "enum": [0, 1]},
        "flags": {"type": "array", "items": {"type": "string", "enum": list(FLAGS)}},
        "used_skills": {"type": "array", "items": {"type": "string"}},
        "category": {"type": "string"},
        "on_task": {"type": "boolean"},
        "rationale": {"type": "string"},
    },
    "required": ["reasoning", "vote", "flags", "used_skills", "category", "on_task", "rationale"],
    "additionalProperties": False,
}
"""For an endpoint that is asked for JSON: the reasoning comes first, and every field is required, as strict modes want
it."""


def read(text: str) -> Review | None:
    """The last object of the text that holds a vote, else its lines "vote: 1", "flags: …"; None without a vote."""
    for fields in (*objects(text), _lines(text)):
        valid = _truth(_first(fields, "vote", "valid", "verdict", "decision"))
        if valid is None:
            continue
        flags, unknown = _flags(_first(fields, "flags", "flag", "issues"))
        used = _first(fields, "used_skills", "used", "skills_used", "skills")
        category = _first(fields, "category")
        said = _first(fields, "rationale", "reason", "explanation", "reasoning")
        rationale = " ".join(str(said if said is not None else "").split())[:300]
        if unknown:
            rationale = f"{rationale} (also said: {', '.join(unknown)[:100]})".strip()
        return Review(
            valid=valid,
            flags=flags,
            used_skills=None if used is None else tuple(_words(used)),
            category=category.strip().lower() if isinstance(category, str) and category.strip() else None,
            on_task=_truth(_first(fields, "on_task", "on_topic", "adherent")),
            rationale=rationale,
        )
    return None


def answer(text: str) -> str | None:
    """The answer of a solution: what it boxed last, else the field of that name of an object; None without either."""
    if (boxed := extract_boxed(text)) is not None:
        return boxed
    for fields in objects(text):
        found = _first(fields, "answer", "final_answer")
        if isinstance(found, str | int | float) and not isinstance(found, bool) and str(found).strip():
            return str(found).strip()
    return None


# ---------------------------------------------------------------- objects in text

_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)
_MOST = 40


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, the last one first, with keys in lower case. What stands inside another is a part
    of it, and no object of its own."""
    text = visible(text)
    starts = [m.start() for m in re.finditer(r"\{", text)][-_MOST:]
    found, end = [], 0
    for start in starts:
        if start < end:
            continue
        whole = _balanced(text, start)
        for written in (whole, f'{whole}"'):  # a reply that was cut off may end in a string
            try:
                value = loose_json.loads(written, set())
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                end = start + len(whole)
                found.append({re.sub(r"[\s-]+", "_", _read(key).strip().lower()): _read(v) for key, v in value.items()})
            break
    yield from reversed(found)


_LINE = re.compile(r"(?im)^\W*(vote|flags?|used[ _]skills|category|on[ _]task|rationale)\W*?[:=]\W*?(\S.*)$")


def _lines(text: str) -> dict[str, Any]:
    """Fields written a line each, as by who was asked for JSON and writes prose."""
    found = _LINE.findall(visible(text))
    return {re.sub(r"\s+", "_", name.lower()): value.strip(" *`") for name, value in found}


def _balanced(text: str, start: int) -> str:
    """From a brace to the one that closes it, or to the end of the text."""
    depth = 0
    for piece in _PIECES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(piece[0], 0)
        if depth == 0:
            return text[start : piece.end()]
    return text[start:].rstrip("`\n ")


def _read(value: Any) -> Any:
    """Strings of loose JSON as what they say."""
    if isinstance(value, str):
        try:
            return loose_json.prose(value, set())
        except loose_json.Unclear:
            return loose_json.plain(value, set())
    if isinstance(value, list):
        return [_read(item) for item in value]
    if isinstance(value, dict):
        return {_read(key): _read(item) for key, item in value.items()}
    return value


# ---------------------------------------------------------------- fields

_TRUE = {"1", "1.0", "true", "yes", "valid", "accept", "accepted", "pass", "sound", "ok"}
_FALSE = {"0", "0.0", "false", "no", "invalid", "reject", "rejected", "fail", "not valid", "unsound"}
_NO_FLAG = {"", "none", "null", "n/a", "no", "nothing", "[]"}
_OTHER_NAMES: Mapping[str, str] = {
    "ambiguity": "ambiguous",
    "underspecification": "underspecified",
    "under_specified": "underspecified",
    "missing_information": "underspecified",
    "unsolvability": "unsolvable",
    "contradictory": "unsolvable",
    "contradiction": "unsolvable",
    "impossible": "unsolvable",
    "inconsistent": "unsolvable",
    "leaks": "leaks_answer",
    "answer_leak": "leaks_answer",
    "leaked_answer": "leaks_answer",
    "leak": "leaks_answer",
    "triviality": "trivial",
    "off_topic": "off_task",
}


def _first(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _truth(value: Any) -> bool | None:
    word = " ".join(str(value).strip().lower().split()) if isinstance(value, str | int | float) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def _flags(value: Any) -> tuple[tuple[Flag, ...], list[str]]:
    """(the flags, what was said that is none)."""
    found: dict[Flag, None] = {}
    unknown: list[str] = []
    for word in _words(value):
        name = re.sub(r"[\s-]+", "_", re.split(r"[:(.]", word)[0].strip().lower())
        name = _OTHER_NAMES.get(name, name)
        known = next((flag for flag in FLAGS if flag == name), None)
        if known is not None:
            found[known] = None
        elif name not in _NO_FLAG:
            unknown.append(word)
    return tuple(found), unknown


def _words(value: Any) -> list[str]:
    """A list of words, however it is written: a list, a text with commas, an object of what is true."""
    if isinstance(value, str):
        return [word.strip(" \"'") for word in re.split(r"[,;|\n]", value.strip("[] "))]
    if isinstance(value, dict):
        return [str(name) for name, said in value.items() if _truth(said)]
    if isinstance(value, Sequence):
        return [str(item).strip() for item in value if isinstance(item, str)]
    return []
