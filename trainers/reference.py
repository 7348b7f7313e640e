"""The frozen reference, pi_ref: where it lies, and at hand where it is used. Where the policy is an adapter on it, that
is the policy with the adapter switched off: no second copy.

Invariant: all ranks use it together, on as many micro-batches; what is shared out is gathered by all of them. It is
never written to: what was offloaded is not brought back, its copy on the GPU is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch

from trainers import adapters, ds_config
from trainers.policy import Policy
from trainers.ranks import Ranks
from trainers.spec import TrainSpec


class Reference:
    def __init__(self, spec: TrainSpec, ranks: Ranks):
        self._device = ranks.device
        self._offloaded = spec.reference == "offloaded"
        dtype = getattr(torch, spec.dtype)
        self._model: Any
        if spec.reference == "sharded":
            policy = Policy.load(spec.base_model, dtype, ds_config.frozen(spec, ds_config.BUCKET))
            settings = ds_config.frozen(spec, policy.size)
            frozen = policy.eval().requires_grad_(False)
            self._model, *_ = deepspeed.initialize(model=frozen, config=settings, dist_init_required=False)
            return
        self._model = ranks.agree(lambda: Policy.load(spec.base_model, dtype)).eval().requires_grad_(False)
        if not self._offloaded:
            self._model.to(ranks.device)
        elif ranks.device.type == "cuda":
            for tensor in (*self._model.parameters(), *self._model.buffers()):
                tensor.data = tensor.data.pin_memory()

    @contextmanager
    def at_hand(self) -> Iterator[Any]:
        """The model, on this rank's device."""
        if not self._offloaded:
            yield self._model
            return
        lying = [(tensor, tensor.data) for tensor in (*self._model.parameters(), *self._model.buffers())]
        try:
            for tensor, data in lying:
                tensor.data = data.to(self._device, non_blocking=True)
            yield self._model
        finally:
            for tensor, data in lying:
                tensor.data = data


class WithoutAdapter:
    """pi_ref of a policy with an adapter."""

    def __init__(self, engine: Any):
        self._engine = engine

    @contextmanager
    def at_hand(self) -> Iterator[Any]:
        """The policy, its adapter switched off."""
        self._engine.eval()
        with adapters.off(self._engine.module.lm):
            yield self._engine
