"""What a model said to every item of a benchmark, kept as Parquet: a row a sample.

Invariant: a row of the benchmark is an item. What is read is what was written, samples in order; a file that is none is
named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.answers.canonical import canonical
from actors.answers.code import called
from actors.answers.replies import extract_boxed, extract_program
from actors.answers.values import Judgement
from pipeline.records import Failure, Problem
from pipeline.scoring import problems
from pipeline.scoring.measures import Item

FILE = "items.parquet"
_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("question", _TEXT),
        ("answer", _TEXT),
        ("answer_kind", _TEXT),
        ("category", _TEXT),
        ("sample", pa.int32()),
        ("text", _TEXT),
        ("given", _TEXT),
        ("judged", _TEXT),
    ]
)
"""`given`: the sample's answer in its canonical form, the program of one that is a program; null: it gave none."""


def given(problem: Problem, text: str) -> str | None:
    """The answer of a sample, in the form that tells equal ones; None where it gave none."""
    if problem.answer_kind == "code":
        return extract_program(text, called(problem.checks))
    boxed = extract_boxed(text)
    if boxed is None:
        return None
    return canonical(problem.answer_kind, boxed) or boxed.strip()


def table(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[Sequence[str]], outcomes: Sequence[Sequence[Judgement]]
) -> pa.Table:
    lines = []
    seen: Counter[str] = Counter()
    for row, said, judged in zip(rows, texts, outcomes, strict=True):
        problem = problems.of_row(dict(row))
        times = seen[problem.id]  # a benchmark may ask one thing twice
        seen[problem.id] += 1
        about = {
            "id": f"{problem.id}-{times}" if times else problem.id,
            "question": problem.question,
            "answer": problem.answer,
            "answer_kind": problem.answer_kind,
            "category": row.get("category"),
        }
        lines += [
            {**about, "sample": i, "text": t, "given": given(problem, t), "judged": o}
            for i, (t, o) in enumerate(zip(said, judged, strict=True))
        ]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def write(path: Path, found: pa.Table) -> None:
    pq.write_table(found, path, compression="zstd")


def read(path: Path) -> pa.Table:
    """Raises Failure where the file is none of ours."""
    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowException) as e:
        raise Failure(f"{path}: not readable as Parquet ({str(e)[:120]}); expected {FILE} of an evaluation") from None
    if missing := [name for name in SCHEMA.names if name not in found.schema.names]:
        raise Failure(f"{path}: has no column {missing[0]}; expected {FILE} of an evaluation")
    return found


def items_of(found: pa.Table) -> dict[str, Item]:
    """id -> item, in the order of the rows."""
    judged: dict[str, list[Judgement]] = {}
    answers: dict[str, list[str | None]] = {}
    names = ("id", "judged", "given")
    for id, outcome, answer in zip(*(found.column(name).to_pylist() for name in names), strict=True):
        judged.setdefault(id, []).append(outcome)
        answers.setdefault(id, []).append(answer)
    return {id: Item(id, judged[id], answers[id]) for id in judged}
