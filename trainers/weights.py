"""The policy's tensors under their Hugging Face names, on rank 0, one at a time, whatever the ZeRO stage.

Invariant: all ranks walk the parameters in the same order (under ZeRO-3 gathering one is a collective); no rank but
the first keeps a gathered copy. Tied tensors appear once. What transformers holds in one tensor where a checkpoint has
several (the experts of a layer) goes out as the several, so that engines and checkpoints know it by its names; what an
adapter adds to a weight goes out in the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from trainers import adapters
from trainers.wire import Shipment


def gathered(model: Any, rank: int, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor in CPU memory) on rank 0, nothing on the others. None keeps the model's dtype."""
    for part in adapters.parts(model):
        with part.gathered():
            mine = part.whole(dtype, "cpu") if rank == 0 else None
        if mine is not None:
            for named, tensor in revert_weight_conversion(model, {part.name: mine}).items():
                yield named, tensor.contiguous()


def publish(
    model: Any,
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
    shipment = Shipment(store, version, timeout_s)
    serial = shipment.begin() if rank == 0 else 0
    if push is not None:
        push(version, serial)
    sent = shipment.send(gathered(model, rank, dtype))
    if rank == 0:
        shipment.commit()
    return sent
