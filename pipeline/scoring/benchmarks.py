"""Benchmarks by preset: the rows of a file in its publisher's schema, as rows of ours.

Invariant: a row is read as the preset's fields say, or is an error that names file, row and field; what a preset leaves
out is counted by why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.benchmarks import PresetConfig
from pipeline.records import Failure
from pipeline.scoring import problems
from pipeline.scoring.benchmark_rows import BadRow, read_row
from pipeline.scoring.human_eval import calls

Row = dict[str, Any]


@dataclass
class Read:
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read(path: Path, preset: PresetConfig | None, limit: int | None = None, seed: int = 0) -> Read:
    """The first `limit` rows (all without one); the seed orders choices. Without a preset fields are read by the names
    that many publishers use. Raises Failure."""
    if preset is None:
        return Read(problems.read(path, limit, seed))
    found = Read()
    for where, given in _given(path):
        if len(found.rows) == limit:
            break
        try:
            row = row_of(given, preset, seed)
        except BadRow as e:
            raise Failure(f"{where}: {e} (preset of {preset.data})") from None
        if isinstance(row, str):
            found.left_out[row] += 1
        else:
            found.rows.append(row)
    if not found.rows:
        raise Failure(f"benchmark {path}: holds no row that the preset of {preset.data} keeps")
    return found


def row_of(given: Mapping[str, Any], preset: PresetConfig, seed: int) -> Row | str:
    """The row as ours, or why it is left out. Raises BadRow."""
    for name, values in preset.keep.items():
        if str(_field(given, name)) not in values:
            return f"{name} {given[name]}"
    kind = preset.kind
    if preset.kinds is not None:
        said = str(_field(given, preset.kinds.by))
        kind = preset.kinds.of.get(said)
        if kind is None:
            return f"{preset.kinds.by} {said}"
    picked = {ours: _field(given, theirs) for ours, theirs in preset.fields.items()}
    if preset.reader == "human_eval":
        checks = calls(str(picked.pop("test")), str(picked.pop("entry")))
        if checks is None:
            return "tests that are no plain calls"
        program = f"{picked['question']}{picked.pop('answer')}"
        picked["question"] = f"Complete this function.\n\n```python\n{str(picked['question']).rstrip()}\n```"
        picked |= {"answer": program, "answer_kind": "code", "checks": checks}
    row = read_row(picked, seed)
    return row if kind is None else {**row, "answer_kind": kind}


def _field(given: Mapping[str, Any], name: str) -> Any:
    if name not in given:
        raise BadRow(f"no field {name}; expected the publisher's: {', '.join(sorted(given))[:120]} are there")
    return given[name]


def _given(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of a .parquet or .jsonl."""
    try:
        if path.suffix == ".parquet":
            for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
                yield f"{path}, row {number}", row
            return
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise Failure(f"{path}:{number}: {type(row).__name__}; expected an object")
                yield f"{path}:{number}", row
    except (OSError, UnicodeDecodeError, pa.ArrowException, ValueError, RecursionError) as e:
        raise Failure(f"benchmark {path}: {str(e)[:120]}; expected a readable .jsonl or .parquet") from None


def with_shots(rows: Sequence[Row], examples: Sequence[Row], shots: int, seed: int) -> list[Row]:
    """Rows whose questions have solved examples before them, drawn for each by the seed and its question; an example is
    never the question itself. Raises Failure where there are too few."""
    shown = []
    for row in rows:
        others = [e for e in examples if e["question"] != row["question"]]
        if len(others) < shots:
            raise Failure(f"evaluate.shots {shots}: {len(others)} examples that are not the question; expected as many")
        drawn = Random(f"{seed} {row['question']}").sample(others, shots)
        solved = "".join(f"Question: {e['question']}\nAnswer: \\boxed{{{e['answer']}}}\n\n" for e in drawn)
        shown.append({**row, "question": f"{solved}Question: {row['question']}" if shots else row["question"]})
    return shown
