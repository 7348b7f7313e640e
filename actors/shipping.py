"""Sending what was sampled to the rollout buffer: token arrays never pass through whoever asked for the work."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from actors.calls import within
from pipeline.records import Rollout

_TIMEOUT_S = 30.0


async def ship(sink: Any, rollout: Rollout) -> None:
    """The rollout is in the buffer when this returns. The same one again replaces it, so a retried call is harmless.
    Raises Failure."""
    batch: pa.RecordBatch = Rollout.to_arrow([rollout])
    await within(sink.put.remote(rollout.episode_id, rollout.attempt, batch), "rollout buffer", _TIMEOUT_S)
