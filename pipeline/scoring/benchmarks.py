"""Benchmarks by preset: the rows of a file in its publisher's schema, as rows of ours.

Invariant: a row is read as the preset's fields say, or is an error that names file, row and field; what a preset leaves
out is counted by why.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.benchmarks import PresetConfig
from pipeline.domains import hub_data
from pipeline.domains.base import Domain
from pipeline.records import Failure
from pipeline.scoring import problems
from pipeline.scoring.benchmark_rows import BadRow, question_of, read_row
from pipeline.scoring.human_eval import calls

Row = dict[str, Any]
_LONGEST_FIELD = 16 << 20


@dataclass
class Read:
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def files(domain: Domain, name: str, preset: PresetConfig | None) -> list[Path]:
    """The files of a benchmark: one here, one that the domain bundles, or those of a data set on the Hub, which are
    downloaded. Raises Failure."""
    data = on_the_hub(domain, name, preset)
    return hub_data.download(data) if data is not None else [domain.resolve(name)]


def on_the_hub(domain: Domain, name: str, preset: PresetConfig | None) -> hub_data.Data | None:
    """The data set on the Hub that a benchmark is; None for one that lies here."""
    if name in domain.bundled or os.path.lexists(name):
        return None
    # Of its publisher's data set, at any revision, the files are those that the preset says.
    own = preset if preset is not None and name.partition(":")[0].partition("@")[0] == preset.data else None
    return hub_data.named(name, own.files if own else None, own.split if own else "test")


def read(files: Path | Sequence[Path], preset: PresetConfig | None, limit: int | None = None, seed: int = 0) -> Read:
    """The first `limit` rows (all without one); the seed orders choices. Without a preset fields are read by the names
    that many publishers use. Raises Failure."""
    paths = [files] if isinstance(files, Path) else files
    found = Read()
    for path in paths:
        if preset is None and path.suffix not in hub_data.FORMATS:
            found.rows += problems.read(path, None if limit is None else limit - len(found.rows), seed)
            continue
        for where, given in _given(path):
            if len(found.rows) == limit:
                return found
            try:
                row = row_of(given, preset, seed) if preset is not None else read_row(given, seed)
            except BadRow as e:
                told = f" (preset of {preset.data})" if preset is not None else ""
                raise Failure(f"{where}: {e}{told}") from None
            if isinstance(row, str):
                found.left_out[row] += 1
            else:
                found.rows.append(row)
    if not found.rows:
        of = f" that the preset of {preset.data} keeps" if preset is not None else ""
        raise Failure(f"benchmark {paths[0]}: holds no row{of}")
    return found


def questions(files: Sequence[Path], preset: PresetConfig | None) -> list[str]:
    """The questions of all rows, as they stand there: those too that are not asked. Raises Failure."""
    found = []
    for path in files:
        for where, given in _given(path):
            try:
                text = question_of(given) if preset is None else _field(given, preset.fields["question"])
            except BadRow as e:
                raise Failure(f"{where}: {e}") from None
            found.append(str(text))
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
    """(where, row) of a file of one of the formats."""
    try:
        if (rows := _table(path)) is not None:
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise Failure(f"{path}, row {number}: {type(row).__name__}; expected an object")
                yield f"{path}, row {number}", row
            return
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise Failure(f"{path}:{number}: {type(row).__name__}; expected an object")
                yield f"{path}:{number}", row
    except (OSError, UnicodeDecodeError, pa.ArrowException, csv.Error, ValueError, RecursionError) as e:
        formats = ", ".join(hub_data.FORMATS)
        raise Failure(f"benchmark {path}: {str(e)[:120]}; expected a readable file, one of {formats}") from None


def _table(path: Path) -> list[Any] | None:
    """The rows of a file that is read as a whole; None of one that has a row a line."""
    match path.suffix:
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".arrow":  # as `datasets` saves them
            with pa.ipc.open_stream(path.read_bytes()) as stream:
                return stream.read_all().to_pylist()
        case ".csv":
            csv.field_size_limit(_LONGEST_FIELD)
            with path.open(encoding="utf-8-sig", newline="") as file:
                return list(csv.DictReader(file))
        case ".json":
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
            return rows if isinstance(rows, list) else [rows]
        case _:
            return None


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
