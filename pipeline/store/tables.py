"""Records as Parquet: one class of record a file, and what is said of an episode's attempt under the key of that.

Invariant: what is read is what was written (`manifest`), and a row belongs to the attempt that its key names, whatever
the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.records import Record
from pipeline.store.manifest import Damage, brief, verified

R = TypeVar("R", bound=Record)

Key = tuple[str, int]
"""(episode id, attempt)."""

KEY = ("episode_id", "attempt")
"""The columns that hold it."""


def write_records(path: Path, records: Iterable[Record], of: type[Record]) -> None:
    """Records -> one Parquet file with the schema of their class."""
    pq.write_table(pa.Table.from_batches([of.to_arrow(records)]), path, compression="zstd")


def write_keyed(path: Path, records: Mapping[Key, Record], of: type[Record]) -> None:
    """The same, with the attempt that each record is of."""
    table = pa.Table.from_batches([of.to_arrow(records.values())])
    names, attempts = [name for name, _ in records], [attempt for _, attempt in records]
    table = table.add_column(0, pa.field(KEY[0], pa.string(), False), [pa.array(names, pa.string())])
    table = table.add_column(1, pa.field(KEY[1], pa.int64(), False), [pa.array(attempts, pa.int64())])
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file of a step. Raises Damage where it is not what the step's manifest says."""
    verified(path)
    return parse(path, columns)


def parse(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The same of a file that somebody else vouches for."""
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if missing := [name for name in columns or () if name.partition(".")[0] not in there]:
                raise Damage(path, f"has no column {missing[0]}")
            return file.read(columns=columns, use_threads=columns is None)  # a few columns cost less than threads
    except (OSError, pa.ArrowException) as e:
        raise Damage(path, f"is not readable as Parquet ({brief(e)})") from None


def read_records(path: Path, of: type[R]) -> list[R]:
    return records(path, read_table(path), of)


def read_keyed(path: Path, of: type[R]) -> dict[Key, R]:
    """Inverse of `write_keyed`, in the order of the rows."""
    return keyed(path, read_table(path), of)


def keyed(path: Path, table: pa.Table, of: type[R]) -> dict[Key, R]:
    if missing := [name for name in KEY if name not in table.schema.names]:
        raise Damage(path, f"has no column {missing[0]}")
    keys = list(zip(*(table.column(name).to_pylist() for name in KEY), strict=True))
    found = dict(zip(keys, records(path, table.drop_columns(list(KEY)), of), strict=True))
    if len(found) < len(keys):
        raise Damage(path, f"has {len(keys)} rows of {len(found)} attempts")
    return found


def records(path: Path, table: pa.Table, of: type[R]) -> list[R]:
    """The rows of a table that was read from a file. Raises Damage where one is no such record."""
    try:
        return of.from_arrow(table)
    except ValidationError as e:
        raise Damage(path, f"holds a row that is no {of.__name__} ({brief(e)})") from None
