"""The folder of a data set: training files, provenance beside them, a card, and a manifest of all.

    data/train-NNNNN-of-NNNNN.parquet   question, answer, answer_kind, and checks where an answer is a program
    problems.jsonl                      the same rows as JSON lines
    unsolved.jsonl                      valid problems that no prober solves above chance
    provenance.jsonl, .parquet          a row each, in the same order, keyed by `id` (a digest of the question)
    README.md                           the card, which tells `datasets.load_dataset` what to read
    manifest.json                       of all of them

Invariant: a data set is there whole or not at all. A training file holds the columns of `COLUMNS` and nothing else. The
same rows make the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import card
from pipeline.records import Failure, Problem
from pipeline.scoring import problems
from pipeline.scoring.benchmark_rows import BadRow, read_row
from pipeline.store.digests import files_below
from pipeline.store.files import replace, whole_folder
from pipeline.store.manifest import seal_folder

COLUMNS = ("question", "answer", "answer_kind", "checks")
"""Of a training file; checks only where some answer is a program."""
SHARD_ROWS = 100_000

Origin = Mapping[str, Any]
"""A row of provenance."""


def table(rows: Sequence[Problem]) -> pa.Table:
    """Problems as the table of a training file: each check is a JSON text, for checks expect values of any type."""
    columns: dict[str, Any] = {
        "question": pa.array([p.question for p in rows], pa.string()),
        "answer": pa.array([p.answer for p in rows], pa.string()),
        "answer_kind": pa.array([p.answer_kind for p in rows], pa.string()),
    }
    if any(p.checks for p in rows):
        columns["checks"] = pa.array([list(p.checks) for p in rows], pa.list_(pa.string()))
    return pa.table(columns)


def write_shards(folder: Path, table: pa.Table) -> list[str]:
    """Write a table as shards in data/, each whole or not at all; returns their names. An empty table is one shard."""
    count = max(1, -(-table.num_rows // SHARD_ROWS))
    names = [f"data/train-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    for i, name in enumerate(names):
        replace(folder / name, _parquet(table.slice(i * SHARD_ROWS, SHARD_ROWS)))
    return names


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def publish(
    folder: Path, rows: Sequence[Problem], unsolved: Sequence[Problem], origins: Sequence[Origin],
    about: card.About, **facts: Any,
) -> None:  # fmt: skip
    """Write a data set, whole or not at all, in the place of the one that is there; `facts` go into its manifest."""
    with whole_folder(folder, stays=lambda name: not fnmatch(name, "data/train-*.parquet")) as new:
        replace(new / "problems.jsonl", problems.text(rows))
        replace(new / "unsolved.jsonl", problems.text(unsolved))
        replace(new / "provenance.jsonl", "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in origins))
        replace(new / "provenance.parquet", _parquet(_origins(origins)))
        shards = write_shards(new, table(rows))
        replace(new / "README.md", card.text(about, shards, "provenance.parquet" if origins else None))
        seal_folder(new, "dataset", files_below(new), problems=len(rows), **facts)


def _origins(origins: Sequence[Origin]) -> pa.Table:
    """Provenance as a table. Votes are JSON texts, so that a schema does not depend on which votes were cast."""
    flat = [
        {**origin, "votes": [json.dumps(vote, ensure_ascii=False) for vote in origin["votes"]]} for origin in origins
    ]
    return pa.Table.from_pylist(flat)


# ---------------------------------------------------------------- reading


def rows_of(place: Path) -> list[dict[str, Any]]:
    """The rows of a data set, as problems.py reads them: of a run directory, of its dataset/ folder, of a folder of
    Parquet files, or of a single .jsonl or .parquet. Raises Failure naming what cannot be read."""
    file = training_files(place)
    if file[0].suffix != ".parquet":
        return [row for path in file for row in problems.read(path)]
    return [row for path in file for row in _of_parquet(path)]


def training_files(place: Path) -> list[Path]:
    """The files that a trainer would read: the Parquet shards, else problems.jsonl, else the only JSON lines."""
    if place.is_file():
        return [place]
    folder = place / "dataset" if (place / "config.yaml").is_file() else place
    for pattern in ("data/train-*.parquet", "*.parquet", "problems.jsonl", "*.jsonl"):
        found = sorted(p for p in folder.glob(pattern) if not p.name.startswith("provenance."))
        if found:
            return found
    raise Failure(f"{place}: no data set; expected a run directory, a folder with .parquet or .jsonl files, or a file")


def _of_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        given = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as e:
        raise Failure(f"{path}: not readable as Parquet ({str(e)[:120]})") from None
    rows = []
    for number, row in enumerate(given, start=1):
        row = {name: value for name, value in row.items() if value not in (None, [])}
        try:
            if "checks" in row and all(isinstance(check, str) for check in row["checks"]):
                row["checks"] = [json.loads(check) for check in row["checks"]]
            rows.append(read_row(row, 0))
        except BadRow as e:
            raise Failure(f"{path}, row {number}: {e}") from None
        except (ValueError, RecursionError):
            raise Failure(f"{path}, row {number}: a check is not JSON; expected an object, as a JSON text") from None
    return rows
