"""What the train loop asks of the rest of the system: work in, weights out. Both are Ray actor handles.

The loop waits for `next_batch` for as long as the loader lets it (how long a step may take to be sampled is not the
trainer's to say), and for `put_chunk`. Who drives the loader unblocks the loop; a loader that is gone ends it. After a
restart the loop asks again from the step that follows its last checkpoint, so a loader must be able to serve those
steps once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class StepWork:
    """One rank's share of a step. Groups are whole: none has members on two ranks. A share may be empty."""

    step: int
    batches: Sequence[Any]
    """Arrow record batches or tables with the schema of `Rollout`, or references to such."""


Tensors = dict[str, tuple[str, tuple[int, ...], np.ndarray]]
"""Hugging Face name -> (torch dtype name, shape, raw data); bfloat16 travels as uint16."""


class Loader(Protocol):
    """Steps count from 1."""

    next_batch: Any
    """(rank, world, step) -> StepWork, or None: no such step will come."""
    step_done: Any
    """(step, metrics: dict[str, float]) from rank 0, after the step's weights are published and its checkpoint is
    stored. `metrics["checkpoint"]` is 1.0 where the step was checkpointed, else 0.0; `metrics["done_at"]` is the time
    (seconds since the epoch) at which the optimizer had taken the step."""


class Weights(Protocol):
    """Version v is the policy after step v. A restart publishes only what is newer than the store's newest."""

    latest: Any
    """() -> the newest committed version, 0 before the first"""
    begin: Any
    """(version)"""
    put_chunk: Any
    """(version, Tensors)"""
    commit: Any
    """(version)"""
