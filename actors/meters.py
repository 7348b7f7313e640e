"""What a process measures while it works, as metrics of Ray's, which Prometheus scrapes from each node.

A `Meter` is one metric: its name, kind and tags, of which `job` is filled in here. Those of replicas are here, those
of the driver in `pipeline.watch.figures`; together they are all that this project exports. Ray puts `ray_` before each
name.

Ray drops a gauge that nobody has set again for two of its export intervals (ten seconds each by default, one at least).
So one thread a process sets each kept gauge again, every `EVERY_S`.

Invariants: a gauge is exported from `set` until `end`, however long nothing changes. Nothing is recorded unless the
process is connected to Ray: `disconnect` returns when no call is under way and none can follow, because a call that
meets Ray's shutdown kills the process.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.records import Verdict, Vote

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""The shortest export interval that Ray knows."""

RUN, POOL, JOB = "PROPOSE_RUN", "PROPOSE_POOL", "PROPOSE_JOB"
"""Variables of a replica's process: whose it is."""

_OF_EACH_TOKEN = "vllm:inter_token_latency_seconds"
"""Left out: to observe each token takes an engine time that it samples in. The mean of each request is exported."""

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Meter:
    name: str
    kind: Literal["gauge", "counter", "histogram"]
    tells: str
    tags: tuple[str, ...]
    buckets: tuple[float, ...] = ()

    @property
    def scraped(self) -> tuple[str, ...]:
        """The names that Prometheus sees."""
        ends = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{end}" for end in ends[self.kind])


_REPLICA = ("run", "pool", "job")


def _latency(name: str, tells: str, *tags: str) -> Meter:
    return Meter(f"propose_{name}_seconds", "histogram", tells, (*_REPLICA, *tags), _SECONDS)


JUDGED = _latency("judged", "from a problem's arrival at the committee to its verdict", "decision")
VOTED = _latency("voted", "from question to vote; outcome: ok, or why the verifier abstained", "verifier", "outcome")
SANDBOXED = _latency("sandboxed", "what a program ran, by the clock", "status")
SANDBOX_WAITED = _latency("sandbox_waited", "what a program waited for its turn in the sandbox")
GPUS = Meter("propose_replica_gpus", "gauge", "GPUs that a replica holds", _REPLICA)
OF_REPLICAS = (GPUS, JUDGED, VOTED, SANDBOXED, SANDBOX_WAITED)


_RECORDS = {"gauge": "set", "counter": "inc", "histogram": "observe"}


class Meters:
    """What this process exports. Calls may come from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.job: str | None = None
        """The Ray job that this process works for; None while it is not connected."""
        self._made: dict[Meter, Any] = {}
        """The metrics, of the Ray that is there now."""
        self._kept: dict[tuple[Any, tuple[tuple[str, str], ...]], float] = {}
        self._thread: threading.Thread | None = None

    def connect(self, job: str) -> None:
        """Ray is up. What was kept while there was none is exported from now on."""
        with self._guard:
            self.job = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._last, name="meters", daemon=True)
                self._thread.start()

    def disconnect(self) -> None:
        """Ray is about to go. What is kept stays, for the next one."""
        with self._guard:
            self.job = None
            self._made.clear()

    def set(self, meter: Any, value: float, tags: Mapping[str, str]) -> None:
        """Keep a gauge at this value. `meter`: one of ours, or a Gauge of Ray's own."""
        with self._guard:
            self._record(meter, value, tags)
            self._kept[meter, tuple(tags.items())] = value

    def end(self, meter: Any, tags: Mapping[str, str]) -> None:
        with self._guard:
            if self._kept.pop((meter, tuple(tags.items())), None) is not None:
                self._record(meter, math.nan, tags)  # Ray leaves out what is no number, so it is gone at once

    def add(self, meter: Meter, value: float, tags: Mapping[str, str]) -> None:
        """To a counter; or one observation more, of a histogram."""
        with self._guard:
            self._record(meter, value, tags)

    def _record(self, meter: Any, value: float, tags: Mapping[str, str]) -> None:
        if self.job is None:
            return
        record, given = "set", dict(tags)
        if isinstance(meter, Meter):
            record, given["job"] = _RECORDS[meter.kind], self.job
        getattr(self._metric(meter), record)(value, given)

    def _metric(self, meter: Any) -> Any:
        if not isinstance(meter, Meter):
            return meter
        if meter not in self._made:
            from ray.util import metrics

            if meter.kind == "histogram":
                made: Any = metrics.Histogram(meter.name, meter.tells, list(meter.buckets), meter.tags)
            else:
                made = {"gauge": metrics.Gauge, "counter": metrics.Counter}[meter.kind](
                    meter.name, meter.tells, meter.tags
                )
            self._made[meter] = made
        return self._made[meter]

    def again(self) -> None:
        """Set all that is kept, as it is. What Ray refuses is not kept, and said."""
        with self._guard:
            for (meter, tags), value in list(self._kept.items()):
                try:
                    self._record(meter, value, dict(tags))
                except Exception as e:  # of Ray's, where nobody waits for it: the other gauges go on
                    del self._kept[meter, tags]
                    logger.warning("%s: Ray refuses %g: %s: %s", _name_of(meter), value, type(e).__name__, e)

    def _last(self) -> None:
        while True:
            time.sleep(EVERY_S)
            self.again()


