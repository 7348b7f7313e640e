"""The figures of a run as Ray's metrics: what the Ray dashboard and Prometheus show of it while it works.

`pipeline.watch.figures` says what each is called, `actors.meters` keeps it exported.

Invariants: a gauge shows its stage's newest figures from when they were first shown until the stage ends; what they do
not hold any more is gone. A counter counts what happens in this process: where a figure begins is where an earlier
process of the run left it. Without Ray nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from actors.meters import METERS, Meter
from pipeline.watch.figures import meter_of

_EVERY_S = 2.0


class Gauges:
    def __init__(self, run: str):
        self._run = run
        self._shown: dict[str, set[tuple[Meter, str]]] = {}
        self._counted: dict[tuple[Meter, str, str], float] = {}

    def show(self, label: str, values: Mapping[str, float | None]) -> None:
        """The newest figures of a stage, or of a part of it, all of them."""
        before, self._shown[label] = self._shown.get(label, set()), set()
        for name, value in values.items():
            stage, meter, of = meter_of(label, name)
            if value is None:
                continue
            if meter.kind == "counter":
                self._count(meter, stage, of, value)
            else:
                METERS.set(meter, value, self._tags(stage, of))
                self._shown[label].add((meter, of))
        self._end(label, before - self._shown[label])

    def end(self, stage: str) -> None:
        """The stage is over: its gauges end."""
        for label in [label for label in self._shown if label.partition("-")[0] == stage]:
            self._end(label, self._shown.pop(label))

    def close(self) -> None:
        for label in list(self._shown):
            self._end(label, self._shown.pop(label))

    def _count(self, meter: Meter, stage: str, of: str, value: float) -> None:
        before = self._counted.setdefault((meter, stage, of), value)
        if value > before:
            METERS.add(meter, value - before, self._tags(stage, of))
            self._counted[meter, stage, of] = value

    def _end(self, label: str, gone: set[tuple[Meter, str]]) -> None:
        for meter, of in gone:
            METERS.end(meter, self._tags(label.partition("-")[0], of))

    def _tags(self, stage: str, of: str) -> dict[str, str]:
        return {"run": self._run, "stage": stage, "of": of}


@asynccontextmanager
async def showing(metrics: Any, label: str, figures: Callable[[], Mapping[str, float]]) -> AsyncIterator[None]:
    """Show what `figures` says as `label`, every `_EVERY_S` while the block runs. It waits for nobody, and where a
    disk or a database does not answer, what was shown before stays."""

    def show() -> None:
        with contextlib.suppress(OSError, sqlite3.Error):
            metrics.show(label, figures())

    async def again() -> None:
        while True:
            show()
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        show()
