"""The rollout buffer: where token arrays rest between the replica that sampled them and the step they belong to.

    proposer replicas ──put──► RolloutBuffer ──write──► steps/<stage>/NNNNNN/rollouts.parquet ──► loader ──► trainer

Consumes rollouts that replicas send straight to it; produces step files when the driver asks. It waits for nobody.

Invariant: a rollout is in memory from `put` until `write` or `drop`, and at most until as many steps have ended as may
be under way side by side: an attempt that was given up may send its rollout after `drop`, and nobody will ask for that
one. A retried call changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Failure, Rollout
from pipeline.store.files import writing

MOST_OPEN = 20
"""Steps of a stage under way side by side, at most: so many are played while one waits for a task that takes as long as
20 others."""

Key = tuple[str, int]
"""(episode id, attempt)."""


class RolloutBuffer:
    """Ray actor, one a run. While a step is under way, `ahead` later ones may be."""

    def __init__(self, ahead: int = 0) -> None:
        self._ahead = ahead
        self._waiting: dict[Key, pa.RecordBatch] = {}
        self._came: dict[Key, int] = {}
        """How many steps had ended when each rollout arrived."""
        self._ended = 0

    async def put(self, episode_id: str, attempt: int, batch: pa.RecordBatch) -> None:
        """Take the one-row rollout of an episode. The same key again replaces it: a retried call is harmless."""
        self._waiting[episode_id, attempt] = batch
        self._came[episode_id, attempt] = self._ended

    async def drop(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._waiting.pop(key, None)
            self._came.pop(key, None)

    async def clear(self) -> None:
        """Forget all rollouts: the stage trains on none of them."""
        await self.drop(list(self._waiting))

    async def write(self, folder: str, rows: Sequence[tuple[Key, Sequence[float], float]]) -> int:
        """End a step: write `rows` (key, process rewards, terminal reward) as rollouts.parquet; returns their token
        count.

        Raises Failure if a rollout has never arrived, has other actions than rewards, or the disk does not take it;
        the rollouts stay here then.
        """
        table = pa.Table.from_batches(
            [self._rewarded(key, process, terminal) for key, process, terminal in rows], schema=Rollout.schema_arrow()
        )
        await asyncio.to_thread(_write, table, Path(folder) / "rollouts.parquet")
        self._ended += 1
        await self.drop([key for key, _, _ in rows])
        await self.drop([key for key, ended in self._came.items() if self._ended - ended > self._ahead])
        return sum(len(row) for row in table.column("token_ids"))

    def _rewarded(self, key: Key, process: Sequence[float], terminal: float) -> pa.RecordBatch:
        batch = self._waiting.get(key)
        if batch is None:
            raise Failure(
                f"rollout {key[0]} (attempt {key[1]}) is not in the buffer: its replica died before sending it",
                "infra_error",
            )
        actions = len(batch.column("action_stage")[0])
        if len(process) != actions:
            raise Failure(f"rollout {key[0]}: {len(process)} process rewards for {actions} actions")
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns["process_rewards"] = pa.array([list(process)], batch.schema.field("process_rewards").type)
        columns["terminal_reward"] = pa.array([terminal], pa.float32())
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def _write(table: pa.Table, path: Path) -> None:
    with writing(path):
        pq.write_table(table, path, compression="zstd")
