"""Tool calls in an assistant's text: where they stand, what they say, and how one is written.

Read are the Hermes form (`<tool_call>{"name": …, "arguments": {…}}</tool_call>`), which our prompts show, and what the
templates of other models teach them: `<function=…>` (Qwen3-Coder), `<arg_key>` (GLM), `[TOOL_CALLS]` (Mistral),
`"parameters"` (Llama), OpenAI's `{"function": …}`, and a call that stands bare or fenced at the end of a turn.

Invariant: text is data, nothing here raises. What a careful reader would take for one call is a `ToolCall`, with a note
of each thing that was mended; what looks like a call and is none is `Malformed`, whose message says what is wrong and
shows a good one. A call inside a model's private part is none, and a tag inside a string is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from actors import loose_json
from actors.loose_json import Unclear
from pipeline.records import ANSWER_KINDS

ToolName = Literal["exec", "edit", "skill", "submit"]

EXAMPLE: dict[str, str] = {
    "exec": '{"name": "exec", "arguments": {"code": "print(1 + 1)"}}',
    "edit": '{"name": "edit", "arguments": {"drop": ["skill_id"], "add": []}}',
    "skill": '{"name": "skill", "arguments": {"id": "skill_id"}}',
    "submit": '{"name": "submit", "arguments": {"question": "...", "answer": "..."}}',
}

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class ToolCall:
    name: ToolName
    arguments: dict[str, Any]
    """Validated against the tool's schema."""
    repairs: tuple[str, ...] = field(default=(), compare=False)
    """What was not written as it should be, and was read all the same."""


@dataclass(frozen=True)
class Malformed:
    """A tool call that could not be read."""

    message: str
    """What was wrong and what a good call looks like; shown to the agent."""
    called: str = ""
    """The name that was called, where no tool has it."""


def render(name: str, arguments: dict[str, Any] | str) -> str:
    """A call as it should be written; arguments may be JSON in text already."""
    return f"{OPEN}\n{loose_json.dumps({'name': name, 'arguments': arguments})}\n{CLOSE}"


# ---------------------------------------------------------------- where

_TAG = re.compile(r"<(?P<end>/?)think(?:ing)?>|<tool_call>", re.IGNORECASE)
_BEGINS = re.compile(r"\s*(?:```\w*\s*)?(?:[\[{]|(?P<code><function=|\w{1,20}\s*<arg_key>))")
_INSIDE = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)|</?tool_call>|</think(?:ing)?>', re.DOTALL)


def visible(text: str) -> str:
    """The text without a reasoning model's private parts: `<think>…</think>`, also where the prompt opened or nothing
    closed it. Tags inside the strings of a call are its own."""
    shown: list[str] = []
    start, private = 0, False
    for tag in _tags(text):
        if tag["end"]:
            if not private:
                shown.clear()
            start, private = tag.end(), False
        elif not private:
            shown.append(text[start : tag.start()])
            private = True
    return "".join(shown) if private else "".join(shown) + text[start:]


