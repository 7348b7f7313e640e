"""The figures of a run as Ray gauges: what the Ray dashboard and Prometheus show of it while it works.

Each figure that is logged, or shown between two steps, is the gauge `propose_<name>` with the tags run, stage and `of`:
`propose_accepted_rate{stage="mgpo"}`; what stands behind a slash is `of`: `propose_staleness{stage="mgpo",of="1"}`.
Ray puts `ray_` before the name and collects every few seconds.

Invariant: a gauge shows its stage's newest figures; what they do not hold any more is gone from Ray's endpoint, because
it leaves out what is no number. Without Ray nothing happens.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

_EVERY_S = 2.0
_TAGS = ("run", "stage", "of")


class Gauges:
    def __init__(self, run: str):
        self._run = run
        self._forget("")

    def _forget(self, node: str) -> None:
        """Gauges end with the Ray that they were made in."""
        self._node = node
        self._gauges: dict[str, Any] = {}
        self._shown: dict[str, set[str]] = {}

    def show(self, stage: str, values: Mapping[str, float | None]) -> None:
        """The newest figures of a stage, all of them."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if (node := ray.get_runtime_context().get_node_id()) != self._node:
            self._forget(node)
        gone = self._shown.get(stage, set()) - values.keys()
        for name, value in [*values.items(), *((name, None) for name in gone)]:
            family, _, of = name.partition("/")
            tags = {"run": self._run, "stage": stage, "of": of}
            self._gauge(family).set(math.nan if value is None else value, tags)
        self._shown[stage] = set(values)

    def _gauge(self, family: str) -> Any:
        if family not in self._gauges:
            from ray.util.metrics import Gauge

            name = "propose_" + re.sub(r"\W", "_", family)
            self._gauges[family] = Gauge(name, f"{family}, as in metrics.jsonl", _TAGS)
        return self._gauges[family]


@asynccontextmanager
async def showing(metrics: Any, stage: str, figures: Callable[[], Mapping[str, float]]) -> AsyncIterator[None]:
    """Show what `figures` says as `<stage>-now`, every `_EVERY_S` while the block runs. It waits for nobody."""

    async def again() -> None:
        while True:
            metrics.show(f"{stage}-now", figures())
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        metrics.show(f"{stage}-now", figures())
