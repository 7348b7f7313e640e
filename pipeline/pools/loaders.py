"""Loaders: how training data reaches the trainer's workers, as object refs that the loader owns.

`StepLoader` serves steps that come one after another (MGPO, GRPO), `DatasetLoader` data that is all there (SFT).

    driver ──release(step)──► StepLoader ──next_batch──► trainer ranks ──step_done──► StepLoader ──wait_done──► driver

`next_batch` waits for `release` or `finish`, which the driver calls: its watchdog bounds how long a step may take to be
sampled, and with the driver this actor goes, which ends the wait. `wait_done` waits for `release` in the same way, then
for rank 0's `step_done`, with a deadline for each sign of the trainer's.

Invariant: what a trainer sees of a step is read from the step's file, so a replayed step is the same, bit for bit;
whole groups go to one rank.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from pipeline.records import Stalled
from pipeline.store.tables import read_table
from trainers.loader import StepWork


class StepLoader:
    """Ray actor. `folders` are the steps that are on disk already, from step 1; a trainer that has work shows a sign of
    life within `timeout_s`."""

    def __init__(self, folders: Sequence[str], timeout_s: float):
        self._released = {step: Path(f) / "rollouts.parquet" for step, f in enumerate(folders, start=1)}
        self._timeout_s = timeout_s
        self._shards: dict[tuple[int, int], list[ray.ObjectRef]] = {}
        self._done: dict[int, dict[str, float]] = {}
        self._again_s = 0.0
        """What it took to train steps once more, because the workers that had trained them were gone."""
        self._trained = 0
        self._finished = False
        self._changed = asyncio.Condition()

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
        if rank == 0:  # the others may ask for this step while rank 0 still publishes the one before
            async with self._changed:
                # A trainer that asks for a step has trained those before it, be it in an earlier run.
                self._trained = max(self._trained, step - 1)
                self._changed.notify_all()
        async with self._changed:
            await self._changed.wait_for(lambda: step in self._released or self._finished)
        if step not in self._released:
            return None
        if (step, world) not in self._shards:
            table = read_table(self._released[step])
            self._shards = {(step, world): [ray.put(shard) for shard in shard_groups(table, world)]}
        return StepWork(step=step, batches=[self._shards[step, world][rank]])

    async def step_done(self, step: int, metrics: dict[str, float]) -> None:
        async with self._changed:
            if step in self._done:
                self._again_s += metrics["time/train_s"]
            else:
                self._done[step] = metrics | ({"time/again_s": self._again_s} if self._again_s else {})
                self._again_s = 0.0
            self._trained = max(self._trained, step)
            self._changed.notify_all()

    async def wait_done(self, step: int) -> dict[str, float]:
        """The trainer's metrics of `step`, once it is trained; empty if that was in an earlier run.

        Raises Stalled if the step is released and nothing happens for the deadline.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: step in self._released or self._trained >= step)
            while self._trained < step:
                try:
                    await asyncio.wait_for(self._changed.wait(), self._timeout_s)
                except TimeoutError:
                    raise Stalled(
                        f"no step trained for {self._timeout_s:g} s (trainer.step_timeout_s): "
                        f"waited for the trainer's step {step}"
                    ) from None
        return self._done.get(step, {})


class DatasetLoader:
    """Ray actor: the same loader over rollouts that are all there already (SFT), in seeded epochs.

    Step s of an epoch is rows [(s-1) * batch, s * batch) of that epoch's permutation; a last short step is kept.
    """

    def __init__(self, files: Sequence[str], batch: int, epochs: int, seed: int):
        self._table = pa.concat_tables([read_table(Path(f)) for f in files])
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
