"""What a proposer and a solver are told, and how their turns are read: ChatML (Qwen3), Hermes tool calls, prompts.

Invariant: text that a model, a tool or a corpus wrote can never become a control token. Roles are framed by token
ids; content is encoded with `<|im_start|>`, `<|im_end|>` and their like as plain characters. Nothing here is sampled
or re-tokenised: a sampled turn stays as it is, `encode_reply` only adds to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from actors import prompts
from actors.templates import own_form
from actors.tool_calls import OPEN, Malformed, ToolCall, shown, split, visible
from actors.wording import Bare, Teaching, Wording
from pipeline.config import EpisodeLimits
from pipeline.records import COGNITIVE_STAGES, CognitiveStage, Failure

Message = dict[str, str]
"""{"role": system | user | assistant, "content": text}."""

TOOL_SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "name": "exec",
        "description": "Run Python in this episode's sandbox, whose variables stay between calls. The scripts of the "
        "active skills are already defined. Returns what the code prints.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
    {
        "name": "edit",
        "description": "Change the set of active skills: drop those that conflict or add nothing, add others of those "
        "offered.",
        "parameters": {
            "type": "object",
            "properties": {
                "drop": {"type": "array", "items": {"type": "string"}},
                "add": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    {
        "name": "skill",
        "description": "Read the full method of an offered skill.",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    },
    {
        "name": "submit",
        "description": "Hand in the finished problem with its final answer. Ends the work.",
        "parameters": {
            "type": "object",
            "properties": {
                "question": {"type": "string"},
                "answer": {"type": "string"},
                "answer_kind": {"type": "string", "enum": ["math", "choice", "text", "code"]},
                "checks": {
                    "type": "array",
                    "description": 'For an answer that is a program, its tests: {"entry": "f", "args": [...], '
                    '"expected": value} or {"stdin": text, "stdout": text}.',
                    "items": {"type": "object"},
                },
            },
            "required": ["question", "answer"],
        },
    },
)


def system_prompt(model_dir: str | Path, default: str) -> str:
    """The prompt a model was made for: its `system_prompt.txt`, else `default`."""
    path = Path(model_dir) / "system_prompt.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else default


def solver_messages(question: str, system_prompt: str) -> list[Message]:
    """The one way a solver is asked, whoever asks: prober, verifier, its own training, evaluation."""
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]


def tool_schemas(limits: EpisodeLimits) -> list[dict[str, Any]]:
    """Of the tools that an agent has under these limits."""
    return [schema for schema in TOOL_SCHEMAS if schema["name"] in (*limits.tools, "submit")]


_OWN_FORM = """The tools, and how they are called, are described apart from this text; what a tool says comes back \
between <tool_response> and </tool_response>."""


def _hermes_form(schemas: Sequence[dict[str, Any]]) -> str:
    listed = "\n".join(json.dumps(schema) for schema in schemas)
    return (
        f"A tool call is written as\n{shown(schemas[0]['name'])}\nand what the tool says comes back between "
        f"<tool_response> and </tool_response>. The tools, as JSON schemas:\n{listed}"
    )


# ---------------------------------------------------------------- tokens


class ChatFormat:
    """ChatML over the tokenizer of a model directory, with calls in the form that its chat template teaches."""

    def __init__(self, tokenizer_dir: str | Path):
        path = Path(tokenizer_dir) / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as e:  # tokenizers raises plain Exception for a missing and for a broken file
            raise Failure(f"tokenizer {path}: {e}; expected a Hugging Face tokenizer.json") from None
        self._tokenizer.encode_special_tokens = True
        self._start = self._control("<|im_start|>", path)
        self.eos_id = self._control("<|im_end|>", path)
        end_of_text = self._tokenizer.token_to_id("<|endoftext|>")
        self.stop_ids = [self.eos_id] if end_of_text is None else [self.eos_id, end_of_text]
        """Tokens that end a sampled turn."""
        self._newline = self.encode_text("\n")
        self._generate = [self._start, *self.encode_text("assistant\n")]
        self._form = own_form(tokenizer_dir, TOOL_SCHEMAS)

    def wording(self, limits: EpisodeLimits) -> Wording:
        """How the environment speaks to this model."""
        return Teaching(self.example) if limits.teach else Bare()

    def written(self, text: str) -> str:
        """A text of ours, with the calls in it as this model writes them."""
        return self._form.rewritten(text) if self._form else text

    def example(self, tool: str) -> str:
        """A call of a tool as this model writes it."""
        return self.written(shown(tool))

    def system(self, prompt: str, limits: EpisodeLimits) -> str:
        """The system message of an episode. A prompt with a place for the tools gets them, as the model's own template
        shows them where it does; one without is for a model that knows them."""
        if "tools" not in prompts.places(prompt):
            return prompt
        schemas = tool_schemas(limits)
        form = self._form.of_tools(schemas) if self._form else None
        filled = prompts.fill(
            self.written(prompt),
            tools=_OWN_FORM if form else _hermes_form(schemas),
            max_turns=str(limits.max_turns),
            max_tool_calls=str(limits.max_tool_calls),
            max_turn_tokens=str(limits.max_turn_tokens),
        )
        return form.system(filled) if form else filled

    def _control(self, token: str, path: Path) -> int:
        for token_id, added in self._tokenizer.get_added_tokens_decoder().items():
            if added.content == token and added.special:
                return token_id
        raise Failure(f"tokenizer {path}: no special token {token}; expected the tokenizer of a ChatML model")

    def encode_text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation, open for an assistant turn."""
        return [i for m in messages for i in self._framed(m["role"], m["content"])] + self._generate

    def encode_reply(self, role: str, text: str, *, closed: bool) -> list[int]:
        """What follows a sampled turn: its end (`closed`: the sample brought its own `<|im_end|>`), a message, and the
        start of the next assistant turn."""
        end = [] if closed else [self.eos_id]
        return [*end, *self._newline, *self._framed(role, text), *self._generate]

    def decode(self, ids: Sequence[int]) -> str:
        """Text without control tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _framed(self, role: str, content: str) -> list[int]:
        return [self._start, *self.encode_text(f"{role}\n{content}"), self.eos_id, *self._newline]


# ---------------------------------------------------------------- reading a turn

_STAGE = r"(?P<{}>draft|check|refine|finali[sz]e)\b"
_NAMES_STAGE = r"(?:(?:current[ \t]+)?stage[ \t]*\d?[:\-–#*_ \t]*)"
_HEADER = re.compile(
    # "## Check: …", "## 2. Check", "**Check**", "Stage: check": marked, so that the stage's name may stand before
    # anything
    rf"(?:[#>*_`][#>*_` \t]*(?:\d[.)][ \t]*)?{_NAMES_STAGE}?|{_NAMES_STAGE}){_STAGE.format('marked')}[*_` \t:.]*"
    # "Check: …", "Check": plain, so that a sentence may begin with the same word
    rf"|{_STAGE.format('plain')}(?:[ \t]*:+[ \t.]*|[ \t.]*(?:\n|\Z))",
    re.IGNORECASE,
)
_LATER_HEADER = re.compile(
    rf"^[ \t]*#+[ \t]*{_NAMES_STAGE}?{_STAGE.format('marked')}[*_ \t:.]*", re.IGNORECASE | re.MULTILINE
)


def parse_turn(text: str) -> tuple[CognitiveStage | None, str, ToolCall | Malformed | None]:
    """(stage named in the header, free text, tool call) of an assistant turn. Never raises: text is data."""
    text = visible(text).strip()
    stage: CognitiveStage | None = None
    if header := _HEADER.match(text) or _LATER_HEADER.search(text.partition(OPEN)[0]):
        name = next(filter(None, header.groups())).lower().replace("finalise", "finalize")
        stage = next(s for s in COGNITIVE_STAGES if s == name)
        text = f"{text[: header.start()]}{text[header.end() :]}"
    return (stage, *split(text))
