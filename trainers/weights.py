"""The policy's tensors under their Hugging Face names, on rank 0, a few at a time, whatever the ZeRO stage.

Invariant: all ranks walk the parameters in the same order (under ZeRO-3 gathering one is a collective); no rank but
the first keeps a gathered copy, and the first never holds more than one chunk. Tied tensors appear once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import deepspeed
import ray
import torch
from torch import Tensor, nn

CHUNK_BYTES = 64 << 20
IN_FLIGHT = 2
"""Chunks that may be on their way to the weight store."""


def chunks(model: nn.Module, rank: int, dtype: torch.dtype | None, max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Chunks of about `max_bytes` in CPU memory on rank 0, nothing on the others. None keeps the model's dtype."""
    chunk: dict[str, Tensor] = {}
    size = 0
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if rank == 0:
                chunk[name] = parameter.detach().to("cpu", dtype or parameter.dtype, copy=True).contiguous()
        if rank == 0:
            size += chunk[name].nbytes
            if size >= max_bytes:
                yield chunk
                chunk, size = {}, 0
    if chunk:
        yield chunk


def publish(
    model: nn.Module,
    rank: int,
    dtype: torch.dtype,
    store: Any,
    version: int,
    timeout_s: float,
    push: Callable[[int, int], None] | None = None,
) -> int:
    """Send version `version` to the weight store; returns the bytes that this rank has sent. Waits for the store, at
    most `timeout_s` a call.

    `push`, given the version and its serial, brings it to the replicas first: those serve it while it goes to the
    store, from where those that join later pull it.
    """
    pending: list[ray.ObjectRef] = []
    sent = 0
    serial = _wait(store.begin.remote(version), version, timeout_s) if rank == 0 else 0
    if push is not None:
        push(version, serial)
    for chunk in chunks(model, rank, dtype, CHUNK_BYTES):
        sent += sum(tensor.nbytes for tensor in chunk.values())
        pending.append(store.put_chunk.remote(version, {name: _raw(t) for name, t in chunk.items()}))
        if len(pending) >= IN_FLIGHT:
            _wait(pending.pop(0), version, timeout_s)
    if rank == 0:
        for ref in pending:
            _wait(ref, version, timeout_s)
        _wait(store.commit.remote(version), version, timeout_s)
    return sent


def _raw(tensor: Tensor) -> tuple[str, tuple[int, ...], Any]:
    data = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data.numpy()


def _wait(ref: ray.ObjectRef, version: int, timeout_s: float) -> Any:
    try:
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise TimeoutError(f"weights version {version}: the weight store gave no answer in {timeout_s:g} s") from None
