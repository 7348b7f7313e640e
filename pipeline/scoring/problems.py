"""Problems as rows of a JSONL file: the data set that a solver trains on, and the benchmark that it is measured on.

A row is `{question, answer, answer_kind}`, and where it has tests `{…, checks}`, each check an object
(actors/answers/code.py): what the kind of an answer is, is said once, and never guessed again from its text. A
benchmark's rows may say `category` and `steps`, by which the score is split, and may have the fields of other people's
(benchmark_rows.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actors.answers.code import read_checks
from pipeline.records import Failure, Problem
from pipeline.scoring.benchmark_rows import BadRow, read_row


def text(problems: Iterable[Problem]) -> str:
    """The content of a file that holds them."""
    return "".join(json.dumps(row(problem), ensure_ascii=False) + "\n" for problem in problems)


def row(problem: Problem) -> dict[str, Any]:
    """What `of_row` is the inverse of."""
    said = {"question": problem.question, "answer": problem.answer, "answer_kind": problem.answer_kind}
    return {**said, "checks": [json.loads(check) for check in problem.checks]} if problem.checks else said


def of_row(row: dict[str, Any]) -> Problem:
    """The problem of a row that `read` gave."""
    checks = [json.dumps(check) for check in row.get("checks", [])]
    return Problem.make(
        row["question"], row["answer"], row.get("answer_kind") or ("code" if checks else "math"), checks
    )


def read(path: Path, limit: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The first `limit` rows (all without one); the seed orders the choices of those that have some.

    Raises Failure naming the file, and the line of a row that is none.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"problems {path}: {e}; expected a readable JSONL file") from None
    for number, line in enumerate(lines, start=1):
        if len(rows) == limit:
            break
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            rows.append(read_row(json.loads(line), seed))
        except BadRow as e:
            raise Failure(f"{where}: {e}") from None
        except (ValueError, RecursionError):
            raise Failure(f'{where}: not JSON; expected {{"question": …, "answer": …}}') from None
        if "checks" in rows[-1] or rows[-1].get("answer_kind") == "code":
            _try_checks(where, rows[-1].get("checks"))
    if not rows:
        raise Failure(f"problems {path}: holds no problem")
    return rows


def solutions(path: Path, seed: int = 0) -> dict[str, str]:
    """Problem id -> what the column `solution` of its row says, of the rows that have one. Raises Failure as `read`."""
    read(path, seed=seed)  # every line is a row
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        given = {str(name).strip().lower(): value for name, value in (json.loads(line) if line.strip() else {}).items()}
        solution = given.get("solution")
        if solution is None or (isinstance(solution, str) and not solution.strip()):
            continue
        if not isinstance(solution, str):
            raise Failure(f"{path}:{number}: solution is {type(solution).__name__}; expected text")
        found[of_row(read_row(given, seed)).id] = solution
    return found


def _try_checks(where: str, checks: Any) -> None:
    if not isinstance(checks, list) or not checks:
        raise Failure(f"{where}: checks {json.dumps(checks)[:80]}; expected a list of objects, the tests of a program")
    try:
        read_checks([json.dumps(check) for check in checks])
    except Failure as e:
        raise Failure(f"{where}: {e}") from None
