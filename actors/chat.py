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

from actors.tool_calls import OPEN, Malformed, ToolCall, split, visible
from pipeline.records import COGNITIVE_STAGES, CognitiveStage, Failure, Skill

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

DEFAULT_SYSTEM_PROMPT = f"""You write problems that test reasoning. You are given a category and a list of skills, \
each with what it asks of a solver. Combine the skills that fit together into one problem that is well posed, has \
exactly one correct answer, and is hard because the skills depend on each other, not because it is long or unclear.

You work in turns. Begin every turn with a line that names its stage, written as below ("Stage: check" asks for a turn \
that begins with "## Check"), then think aloud, then make at most one tool call.
## Draft: compose the problem. Decide how the skills depend on each other.
## Check: verify it. Solve it by running code; look for conflicts, missing facts and a second answer.
## Refine: mend what the check found, or drop skills that do not fit. You may return to this stage at any time.
## Finalize: submit the question, complete and in final wording, with the answer that you verified.

A tool call is written as
<tool_call>
{{"name": "exec", "arguments": {{"code": "print(2 + 2)"}}}}
</tool_call>
and its result comes back between <tool_response> and </tool_response>. A call is JSON, \
in which a backslash is written twice and a line break as \\n:
<tool_call>
{{"name": "submit", "arguments": {{"question": "Simplify $\\\\frac{{6}}{{4}} \\\\times 5$.", "answer": "7.5"}}}}
</tool_call>
The tools, as JSON schemas:
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

_STAGE = r"(?P<{}>draft|check|refine|finali[sz]e)\b"
_NAMES_STAGE = r"(?:stage[:\-–*_ \t]*)"
_HEADER = re.compile(
    # "## Check: …", "**Check**", "Stage: check": marked, so that the stage's name may stand before anything
    rf"(?:[#>*_][#>*_ \t]*{_NAMES_STAGE}?|{_NAMES_STAGE}){_STAGE.format('marked')}[*_ \t:.]*"
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
