"""How a model's own chat template shows tools and writes calls.

Consumes the template of a model directory, which is a program (Jinja, run in its sandboxed environment). Invariant: a
form of calls is a model's own only if what its template writes is read back to the same calls, and if it describes the
tools in the system message; else the model is told of Hermes's form, which the bundled prompts show. Only ChatML
templates can have one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from actors.tool_calls import CLOSE, EXAMPLE, OPEN, Malformed, ToolCall, split

_HERE = "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}here\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
_HERMES = re.compile(rf"{OPEN}\s*(\{{.*?\}})\s*{CLOSE}", re.DOTALL)
_SYSTEM = re.compile(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", re.DOTALL)


class OwnForm:
    """Tools and calls as a template shows them."""

    def __init__(self, render: Callable[..., str], tools: Sequence[dict[str, Any]]):
        self._render = render
        self._schemas = tools
        self._tools: list[dict[str, Any]] = [{"type": "function", "function": tool} for tool in tools]

    def system(self, prompt: str) -> str:
        """The content of the system message, with the tools. Raises ValueError where the template has none there."""
        messages = [{"role": "system", "content": _HERE}, {"role": "user", "content": "?"}]
        found = _SYSTEM.search(self._render(messages, self._tools))
        names = [tool["name"] for tool in self._schemas]
        if found is None or _HERE not in found[1] or not all(name in found[1] for name in names):
            raise ValueError("no tools in the system message")
        return found[1].replace(_HERE, prompt)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """A call as the model's own turn holds it."""
        called = {"type": "function", "id": "call00000", "function": {"name": name, "arguments": arguments}}
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _HERE, "tool_calls": [called]},
        ]
        # The last end is the template's: an argument may hold one, too.
        return self._render(messages, self._tools).rpartition(_HERE)[2].rpartition("<|im_end|>")[0].strip()

    def of_tools(self, tools: Sequence[dict[str, Any]]) -> OwnForm:
        """The same form for some of the tools."""
        return OwnForm(self._render, tools)

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
    back."""
    source = _source(Path(model_dir))
    if source is None:
        return None
    try:
        form = OwnForm(_renderer(source), tools)
        form.system("")
        return form if all(_is_read_back(form, tool["name"]) for tool in tools) else None
    except (TemplateError, ValueError, TypeError, KeyError):
        return None


def _is_read_back(form: OwnForm, name: str) -> bool:
    written = json.loads(EXAMPLE[name])
    expected, found = split(f"{OPEN}{EXAMPLE[name]}{CLOSE}")[1], split(form.call(name, written["arguments"]))[1]
    return isinstance(expected, ToolCall) and not isinstance(found, Malformed) and found == expected


def _source(folder: Path) -> str | None:
    try:
        if (path := folder / "chat_template.jinja").is_file():
            return path.read_text(encoding="utf-8")
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    if isinstance(found, list):  # several, by name
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("tool_use")
    return found if isinstance(found, str) else None


def _renderer(source: str) -> Callable[..., str]:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, indent=how.get("indent"))

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: ""
    template = environment.from_string(source)

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        return template.render(messages=messages, tools=tools, add_generation_prompt=False)

    return render
