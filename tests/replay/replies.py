"""Replies in the habits of many models, and what a careful person reads in each.

`python -m tests.replay.replies` prints what share of them the parsers read.

A data file holds replies to one prompt: `=== habit | {what is read}`, then the reply as it came. Most are written by
hand after what these models are known to do; those marked "recorded" are a model's own.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.answers.replies import extract_boxed, extract_program
from actors.chat import parse_turn
from actors.reflection import ReflectionJudge
from actors.tool_calls import Malformed, ToolCall
from actors.verifiers.text import review
from pipeline import config
from pipeline.records import ToolResult, Turn
from pipeline.skills import replies
from tests.pipeline.judged import episode

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reply:
    prompt: str
    habit: str
    expected: dict[str, Any]
    text: str


def recorded(prompt: str) -> Iterator[Reply]:
    for entry in (HERE / f"{prompt}.txt").read_text(encoding="utf-8").split("=== ")[1:]:
        head, _, text = entry.partition("\n")
        habit, _, expected = head.partition(" | ")
        yield Reply(prompt, habit, json.loads(expected), text.removesuffix("\n"))


def _turn(text: str) -> dict[str, Any]:
    stage, _, call = parse_turn(text)
    if isinstance(call, Malformed):
        return {"stage": stage, "malformed": True}
    return {"stage": stage} | ({"call": call.name, **call.arguments} if isinstance(call, ToolCall) else {})


def _extraction(text: str) -> dict[str, Any]:
    reading = replies.read(text, "replay")
    return {
        "skills": [skill.id for skill in reading.skills],
        "methods": [skill.method for skill in reading.skills],
        "scripts": [skill.script for skill in reading.skills],
        "none": not reading.skills and not reading.faults,
    }


def _solution(text: str) -> dict[str, Any]:
    return {"answer": extract_boxed(text)}


def _program(text: str) -> dict[str, Any]:
    program = extract_program(text, ("solve",), bare=True)
    body = ast.parse(program).body if program else []
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return {"defines": defined[0] if defined else None, "program": program}


class _Client:
    def __init__(self, text: str):
        self._text = text

    async def complete(self, *_: Any, **__: Any) -> str:
        return self._text


def _reflection(text: str) -> dict[str, Any]:
    """Of turns 2 and 3, both thoughts, those that are paid."""
    failed = ToolResult(tool="exec", status="error", content="ValueError: 2 does not divide 7")
    turns = [
        Turn(stage="draft", action="think", start=0, end=1, text="Mia shares 7 among 2."),
        Turn(stage="check", action="exec", start=1, end=2, text="share(7, 2)", tool=failed),
        Turn(stage="refine", action="think", start=2, end=3, text="2 does not divide 7, so let it be 8."),
        Turn(stage="refine", action="think", start=3, end=4, text="This is a great problem."),
    ]
    judge = ReflectionJudge(config.ReflectionJudgeConfig(base_url="http://localhost:1/v1", model="m"))
    judge._client = _Client(text)  # type: ignore[assignment]
    credit = asyncio.run(judge.credit(episode().model_copy(update={"turns": tuple(turns)})))
    return {"coherent": [i for i, paid in enumerate(credit) if paid]}


def _review(text: str) -> dict[str, Any]:
    found = review.read(text)
    if found is None:
        return {"none": True}
    return {"valid": found.valid, "flags": sorted(found.flags), "used": list(found.used_skills or ())}


PARSERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "turns": _turn,
    "extractions": _extraction,
    "solutions": _solution,
    "programs": _program,
    "reflections": _reflection,
    "reviews": _review,
}


def is_read(reply: Reply) -> bool:
    """Whether the parser takes from it what a careful person does, and no call, good or bad, where there is none."""
    found = PARSERS[reply.prompt](reply.text)
    extra = {"call", "malformed"} & found.keys() - reply.expected.keys()
    return not extra and all(found.get(name) == value for name, value in reply.expected.items())


def main() -> None:
    print("| prompt | replies | read | not read |\n|---|---|---|---|")
    total = good = 0
    for prompt in PARSERS:
        found = [(reply.habit, is_read(reply)) for reply in recorded(prompt)]
        missed = [habit for habit, read in found if not read]
        total, good = total + len(found), good + len(found) - len(missed)
        print(f"| {prompt} | {len(found)} | {1 - len(missed) / len(found):.0%} | {'; '.join(missed)} |")
    print(f"| all | {total} | {good / total:.0%} | |")


if __name__ == "__main__":
    main()
