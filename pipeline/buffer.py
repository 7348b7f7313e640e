"""The rollout buffer: the one place where token arrays rest between a proposer and a trainer.

    proposer replicas ──put──► RolloutBuffer ──write──► steps/<stage>/NNNNNN/rollouts.parquet
                                    │ release(step)
    trainer workers ◄──next_batch── ┘ (object refs that the buffer owns)

Consumes rollouts that replicas send straight to it; produces step files and, from those files, the shards of each
rank. `next_batch` waits for `release` or `finish`, which the driver calls; `wait_done` waits for rank 0's
`step_done`. Both waits have a deadline.

Invariant: what a trainer sees of a step is read back from the step's file, so a replayed step is the same, bit for
bit; whole groups go to one rank; a rollout is in memory from `put` until `write` or `drop`, never longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from pipeline.records import Failure, Rollout
from trainers.feed import StepWork

Key = tuple[str, int]
"""(episode id, attempt)."""


class RolloutBuffer:
    """Ray actor. `timeout_s` bounds every wait."""

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._waiting: dict[Key, pa.RecordBatch] = {}
        self._released: dict[int, Path] = {}
        self._shards: dict[tuple[int, int], list[ray.ObjectRef]] = {}
        self._done: dict[int, dict[str, float]] = {}
        self._finished = False
        self._changed = asyncio.Condition()

    async def put(self, episode_id: str, attempt: int, batch: pa.RecordBatch) -> None:
        """Take the one-row rollout of an episode. The same key again replaces it: a retried call is harmless."""
        self._waiting[episode_id, attempt] = batch

    async def drop(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._waiting.pop(key, None)

    async def write(self, folder: str, rows: Sequence[tuple[Key, Sequence[float], float]]) -> int:
        """Write `rows` (key, process rewards, terminal reward) as rollouts.parquet; returns their token count.

        Raises Failure if a rollout has never arrived, or has other actions than rewards.
        """
        table = pa.Table.from_batches(
            [self._rewarded(key, process, terminal) for key, process, terminal in rows], schema=Rollout.schema_arrow()
        )
        await asyncio.to_thread(pq.write_table, table, Path(folder) / "rollouts.parquet", compression="zstd")
        await self.drop([key for key, _, _ in rows])
        return int(lengths(table).sum())

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

    async def release(self, step: int, folder: str) -> None:
        """Let the trainer have a step whose directory is whole."""
        async with self._changed:
            self._released[step] = Path(folder) / "rollouts.parquet"
            self._changed.notify_all()

    async def finish(self) -> None:
        """No step will follow: `next_batch` answers None past the last released one."""
        async with self._changed:
            self._finished = True
            self._changed.notify_all()

    async def next_batch(self, rank: int, world: int, step: int) -> StepWork | None:
        """The groups of `step` for this rank; None when there are no more steps."""
        await self._until(lambda: step in self._released or self._finished, f"step {step} of the rollout stream")
        if step not in self._released:
            return None
        if (step, world) not in self._shards:
            table = pq.read_table(self._released[step])
            self._shards = {(step, world): [ray.put(shard) for shard in shard_groups(table, world)]}
        return StepWork(step=step, batches=[self._shards[step, world][rank]])

    async def step_done(self, step: int, metrics: dict[str, float]) -> None:
        async with self._changed:
            self._done[step] = metrics
            self._changed.notify_all()

    async def wait_done(self, step: int) -> dict[str, float]:
        """The trainer's metrics of `step`, once it is trained."""
        await self._until(lambda: step in self._done, f"the trainer's step {step}")
        return self._done[step]

    async def _until(self, ready: Any, what: str) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), self._timeout_s)
            except TimeoutError:
                raise Failure(f"no progress for {self._timeout_s:g} s: waited for {what}", "infra_error") from None


class DatasetFeed:
    """Ray actor: the same feed over rollouts that are all there already (SFT), in seeded epochs.

    Step s of an epoch is rows [(s-1) * batch, s * batch) of that epoch's permutation; a last short step is kept.
    """

    def __init__(self, files: Sequence[str], batch: int, epochs: int, seed: int):
        self._table = pa.concat_tables([pq.read_table(f) for f in files])
        self._batch = batch
        self._per_epoch = -(-self._table.num_rows // batch)
        self._epochs = epochs
        self._seed = seed
        self._done: dict[int, dict[str, float]] = {}

    async def steps(self) -> int:
        return self._per_epoch * self._epochs

    async def next_batch(self, rank: int, world: int, step: int) -> StepWork | None:
        if step > self._per_epoch * self._epochs:
            return None
        epoch, index = divmod(step - 1, self._per_epoch)
        order = np.random.default_rng([self._seed, epoch]).permutation(self._table.num_rows)
        rows = self._table.take(order[index * self._batch : (index + 1) * self._batch])
        return StepWork(step=step, batches=[ray.put(shard_groups(rows, world)[rank])])

    async def step_done(self, step: int, metrics: dict[str, float]) -> None:
        self._done[step] = metrics

    async def done_since(self, step: int) -> dict[int, dict[str, float]]:
        """Metrics of the steps after `step`, for progress."""
        return {s: m for s, m in self._done.items() if s > step}


def lengths(table: pa.Table) -> np.ndarray:
    """(rows,) tokens of each rollout."""
    return np.asarray([len(row) for row in table.column("token_ids")], dtype=np.int64)


def shard_groups(table: pa.Table, world: int) -> list[pa.Table]:
    """Split rows into `world` tables of about equal tokens, never splitting a group; a shard may be empty."""
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(table.column("group_id").to_pylist()):
        rows_of.setdefault(group, []).append(row)
    tokens = lengths(table)
    load = [0] * world
    shards: list[list[int]] = [[] for _ in range(world)]
    for rows in sorted(rows_of.values(), key=lambda rows: -int(tokens[rows].sum())):
        lightest = load.index(min(load))
        shards[lightest] += rows
        load[lightest] += int(tokens[rows].sum())
    return [table.take(pa.array(sorted(rows), pa.int64())) for rows in shards]