def _tags(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while tag := _TAG.search(text, at):
        at = tag.end()
        if tag[0].lower() != OPEN:
            yield tag
        elif (end := _end(text, at)) is not None:
            at = end


def _end(text: str, at: int) -> int | None:
    """Where the call whose inside begins at `at` is closed; None where it is not. Strings are passed over."""
    if not (begins := _BEGINS.match(text, at)):
        return None
    if begins["code"]:  # code stands there as it is, quotes and tags and all
        function = text.find("</function>", at)
        end = text.find(CLOSE, max(function, at))
        return None if end < 0 else end
    for found in _INSIDE.finditer(text, at):
        if found[0] == CLOSE:
            return found.start()
        if found[0].startswith("<"):
            return None
    return None


def split(text: str) -> tuple[str, ToolCall | Malformed | None]:
    """(the rest, the call) of an assistant's visible text."""
    before, opened, rest = text.partition(OPEN)
    if not opened:
        return _other_form(text)
    end = _end(rest, 0)
    if end is None or isinstance(_read(rest[:end]), Malformed):  # strings that nobody closed may have hidden the end
        first = rest.find(CLOSE)
        end = first if first >= 0 else end
    if end is None:
        call = _read(rest, close=False)
        whole = isinstance(call, ToolCall)
        return before.strip(), _noted(call, "end") if whole else _bad(f"{OPEN} without {CLOSE}", "exec")
    inside, after = rest[:end], rest[end + len(CLOSE) :]
    if OPEN in after:
        return before.strip(), _bad("more than one tool call in a turn", "exec")
    return f"{before.strip()}\n{after.strip()}".strip(), _read(inside)


_MARK = re.compile(
    r"\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call\|>|<function_call>|<tool_calls>|(?=<function=\w+>)|```tool_(?:call|code)\b"
)
_STARTS = re.compile(
    r"^(?:[*_`]*tool[ _]calls?[*_`]*[ \t]*:[*_]*\s*)?(?=(?:```\w*\s*)?[\[{])", re.MULTILINE | re.IGNORECASE
)
_LIKE_A_CALL = re.compile(
    r'(?:```\w*\s*)?[\[{\s]*"name"\s*:\s*".*"(?:arguments|parameters)"\s*:.*[}\]]\s*(?:```\s*)?', re.DOTALL
)
_BARE = 8
"""Lines from the end that may begin a bare call; more are not looked at."""


def _other_form(text: str) -> tuple[str, ToolCall | Malformed | None]:
    """A call without Hermes's tag: behind the mark of another template, or bare at the end of the text."""
    if mark := _MARK.search(text):
        inside = re.sub(r"\s*(?:</function_call>|</tool_calls>|```|<\|/?\w+\|>)\s*\Z", "", text[mark.end() :])
        return text[: mark.start()].strip(), _noted(_read(inside), "form")
    starts = list(_STARTS.finditer(text))[-_BARE:]
    bare = [m for m in starts if _says_call(text[m.end() :])] or [
        m for m in starts if _LIKE_A_CALL.fullmatch(text, m.end())
    ]
    if not bare:
        return text.strip(), None
    before = text[: bare[0].start()].strip()
    if bare[0] is not starts[0] and before.rstrip("`, \n").endswith("}"):
        return before, _bad("more than one tool call in a turn", "exec")
    return before, _noted(_read(text[bare[0].end() :]), "form")


def _says_call(text: str) -> bool:
    """Whether bare JSON is meant for a call: it has a name and arguments, or is what `submit` takes."""
    try:
        found = loose_json.loads(_unfenced(text), set(), close=False)
    except (ValueError, RecursionError):
        return False
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return False
    return ("name" in found and bool({"arguments", "parameters"} & set(found))) or {"question", "answer"} <= set(found)


def _noted(call: ToolCall | Malformed, note: str) -> ToolCall | Malformed:
    return ToolCall(call.name, call.arguments, (*call.repairs, note)) if isinstance(call, ToolCall) else call


# ---------------------------------------------------------------- what

_FENCED = re.compile(r"\s*(`{3,}|~{3,})[ \t]*\w*[ \t]*\n?(.*?)\s*\1?\s*", re.DOTALL)
_XML = re.compile(r"\s*(?:<function=(?P<name>\w+)>|(?P<bare>\w+)\s*(?=<arg_key>))(?P<rest>.*)", re.DOTALL)
_PARAMETER = re.compile(
    r"<parameter=(\w+)>(.*?)</parameter>|<arg_key>\s*(\w+)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)
_NAMED = re.compile(r"\s*(?P<name>exec|edit|skill|submit)\s*(?:\[ARGS\]|[:\n])?\s*(?P<rest>\{.*)", re.DOTALL)


def _unfenced(text: str) -> str:
    fenced = _FENCED.fullmatch(text)
    return fenced[2] if fenced else text


def _read(text: str, *, close: bool = True) -> ToolCall | Malformed:
    """The call that the text between the tags is. `close`: brackets may be missing at its end."""
    notes: set[str] = set()
    inside = _unfenced(text)
    if inside != text:
        notes.add("fence")
    try:
        if xml := _XML.fullmatch(inside):
            notes.add("form")
            name, arguments = xml["name"] or xml["bare"], _parameters(xml["rest"], notes)
            return _checked(name, arguments, notes)
        if named := _NAMED.fullmatch(inside):
            notes.add("form")
            found: Any = {"name": named["name"], "arguments": loose_json.loads(named["rest"], notes, close=close)}
        else:
            found = loose_json.loads(inside, notes, close=close)
        if isinstance(found, list) and len(found) > 1:
            return _bad("more than one tool call in a turn", "exec")
        return _of_object(found, notes)
    except Unclear as e:
        return _bad(str(e), "submit")
    except (ValueError, RecursionError) as e:
        return _bad(f"not JSON ({_why(e)})", "exec")


def _why(e: Exception) -> str:
    if isinstance(e, json.JSONDecodeError):
        return e.msg
    if isinstance(e, RecursionError):
        return "nested too deep"
    return "a number of too many digits" if "digits" in str(e) else str(e)


def _parameters(text: str, notes: set[str]) -> dict[str, Any]:
    """Values between tags are text as it is; lists and objects are JSON."""
    found: dict[str, Any] = {}
    for m in _PARAMETER.finditer(text):
        key, value = m[1] or m[3], (m[2] if m[1] else m[4])
        value = value.removeprefix("\n").removesuffix("\n")
        if key in ("drop", "add", "checks"):
            found[key] = _values(loose_json.loads(value, notes), notes)
        else:
            found[key] = loose_json.clean(value, notes) if key in _PROSE else value
    return found


def _of_object(found: Any, notes: set[str]) -> ToolCall | Malformed:
    if isinstance(found, list):
        notes.add("form")
        found = found[0] if found else None
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        notes.add("form")
        found = found["function"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        meant = isinstance(found, dict) and {"question", "answer"} <= set(found)
        return _bad('no object with "name" and "arguments"', "submit" if meant else "exec")
    name = loose_json.plain(found["name"], notes).strip()
    arguments = found.get("arguments", found.get("parameters"))
    if "arguments" not in found:
        if "parameters" not in found:
            arguments = {key: value for key, value in found.items() if key not in ("name", "id", "type")}
        notes.add("form")
    if isinstance(arguments, str):
        notes.add("arguments as text")
        try:
            arguments = loose_json.loads(loose_json.prose(arguments, notes), notes)
        except Unclear:
            raise
        except ValueError:
            return _checked(name, None, notes)
    if not isinstance(arguments, dict):
        return _checked(name, None, notes)
    return _checked(name, _arguments(arguments, notes), notes)


_PROSE = ("question", "answer")


def _arguments(raw: dict[str, Any], notes: set[str]) -> dict[str, Any]:
    found = {}
    for key, value in raw.items():
        key = loose_json.plain(key, notes)
        if key in _PROSE and isinstance(value, str):
            try:
                found[key] = loose_json.prose(value, notes)
            except Unclear as e:
                raise Unclear(f'"{key}": {e}') from None
        else:
            found[key] = _values(value, notes)
    return found


def _values(raw: Any, notes: set[str]) -> Any:
    if isinstance(raw, str):
        return loose_json.plain(raw, notes)
    if isinstance(raw, list):
        return [_values(value, notes) for value in raw]
    if isinstance(raw, dict):
        return {loose_json.plain(key, notes): _values(value, notes) for key, value in raw.items()}
    return raw


def _checked(name: str, arguments: dict[str, Any] | None, notes: set[str]) -> ToolCall | Malformed:
    if name not in EXAMPLE:
        return _bad(f"no tool {name[:40]!r}; tools are {', '.join(EXAMPLE)}", "exec", called=name)
    if arguments is None:
        return _bad('"arguments" is no object', name)
    try:
        json.dumps(arguments, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except UnicodeEncodeError:
        return _bad("not text (half of a surrogate pair)", name)
    read = _TOOLS[name](arguments)
    if isinstance(read, str):
        return _bad(read, name)
    return ToolCall(cast(ToolName, name), read, tuple(sorted(notes)))


def _bad(what: str, example: str, called: str = "") -> Malformed:
    return Malformed(f"Malformed call: {what}. Example: {shown(example)}", called)


def shown(name: str) -> str:
    """An example of a call of this tool."""
    return f"{OPEN}\n{EXAMPLE[name]}\n{CLOSE}"


def _exec(a: dict[str, Any]) -> dict[str, Any] | str:
    code = a.get("code")
    return {"code": code} if isinstance(code, str) and code.strip() else '"code" must be Python text'


def _edit(a: dict[str, Any]) -> dict[str, Any] | str:
    drop, add = a.get("drop", []), a.get("add", [])
    lists = all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in (drop, add))
    if not lists or not (drop or add):
        return '"drop" and "add" must be lists of skill ids, not both empty'
    return {"drop": drop, "add": add}


def _skill(a: dict[str, Any]) -> dict[str, Any] | str:
    return {"id": a["id"]} if isinstance(a.get("id"), str) else '"id" must be a skill id'


def _submit(a: dict[str, Any]) -> dict[str, Any] | str:
    question, answer, kind, checks = a.get("question"), a.get("answer"), a.get("answer_kind"), a.get("checks", [])
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = json.dumps(answer)
    if not (isinstance(question, str) and question.strip() and isinstance(answer, str) and answer.strip()):
        return '"question" and "answer" must be text'
    if kind is not None and kind not in ANSWER_KINDS:
        return f'"answer_kind" must be one of {", ".join(ANSWER_KINDS)}'
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return '"checks" must be a list of objects'
    return {"question": question, "answer": answer, "answer_kind": kind, "checks": [json.dumps(c) for c in checks]}


_TOOLS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | str]] = {
    "exec": _exec,
    "edit": _edit,
    "skill": _skill,
    "submit": _submit,
}
