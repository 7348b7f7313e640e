"""How a model's own chat template shows tools and writes calls.

Consumes the template of a model directory, which is a program (Jinja, run by transformers in its sandboxed
environment). Invariant: a form of calls is a model's own only if what its template writes is read back to the same
calls, and if it describes the tools in the system message; else the model is told of Hermes's form, which the bundled
prompts show. Only ChatML templates can have one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from actors.tool_calls import CLOSE, EXAMPLE, OPEN, Malformed, ToolCall, split
from pipeline.records import Failure

_HERE = "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}here\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
_HERMES = re.compile(rf"{OPEN}\s*(\{{.*?\}})\s*{CLOSE}", re.DOTALL)
_SYSTEM = re.compile(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", re.DOTALL)


class OwnForm:
    """Tools and calls as a template shows them."""

    def __init__(self, template: str, tools: Sequence[dict[str, Any]]):
        self._template = template
        self._schemas = tools
        self._tools: list[dict[str, Any]] = [{"type": "function", "function": tool} for tool in tools]

    def system(self, prompt: str) -> str:
        """The content of the system message, with the tools. Raises ValueError where the template has none there."""
        messages = [{"role": "system", "content": _HERE}, {"role": "user", "content": "?"}]
        found = _SYSTEM.search(self._render(messages))
        names = [tool["name"] for tool in self._schemas]
        if found is None or _HERE not in found[1] or not all(name in found[1] for name in names):
            raise ValueError("no tools in the system message")
        return found[1].replace(_HERE, prompt)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """A call as the model's own turn holds it."""
        called = {"type": "function", "id": "call00000", "function": {"name": name, "arguments": arguments}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _HERE, "tool_calls": [called]},
        ]
        # The last end is the template's: an argument may hold one, too.
        return self._render(messages).rpartition(_HERE)[2].rpartition("<|im_end|>")[0].strip()

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        # Without the day, which some templates tell: a prompt is the same tomorrow.
        return rendered(self._template, messages, opened=False, tools=self._tools, strftime_now=lambda form: "")

    def of_tools(self, tools: Sequence[dict[str, Any]]) -> OwnForm:
        """The same form for some of the tools."""
        return OwnForm(self._template, tools)

    def rewritten(self, text: str) -> str:
        """The text with each of Hermes's calls in it written in the own form."""
        return _HERMES.sub(self._again, text)

    def _again(self, found: re.Match[str]) -> str:
        try:
            call = json.loads(found[1])
            return self.call(call["name"], call["arguments"])
        except (ValueError, KeyError, TypeError, TemplateError):  # what only looks like a call stays as it stands
            return found[0]


def own_form(model_dir: str | Path, tools: Sequence[dict[str, Any]]) -> OwnForm | None:
    """The form of a model's template, or None: it has no template, that knows no tools, or its calls are not read
    back. Raises Failure."""
    template = template_of(Path(model_dir), "tool_use")
    if template is None:
        return None
    try:
        form = OwnForm(template, tools)
        form.system("")
        return form if all(_is_read_back(form, tool["name"]) for tool in tools) else None
    except (TemplateError, ValueError, TypeError, KeyError):
        return None


def _is_read_back(form: OwnForm, name: str) -> bool:
    written = json.loads(EXAMPLE[name])
    expected, found = split(f"{OPEN}{EXAMPLE[name]}{CLOSE}")[1], split(form.call(name, written["arguments"]))[1]
    return isinstance(expected, ToolCall) and not isinstance(found, Malformed) and found == expected


# ---------------------------------------------------------------- the template itself


def template_of(folder: Path, name: str) -> str | None:
    """The template of a model directory: chat_template.jinja, or the tokenizer's settings. Of several it is the one of
    that name, else the default. Raises Failure."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = settings(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get(name, named.get("default", next(iter(named.values()), None)))
    return found if isinstance(found, str) else None


def settings(path: Path) -> dict[str, Any]:
    """An object, {} where there is no such file. Raises Failure for a broken one."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise Failure(f"{path}: {e}; expected a JSON object") from None
    return found if isinstance(found, dict) else {}


def rendered(template: str, messages: Sequence[Mapping[str, Any]], *, opened: bool, **names: Any) -> str:
    """A conversation, `opened` for an assistant's turn. Raises whatever a template raises."""
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template
    text: str = render([list(messages)], chat_template=template, add_generation_prompt=opened, **names)[0][0]
    return text
