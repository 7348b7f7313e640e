"""What a proposer and a solver are told, and how their turns are read: ChatML (Qwen3), Hermes tool calls, prompts.

Invariant: text that a model, a tool or a corpus wrote can never become a control token. Roles are framed by token
ids; content is encoded with `<|im_start|>`, `<|im_end|>` and their like as plain characters. Nothing here is sampled
or re-tokenised: a sampled turn stays as it is, `encode_reply` only adds to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from pipeline.records import COGNITIVE_STAGES, CognitiveStage, Failure, Skill

Message = dict[str, str]
"""{"role": system | user | assistant, "content": text}."""

ToolName = Literal["exec", "edit", "skill", "submit"]

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

DEFAULT_SYSTEM_PROMPT = f"""You write problems that test reasoning. You are given a category and a list of skills, \
each with what it asks of a solver. Combine the skills that fit together into one problem that is well posed, has \
exactly one correct answer, and is hard because the skills depend on each other, not because it is long or unclear.

You work in turns. Begin every turn with a line that names its stage, then think aloud, then make at most one tool call.
## Draft: compose the problem. Decide how the skills depend on each other.
## Check: verify it. Solve it by running code; look for conflicts, missing facts and a second answer.
## Refine: mend what the check found, or drop skills that do not fit. You may return to this stage at any time.
## Finalize: submit the question, complete and in final wording, with the answer that you verified.

A tool call is written as
<tool_call>
{{"name": "exec", "arguments": {{"code": "print(2 + 2)"}}}}
</tool_call>
and its result comes back between <tool_response> and </tool_response>. The tools, as JSON schemas:
{chr(10).join(json.dumps(schema) for schema in TOOL_SCHEMAS)}

The question must not contain its answer or mention skills, tools or these instructions. Calls are limited; submit \
once a check has confirmed the answer."""

DEFAULT_SOLVER_PROMPT = r"Solve step by step; put the final answer in \boxed{}."


def system_prompt(model_dir: str | Path, default: str) -> str:
    """The prompt a model was made for: its `system_prompt.txt`, else `default`."""
    path = Path(model_dir) / "system_prompt.txt"
    return path.read_text().strip() if path.is_file() else default


def solver_messages(question: str, system_prompt: str) -> list[Message]:
    """The one way a solver is asked, whoever asks: prober, verifier, its own training, evaluation."""
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]


def task_messages(category: str, skills: Sequence[Skill], system_prompt: str) -> list[Message]:
    """The start of an episode: skills are shown by id and intent only."""
    listed = "".join(f"- {s.id}: {s.intent}\n" for s in skills)
    offer = f"Skills:\n{listed}" if skills else ""
    user = f"Category: {category}\n{offer}Stage: draft"
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": user}]


def env_message(next_stage: CognitiveStage, tool_response: str | None = None) -> str:
    """The environment's answer to a turn."""
    stage = f"Stage: {next_stage}"
    return stage if tool_response is None else f"<tool_response>\n{tool_response}\n</tool_response>\n{stage}"


# ---------------------------------------------------------------- tokens


class ChatFormat:
    """ChatML over the tokenizer of a model directory."""

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


@dataclass(frozen=True)
class ToolCall:
    name: ToolName
    arguments: dict[str, Any]
    """Validated against the tool's schema."""


@dataclass(frozen=True)
class Malformed:
    """A tool call that could not be read."""

    message: str
    """What was wrong and what a good call looks like; shown to the agent."""


EXAMPLE: dict[str, str] = {
    "exec": '{"name": "exec", "arguments": {"code": "print(1 + 1)"}}',
    "edit": '{"name": "edit", "arguments": {"drop": ["skill_id"], "add": []}}',
    "skill": '{"name": "skill", "arguments": {"id": "skill_id"}}',
    "submit": '{"name": "submit", "arguments": {"question": "...", "answer": "..."}}',
}

_HEADER = re.compile(r"##\s*(draft|check|refine|finalize)\b[ \t:.]*(?:\n|$)", re.IGNORECASE)
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
ANSWER_KINDS = ("math", "choice", "text", "code")


def parse_turn(text: str) -> tuple[CognitiveStage | None, str, ToolCall | Malformed | None]:
    """(stage named in the header, free text, tool call) of an assistant turn. Never raises: text is data."""
    if "</think>" in text:  # a reasoning model's private part says nothing to the environment
        text = text.rpartition("</think>")[2]
    text = text.strip()
    stage = None
    if header := _HEADER.match(text):
        stage = next(s for s in COGNITIVE_STAGES if s == header[1].lower())
        text = text[header.end() :]
    before, opened, rest = text.partition(_OPEN)
    if not opened:
        return stage, text.strip(), None
    inside, closed, after = rest.partition(_CLOSE)
    body = f"{before.strip()}\n{after.strip()}".strip()
    if not closed:
        return stage, before.strip(), _bad(f"{_OPEN} without {_CLOSE}", "exec")
    if _OPEN in after:
        return stage, before.strip(), _bad("more than one tool call in a turn", "exec")
    return stage, body, _read_call(inside)


def _read_call(text: str) -> ToolCall | Malformed:
    try:
        call = json.loads(text)
        json.dumps(call, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except UnicodeEncodeError:
        return _bad("not text (half of a surrogate pair)", "exec")
    except (ValueError, RecursionError) as e:
        return _bad(f"not JSON ({e.msg if isinstance(e, json.JSONDecodeError) else 'nested too deep'})", "exec")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return _bad('no object with "name" and "arguments"', "exec")
    name, arguments = call["name"], call.get("arguments")
    if name not in EXAMPLE:
        return _bad(f"no tool {name[:40]!r}; tools are {', '.join(EXAMPLE)}", "exec")
    if not isinstance(arguments, dict):
        return _bad('"arguments" is no object', name)
    read = {"exec": _exec, "edit": _edit, "skill": _skill, "submit": _submit}[name](arguments)
    return _bad(read, name) if isinstance(read, str) else ToolCall(name, read)


def _bad(what: str, example: str) -> Malformed:
    return Malformed(f"Malformed call: {what}. Example: {_OPEN}\n{EXAMPLE[example]}\n{_CLOSE}")


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
