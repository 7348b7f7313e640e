"""The weight store: versions of a policy's weights, published by a trainer and pulled by replicas.

An actor. Consumes chunks of named tensors between `begin` and `commit`; produces, for whoever asks, references to the
chunks of a committed version. It waits for nobody, and nobody waits for it beyond one short call: tensors travel
through the object store, and a replica reads them from there.

Invariants: a version is visible only once committed, and then complete and unchanging; the store itself owns the
objects (a trainer worker that dies takes nothing along); the last `KEEP` versions are kept. A trainer that restarts
from a checkpoint publishes an older number again: what was committed under that number and later ones is withdrawn,
and `serial`, which only grows, tells the two apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from pipeline.records import Failure

Tensors = dict[str, tuple[str, tuple[int, ...], np.ndarray]]
"""Hugging Face name -> (torch dtype name, shape, raw data). bfloat16 travels as uint16."""

KEEP = 2


@dataclass(frozen=True)
class Published:
    """A committed version, as a replica pulls it."""

    version: int
    serial: int
    """Grows with each publication, and is of this store alone: equal serials are equal weights."""
    chunks: tuple[Any, ...]
    """References to `Tensors`, together every tensor of the model once."""
    names: frozenset[str]
    bytes: int


class WeightStore:
    """Make it an actor on a node that stays. Its methods are coroutines: calls never run side by side in threads.
    A publisher awaits `begin`, and all its `put_chunk` before `commit`: Ray may start calls in another order."""

    def __init__(self) -> None:
        self._committed: list[Published] = []
        self._serial = time.time_ns()  # a store that came back after a crash must not repeat what replicas have seen
        self._open: int | None = None
        self._chunks: list[Any] = []
        self._names: set[str] = set()
        self._bytes = 0

    async def begin(self, version: int) -> int:
        """Start publishing; returns the serial that the version will have. An unfinished publication, whose trainer
        must have died, is dropped."""
        if version < 1:
            raise Failure(f"weights: version {version}; published versions count from 1 (0 is the model directory's)")
        self._open, self._chunks, self._names, self._bytes = version, [], set(), 0
        self._serial += 1
        return self._serial

    async def put_chunk(self, version: int, tensors: Tensors) -> None:
        self._expect(version)
        if twice := self._names & tensors.keys():
            raise Failure(f"weights version {version}: {min(twice)} was put before; expected each tensor once")
        self._chunks.append(ray.put(tensors))
        self._names |= tensors.keys()
        self._bytes += sum(raw.nbytes for _, _, raw in tensors.values())

    async def commit(self, version: int) -> int:
        """Make the version visible; returns its serial."""
        self._expect(version)
        if not self._names:
            raise Failure(f"weights version {version}: committed without a tensor")
        new = Published(version, self._serial, tuple(self._chunks), frozenset(self._names), self._bytes)
        self._committed = [*(p for p in self._committed if p.version < version), new][-KEEP:]
        self._open, self._chunks = None, []
        return self._serial

    async def latest(self) -> int:
        """The newest committed version, 0 before the first."""
        return self._committed[-1].version if self._committed else 0

    async def serial(self) -> int:
        """Of the newest committed version, 0 before the first."""
        return self._committed[-1].serial if self._committed else 0

    async def fetch(self, version: int = 0) -> Published | None:
        """A committed version, the newest if 0; None if there is none yet."""
        if version == 0:
            return self._committed[-1] if self._committed else None
        for published in self._committed:
            if published.version == version:
                return published
        kept = ", ".join(str(p.version) for p in self._committed) or "none"
        raise Failure(f"weights version {version}: not in the store; kept versions: {kept}")

    def _expect(self, version: int) -> None:
        if self._open != version:
            raise Failure(
                f"weights version {version}: not begun (begun: {self._open}); expected begin({version}) first"
            )
