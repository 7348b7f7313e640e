"""Records as Parquet: one class of record a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Failure, Record

R = TypeVar("R", bound=Record)


def write_records(path: Path, records: Iterable[Record], of: type[Record]) -> None:
    """Records -> one Parquet file with the schema of their class."""
    pq.write_table(pa.Table.from_batches([of.to_arrow(records)]), path, compression="zstd")


def read_records(path: Path, of: type[R]) -> list[R]:
    try:
        return of.from_arrow(pq.read_table(path))
    except (OSError, pa.ArrowInvalid) as e:
        raise Failure(f"{path}: not readable as Parquet ({e}); delete its step directory to make it again") from None
