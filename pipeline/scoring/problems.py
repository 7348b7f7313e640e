"""Problems as rows of a JSONL file: the data set that a solver trains on, and the benchmark that it is measured on.

A row is `{question, answer, answer_kind}`, and where the answer is a program its tests too: `checks`, each an object
(actors/answers/code.py). Without them nothing could tell whether a solver's program is right. The kind (math, choice,
text, code) says how answers are compared, and is never guessed from the text of one: a row without it is of kind code
if it has checks, else math. A benchmark's rows may say `category` and `steps`, by which the score is split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from actors.answers.code import read_checks
from pipeline.records import AnswerKind, Failure, Problem


def text(problems: Iterable[Problem]) -> str:
    """The content of a file that holds them."""
    return "".join(json.dumps(_row(problem), ensure_ascii=False) + "\n" for problem in problems)


def _row(problem: Problem) -> dict[str, Any]:
    row = {"question": problem.question, "answer": problem.answer, "answer_kind": problem.answer_kind}
    if problem.answer_kind != "code":
        return row
    return {**row, "checks": [json.loads(check) for check in problem.checks]}


def of_row(row: dict[str, Any]) -> Problem:
    """The problem of a row that `read` gave."""
    checks = [json.dumps(check) for check in row.get("checks", [])]
    kind: AnswerKind = row.get("answer_kind", "code" if checks else "math")
    return Problem.make(row["question"], row["answer"], kind, checks)


def read(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The first `limit` rows (all without one), with whatever else they say.

    Raises Failure naming the file, and the line of a row that is none.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"problems {path}: {e}; expected a readable JSONL file") from None
    for number, line in enumerate(lines, start=1):
        if len(rows) == limit:
            break
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "question": _text(row["question"]), "answer": _text(row["answer"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Failure(f'{path}:{number}: expected {{"question": …, "answer": …}}') from None
        if "answer_kind" in row and row["answer_kind"] not in get_args(AnswerKind):
            kinds = ", ".join(get_args(AnswerKind))
            raise Failure(f"{path}:{number}: answer_kind {row['answer_kind']!r}; expected one of {kinds}")
        if "checks" in row or row.get("answer_kind") == "code":
            _try_checks(f"{path}:{number}", row.get("checks", []))
    if not rows:
        raise Failure(f"problems {path}: holds no problem")
    return rows


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError
    return str(value)


def _try_checks(where: str, checks: object) -> None:
    if not isinstance(checks, list) or not checks:
        raise Failure(f"{where}: checks {json.dumps(checks)[:80]}; expected a list of objects, the tests of a program")
    try:
        read_checks([json.dumps(check) for check in checks])
    except Failure as e:
        raise Failure(f"{where}: {e}") from None
