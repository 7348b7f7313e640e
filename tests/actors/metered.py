"""A process that is a replica of a run, and what it measures, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

from actors import meters
from actors.meters import Meter

Observed = list[tuple[str, float, dict[str, str]]]


def metered(monkeypatch) -> Observed:
    """(name, value, tags) of each observation from now on; each has the tags that its meter has, and no others."""
    seen: Observed = []

    def add(meter: Meter, value: float, tags: dict[str, str]) -> None:
        assert {*tags, "job"} == set(meter.tags) and tags["run"] == "quick-1" and tags["pool"] == "some"
        seen.append((meter.name, value, tags))

    for name, value in ((meters.RUN, "quick-1"), (meters.POOL, "some"), (meters.JOB, "job-1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(meters, "METERS", SimpleNamespace(job="job-1", add=add))
    return seen