def _name_of(meter: Any) -> str:
    return meter.name if isinstance(meter, Meter) else type(meter).__name__


METERS = Meters()


# ---------------------------------------------------------------- what replicas measure


def of_replica() -> dict[str, str] | None:
    """The tags of what this process measures; None where it is no replica of a run."""
    if RUN not in os.environ:
        return None
    if METERS.job is None:
        METERS.connect(os.environ[JOB])
    return {"run": os.environ[RUN], "pool": os.environ[POOL]}


def holding() -> None:
    """This replica holds its GPUs until its process ends."""
    if tags := of_replica():
        import ray

        if gpus := ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0):
            METERS.set(GPUS, gpus, tags)


def judged(verdict: Verdict, seconds: float) -> None:
    if tags := of_replica():
        METERS.add(JUDGED, seconds, tags | {"decision": verdict.decision})


def voted(vote: Vote) -> None:
    if tags := of_replica():
        METERS.add(VOTED, vote.wall_s, tags | {"verifier": vote.verifier, "outcome": vote.outcome.kind})


def sandboxed(status: str, wall_s: float) -> None:
    if tags := of_replica():
        METERS.add(SANDBOXED, wall_s, tags | {"status": status})


def sandbox_waited(seconds: float) -> None:
    if tags := of_replica():
        METERS.add(SANDBOX_WAITED, seconds, tags)


def engine_loggers() -> list[Any]:
    """vLLM's own metrics of an engine that is in a replica, through its Ray logger. Their tag `model_name` is
    `engine_name()`. vLLM sets its gauges when it works; here they last."""
    if of_replica() is None:
        return []
    from vllm.v1.metrics.ray_wrappers import RayGaugeWrapper, RayHistogramWrapper, RayPrometheusStatLogger

    class LastingGauge(RayGaugeWrapper):
        def set(self, value: float) -> None:
            METERS.set(self.metric, value, self._tags)

    class NotOfEachToken(RayHistogramWrapper):
        def __init__(self, name: str, *rest: Any, **options: Any):
            super().__init__(name, *rest, **options)
            self._left_out = name == _OF_EACH_TOKEN

        def observe(self, value: float) -> None:
            if not self._left_out:
                super().observe(value)

    class Logger(RayPrometheusStatLogger):
        _gauge_cls = LastingGauge
        _histogram_cls = NotOfEachToken

    return [Logger]


def engine_name() -> str | None:
    """What vLLM calls the model in its metrics: the application, whose name says run and pool."""
    tags = of_replica()
    return None if tags is None else f"{tags['run']}-{tags['pool']}"
