"""How tensors travel to a weight store: a few at a time, as raw arrays, a bounded number of chunks on their way.

Invariant: a version is in the store once `commit` has returned, whole; before that nobody sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ray
import torch
from torch import Tensor

CHUNK_BYTES = 64 << 20
IN_FLIGHT = 2
"""Chunks that may be on their way to the weight store."""


def in_chunks(named: Iterable[tuple[str, Tensor]], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Tensors by name in chunks of about `max_bytes`; of no tensors, none."""
    chunk: dict[str, Tensor] = {}
    size = 0
    for name, tensor in named:
        chunk[name] = tensor
        size += tensor.nbytes
        if size >= max_bytes:
            yield chunk
            chunk, size = {}, 0
    if chunk:
        yield chunk


class Shipment:
    """One version on its way into a weight store; each call waits for the store, at most `timeout_s`. Raises
    TimeoutError."""

    def __init__(self, store: Any, version: int, timeout_s: float):
        self._store, self._version, self._timeout_s = store, version, timeout_s

    def begin(self) -> int:
        """Returns the serial that the store gives this try."""
        serial: int = self._wait(self._store.begin.remote(self._version))
        return serial

    def send(self, named: Iterable[tuple[str, Tensor]]) -> int:
        """Returns the bytes sent. `named` is walked to its end, also where it yields nothing."""
        pending: list[ray.ObjectRef] = []
        sent = 0
        for chunk in in_chunks(named, CHUNK_BYTES):
            sent += sum(tensor.nbytes for tensor in chunk.values())
            pending.append(self._store.put_chunk.remote(self._version, {n: raw(t) for n, t in chunk.items()}))
            if len(pending) >= IN_FLIGHT:
                self._wait(pending.pop(0))
        for ref in pending:
            self._wait(ref)
        return sent

    def commit(self) -> None:
        self._wait(self._store.commit.remote(self._version))

    def _wait(self, ref: ray.ObjectRef) -> Any:
        try:
            return ray.get(ref, timeout=self._timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(
                f"weights version {self._version}: the weight store gave no answer in {self._timeout_s:g} s"
            ) from None


def raw(tensor: Tensor) -> tuple[str, tuple[int, ...], Any]:
    """A tensor in CPU memory as (torch dtype name, shape, numpy array); bfloat16 as its 16 bits."""
    data = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data.numpy()
