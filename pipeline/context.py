"""What every stage is given, and the few things that all stages do alike."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.metrics import Metrics
from pipeline.progress import Progress
from pipeline.records import Failure, Record
from pipeline.rundir import RunDir

if TYPE_CHECKING:
    from pipeline.cluster import Cluster  # brings Ray, which reading a run directory does not need

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Context:
    config: Config
    run: RunDir
    cluster: Cluster
    metrics: Metrics
    progress: Progress

    def result_of(self, stage: str) -> dict[str, Any]:
        """The result of an earlier stage. Raises Failure with the command that makes it."""
        done = self.run.result(stage)
        if done is None:
            raise Failure(f"run directory {self.run.root}: stage {stage} is not done; run `propose {stage}` first")
        result: dict[str, Any] = done["result"]
        return result

    def seed(self, *names: object) -> int:
        """A seed of 31 bits for whatever the names name: the same on every run of this config."""
        text = "/".join(map(str, (self.config.seed, *names)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1

    def rng(self, *names: object) -> random.Random:
        return random.Random(self.seed(*names))


def write_records(path: Path, records: Iterable[Record], of: type[Record]) -> None:
    """Records -> one Parquet file with the schema of their class."""
    pq.write_table(pa.Table.from_batches([of.to_arrow(records)]), path, compression="zstd")


def read_records(path: Path, of: type[R]) -> list[R]:
    try:
        return of.from_arrow(pq.read_table(path))
    except (OSError, pa.ArrowInvalid) as e:
        raise Failure(f"{path}: not readable as Parquet ({e}); delete its step directory to make it again") from None


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
