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
CHANGED_FILE = "changed.parquet"
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
        ("truncated", pa.bool_()),
    ]
)
"""`given`: the sample's answer in its canonical form, the program of one that is a program; null: it gave none.
`truncated`: cut off at the limit of tokens; null: not known, of files that earlier versions wrote."""
CHANGED = pa.schema(
    [("against", _TEXT), ("id", _TEXT), ("question", _TEXT), ("before", pa.float64()), ("after", pa.float64())]
)
"""Items that a model answers otherwise than another: the shares of right samples of the other and its own."""


def given(problem: Problem, text: str) -> str | None:
    """The answer of a sample, in the form that tells equal ones; None where it gave none."""
    if problem.answer_kind == "code":
        return extract_program(text, called(problem.checks))
    boxed = extract_boxed(text)
    if boxed is None:
        return None
    return canonical(problem.answer_kind, boxed) or boxed.strip()


def table(
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[Sequence[str]],
    outcomes: Sequence[Sequence[Judgement]],
    truncated: Sequence[Sequence[bool | None]] | None = None,
) -> pa.Table:
    cut = truncated or [[None] * len(said) for said in texts]
    lines = []
    seen: Counter[str] = Counter()
    for row, said, judged, ends in zip(rows, texts, outcomes, cut, strict=True):
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
            {**about, "sample": i, "text": t, "given": given(problem, t), "judged": o, "truncated": c}
            for i, (t, o, c) in enumerate(zip(said, judged, ends, strict=True))
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
    if "truncated" not in found.schema.names:
        found = found.append_column(SCHEMA.field("truncated"), pa.nulls(len(found), pa.bool_()))
    if missing := [name for name in SCHEMA.names if name not in found.schema.names]:
        raise Failure(f"{path}: has no column {missing[0]}; expected {FILE} of an evaluation")
    return found


def items_of(found: pa.Table) -> dict[str, Item]:
    """id -> item, in the order of the rows."""
    judged: dict[str, list[Judgement]] = {}
    answers: dict[str, list[str | None]] = {}
    ends: dict[str, list[bool | None]] = {}
    names = ("id", "judged", "given", "truncated")
    for id, outcome, answer, cut in zip(*(found.column(name).to_pylist() for name in names), strict=True):
        judged.setdefault(id, []).append(outcome)
        answers.setdefault(id, []).append(answer)
        ends.setdefault(id, []).append(cut)
    return {id: Item(id, judged[id], answers[id], ends[id]) for id in judged}


def changed(found: Mapping[str, Any], against: pa.Table, name: str) -> pa.Table:
    """What `measures.compare` found changed, with the questions; `against` are the items of the model `name`."""
    asked = dict(zip(*(against.column(column).to_pylist() for column in ("id", "question")), strict=True))
    rows = [
        {"against": name, "id": item["id"], "question": asked[item["id"]], "before": item["a"], "after": item["b"]}
        for item in found["changed"]
    ]
    return pa.Table.from_pylist(rows, schema=CHANGED)
