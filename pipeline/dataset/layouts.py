"""A data set in the form that a trainer reads, each layout one function from a problem to a row.

    qa        question, answer: the bare two columns
    trl       prompt (messages), solution (what `trl.rewards.accuracy_reward` compares), answer_kind, checks
    verl      data_source, prompt (messages), ability, reward_model {style, ground_truth}, extra_info {split, index}
    openrlhf  input (messages), label; read with --input_key input --label_key label --apply_chat_template
    prime-rl  question, answer, info (a JSON text), task: a data set of the package `verifiers`

Invariant: all layouts have the same rows in the same order, and none holds anything but the problem and how to answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.dataset import card
from pipeline.dataset.folder import write_shards
from pipeline.records import AnswerKind, Failure, Problem
from pipeline.store.files import replace
from pipeline.store.manifest import seal_folder

ASK: dict[AnswerKind, str] = {
    "math": r"Reason step by step, and put your final answer within \boxed{}.",
    "choice": r"Reason step by step, and put the letter or word of your choice within \boxed{}.",
    "text": r"Reason step by step, and put your final answer within \boxed{}.",
    "code": "Reason step by step, and end with the whole program in a ```python block.",
}
"""What stands below a question where a layout holds prompts."""
TASK = "agentic-proposing"

_TEXT = pa.string()
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_CHECKS = pa.list_(_TEXT)


def _messages(problem: Problem) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{problem.question}\n\n{ASK[problem.answer_kind]}"}]


def _truth(problem: Problem) -> str:
    """What a reward compares with: the answer, or the tests of a program as a JSON list."""
    return f"[{', '.join(problem.checks)}]" if problem.checks else problem.answer


def _qa(problem: Problem, index: int) -> dict[str, Any]:
    return {"question": problem.question, "answer": problem.answer}


def _trl(problem: Problem, index: int) -> dict[str, Any]:
    boxed = f"\\boxed{{{problem.answer}}}" if problem.answer_kind == "math" else problem.answer
    return {
        "prompt": _messages(problem), "solution": boxed, "answer_kind": problem.answer_kind,
        "checks": list(problem.checks),
    }  # fmt: skip


def _verl(problem: Problem, index: int) -> dict[str, Any]:
    return {
        "data_source": f"{TASK}/{problem.answer_kind}",
        "prompt": _messages(problem),
        "ability": problem.answer_kind if problem.answer_kind in ("math", "code") else "reasoning",
        "reward_model": {"style": "rule", "ground_truth": _truth(problem)},
        "extra_info": {"split": "train", "index": index},
    }


def _openrlhf(problem: Problem, index: int) -> dict[str, Any]:
    return {"input": _messages(problem), "label": _truth(problem)}


def _prime(problem: Problem, index: int) -> dict[str, Any]:
    info = {"answer_kind": problem.answer_kind, "checks": [json.loads(check) for check in problem.checks]}
    asked = f"{problem.question}\n\n{ASK[problem.answer_kind]}"
    return {"question": asked, "answer": problem.answer, "info": json.dumps(info, ensure_ascii=False), "task": TASK}


Row = Callable[[Problem, int], dict[str, Any]]
LAYOUTS: dict[str, tuple[Row, pa.Schema]] = {
    "qa": (_qa, pa.schema([("question", _TEXT), ("answer", _TEXT)])),
    "trl": (
        _trl,
        pa.schema([("prompt", _MESSAGES), ("solution", _TEXT), ("answer_kind", _TEXT), ("checks", _CHECKS)]),
    ),
    "verl": (
        _verl,
        pa.schema(
            [
                ("data_source", _TEXT),
                ("prompt", _MESSAGES),
                ("ability", _TEXT),
                ("reward_model", pa.struct([("style", _TEXT), ("ground_truth", _TEXT)])),
                ("extra_info", pa.struct([("split", _TEXT), ("index", pa.int64())])),
            ]
        ),
    ),
    "openrlhf": (_openrlhf, pa.schema([("input", _MESSAGES), ("label", _TEXT)])),
    "prime-rl": (
        _prime,
        pa.schema([("question", _TEXT), ("answer", _TEXT), ("info", _TEXT), ("task", _TEXT)]),
    ),
}
"""Name -> (row of a problem, schema). A new layout is one function and one entry."""


def write(layout: str, rows: Sequence[Problem], out: Path, license: str | None, name: str) -> list[str]:
    """Write a data set in a layout into a folder that is new or empty; returns its files.

    Raises Failure for a folder that holds something, and where `qa` has no place for the tests of a program.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{out}: holds something; expected a folder that is new or empty")
    if layout == "qa" and (programs := sum(p.answer_kind == "code" for p in rows)):
        raise Failure(f"layout qa: {programs} answers are programs, and it has no column for tests; expected trl, "
                      "verl, openrlhf or prime-rl")  # fmt: skip
    row, schema = LAYOUTS[layout]
    table = pa.Table.from_pylist([row(p, i) for i, p in enumerate(rows)], schema=schema)
    shards = write_shards(out, table)
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in table.to_pylist())
    replace(out / "train.jsonl", "".join(lines))
    about = card.About(f"{name} ({layout})", len(rows), license)
    replace(out / "README.md", card.text(about, shards, None))
    names = ["README.md", "train.jsonl", *shards]
    seal_folder(out, "dataset", names, problems=len(rows), layout=layout)
    return sorted([*names, "manifest.json"])
