"""What is logged is on Ray's metrics endpoint, as Prometheus scrapes it."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

from pipeline.config import Config
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch import gauges
from pipeline.watch.gauges import Gauges, showing

SAMPLE = re.compile(r"ray_propose_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def scraped() -> dict[tuple[str, str, str, str], float]:
    """(name, run, stage, of) -> value, of the first node's endpoint."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(url, timeout=60).read().decode()
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[name, tags["run"], tags["stage"], tags["of"]] = float(value)
    return found


def until(expected: dict[tuple[str, str, str, str], float | None]) -> None:
    """Until the endpoint shows these, None: not at all. Ray passes gauges on every second here (ten by default)."""
    deadline = time.monotonic() + 120
    while any((found := scraped()).get(key) != value for key, value in expected.items()):
        assert time.monotonic() < deadline, {key: found.get(key) for key in expected}
        time.sleep(0.5)


@pytest.fixture
def run(tmp_path):
    run = RunDir.open(tmp_path / "somerun", Config(domain="mini"))
    yield run
    run.close()


@contextmanager
def local_ray() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.engine
def test_what_is_logged_or_shown_is_scraped_and_what_is_gone_is_not_also_after_ray_began_anew(run):
    with Metrics(run) as metrics:
        with local_ray():
            metrics.log("mgpo", 4, {"reward": 0.5, "staleness/0": 60, "staleness/1": 20})
            metrics.log("mgpo-ledger", 4, {"issued": 320, "trained": 310})
            metrics.show("mgpo-now", {"depth/proposer": 64})
            until(
                {
                    ("reward", "somerun", "mgpo", ""): 0.5,
                    ("staleness", "somerun", "mgpo", "0"): 60,
                    ("staleness", "somerun", "mgpo", "1"): 20,
                    ("issued", "somerun", "mgpo-ledger", ""): 320,
                    ("depth", "somerun", "mgpo-now", "proposer"): 64,
                }
            )
            metrics.log("mgpo", 5, {"reward": 0.75, "staleness/0": 80})
            until(
                {
                    ("reward", "somerun", "mgpo", ""): 0.75,
                    ("staleness", "somerun", "mgpo", "0"): 80,
                    ("staleness", "somerun", "mgpo", "1"): None,
                    ("issued", "somerun", "mgpo-ledger", ""): 320,
                }
            )
        with local_ray():
            metrics.log("mgpo", 6, {"reward": 1.0})
            until({("reward", "somerun", "mgpo", ""): 1.0})


def test_without_ray_nothing_happens(run):
    assert not ray.is_initialized()
    Gauges("run").show("mgpo", {"reward": 1.0})


def test_what_is_under_way_is_shown_again_and_again_and_last_when_it_ends(monkeypatch):
    monkeypatch.setattr(gauges, "_EVERY_S", 0.01)
    seen, depth = [], [3]

    class Shown:
        def show(self, stage, values):
            seen.append((stage, values["depth"]))

    async def scene():
        async with showing(Shown(), "mgpo", lambda: {"depth": depth[0]}):
            while len(seen) < 3:
                await asyncio.sleep(0.005)
            depth[0] = 0
        ended = len(seen)
        await asyncio.sleep(0.05)
        assert len(seen) == ended

    asyncio.run(asyncio.wait_for(scene(), 20))
    assert seen[:3] == [("mgpo-now", 3)] * 3 and seen[-1] == ("mgpo-now", 0)
