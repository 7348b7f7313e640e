"""What is logged or shown is on Ray's metrics endpoint, as Prometheus scrapes it, until the stage is over."""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import ray
from ray._private.telemetry import open_telemetry_metric_recorder as recorder
from ray._private.telemetry.metric_types import MetricType

from actors import meters
from actors.meters import METERS, Meters
from pipeline.config import Config
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch import gauges
from pipeline.watch.figures import ALL, FIGURES, meter_of
from pipeline.watch.gauges import Gauges, showing

SAMPLE = re.compile(r"ray_propose_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
Series = tuple[str, str, str]
"""(name, stage, of)."""


@pytest.fixture
def run(tmp_path):
    run = RunDir.open(tmp_path / "somerun", Config(domain="mini"))
    yield run
    run.close()


class Agent:
    """Ray's own recorder of a node, on a clock of ours; what a process tells it is passed on as it comes, without the
    process's own exporter, which is not Python. It keeps a gauge as long as Ray does by default."""

    def __init__(self, mine: Meters, monkeypatch):
        monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.recorder = recorder.OpenTelemetryMetricRecorder()
        self.kinds: dict[str, str] = {}
        self.now, self.mine = 0.0, mine

    def later(self) -> None:
        """After three times as long as Ray keeps what is not set again."""
        until = self.now + 3 * self.recorder._gauge_metric_ttl_s
        while self.now < until:
            self.now += meters.EVERY_S
            self.mine.again()

    def metric(self, kind):
        def make(name, tells, *rest):
            tags = rest[-1]
            assert self.kinds.setdefault(name, kind) == kind
            register = {"set": self.recorder.register_gauge_metric, "inc": self.recorder.register_counter_metric}
            register[kind](name, tells)

            def record(value, given):
                assert set(given) == set(tags)
                if not math.isnan(value):
                    self.recorder.set_metric_value(name, given, value)

            return SimpleNamespace(**{kind: record})

        return make

    def seen(self) -> dict[Series, float]:
        found = {}
        for name, kind in self.kinds.items():
            of_kind = MetricType.GAUGE if kind == "set" else MetricType.COUNTER
            for one in self.recorder._create_observable_callback(name, of_kind)(None):
                tags = one.attributes
                assert (tags["run"], tags["job"]) == ("somerun", "job-1")
                found[name.removeprefix("propose_"), tags["stage"], tags["of"]] = one.value
        return found


@pytest.fixture
def agent(monkeypatch) -> Iterator[Agent]:
    from ray.util import metrics

    mine = Meters()
    mine._thread = threading.current_thread()  # nobody sets gauges again but `later`
    agent = Agent(mine, monkeypatch)
    monkeypatch.setattr(metrics, "Gauge", agent.metric("set"))
    monkeypatch.setattr(metrics, "Counter", agent.metric("inc"))
    monkeypatch.setattr(gauges, "METERS", mine)
    mine.connect("job-1")
    yield agent
    mine.disconnect()


def test_a_gauge_lasts_until_its_stage_is_over(agent):
    """Longer than Ray keeps one that is set once."""
    figures = Gauges("somerun")
    figures.show("mgpo", {"reward": 0.5, "staleness/0": 60, "staleness/1": 20})
    figures.show("mgpo-train", {"train/loss": 0.1, "train/time/train_s": 9.0})
    figures.show("solve", {"reward": 0.25})
    agent.later()
    lasting = {
        ("step_reward", "mgpo", ""): 0.5,
        ("step_staleness", "mgpo", "0"): 60,
        ("step_staleness", "mgpo", "1"): 20,
        ("train_loss", "mgpo", ""): 0.1,
        ("train_time", "mgpo", "train_s"): 9.0,
        ("step_reward", "solve", ""): 0.25,
    }
    assert agent.seen() == lasting
    figures.show("mgpo", {"reward": 0.75, "staleness/0": 80, "turns": None})
    agent.later()
    del lasting["step_staleness", "mgpo", "1"]
    assert agent.seen() == lasting | {("step_reward", "mgpo", ""): 0.75, ("step_staleness", "mgpo", "0"): 80}
    figures.end("mgpo")
    agent.later()
    assert agent.seen() == {("step_reward", "solve", ""): 0.25}
    figures.close()
    agent.later()
    assert agent.seen() == {}


def test_one_thread_sets_gauges_again_often_enough_for_the_shortest_interval_that_ray_knows(monkeypatch):
    assert meters.EVERY_S <= 1.0  # Ray takes shorter ones for one second
    monkeypatch.setattr(meters, "EVERY_S", 0.01)
    mine, enough, calls = Meters(), threading.Event(), []

    def again():
        calls.append(threading.current_thread())
        if len(calls) == 3:
            enough.set()

    monkeypatch.setattr(mine, "again", again)
    mine.connect("job-1")
    mine.disconnect()
    mine.connect("job-1")
    assert enough.wait(20) and len(set(calls)) == 1 and calls[0].daemon
    mine.disconnect()


def test_nothing_is_recorded_once_disconnected_and_all_again_with_the_next_ray(agent):
    figures = Gauges("somerun")
    figures.show("mgpo", {"reward": 0.5})
    gauges.METERS.disconnect()
    agent.later()
    figures.show("mgpo", {"turns": 3.0})
    figures.show("sft", {"loss": 2.0})
    assert agent.seen() == {}
    gauges.METERS.connect("job-1")
    agent.later()
    assert agent.seen() == {("step_turns", "mgpo", ""): 3.0, ("train_loss", "sft", ""): 2.0}


def test_a_gauge_that_ray_refuses_is_not_kept_and_said_and_the_others_go_on(agent, caplog):
    class Refused:
        def set(self, value, tags):
            raise ValueError("no such tag")

    mine = gauges.METERS
    with pytest.raises(ValueError, match="no such tag"):
        mine.set(Refused(), 1.0, {})
    mine.disconnect()
    mine.set(Refused(), 2.0, {})  # before Ray can refuse it
    Gauges("somerun").show("mgpo", {"reward": 0.5})
    mine.connect("job-1")
    agent.later()
    assert agent.seen() == {("step_reward", "mgpo", ""): 0.5}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "Refused: Ray refuses 2: ValueError: no such tag"


def test_a_counter_counts_what_this_process_did_and_never_goes_back(agent):
    figures = Gauges("somerun")
    figures.show("mgpo-ledger", {"issued": 320, "trained": 300, "live": 4})  # what earlier processes did
    figures.show("mgpo-now", {"issued": 330, "trained": 300, "live": 14})
    figures.show("mgpo-ledger", {"issued": 325, "trained": 310, "live": 9})
    figures.show("mgpo-now", {"issued": 350, "trained": 310, "live": 1})
    assert agent.seen() == {
        ("ledger_issued", "mgpo", ""): 30,
        ("ledger_trained", "mgpo", ""): 10,
        ("ledger_live", "mgpo", ""): 1,
    }
    figures.end("mgpo")
    agent.later()
    assert agent.seen() == {("ledger_issued", "mgpo", ""): 30, ("ledger_trained", "mgpo", ""): 10}


def test_each_name_is_of_one_kind_and_ray_takes_it():
    assert len({meter.name for meter in ALL}) == len(ALL)
    assert all(re.fullmatch(r"propose_[a-z0-9_]+", meter.name) for meter in ALL)
    assert meter_of("sft-ledger", "issued")[1] is meter_of("sft-now", "issued")[1] is FIGURES["ledger", "issued"]
    stage, meter, of = meter_of("sandbox", "layer/no new privileges")
    assert (stage, meter.name, of) == ("sandbox", "propose_step_layer", "no new privileges")


def test_without_ray_nothing_happens(run):
    assert not ray.is_initialized() and METERS.job is None
    figures = Gauges("run")
    figures.show("mgpo", {"reward": 1.0})
    figures.close()  # or it would be exported once there is a Ray


def test_what_is_under_way_is_shown_again_and_again_and_last_when_it_ends(monkeypatch):
    monkeypatch.setattr(gauges, "_EVERY_S", 0.01)
    seen, depth = [], [3]

    class Shown:
        def show(self, label, values):
            seen.append((label, values["depth"]))

    async def scene():
        async with showing(Shown(), "mgpo-now", lambda: {"depth": depth[0]}):
            while len(seen) < 3:
                await asyncio.sleep(0.005)
            depth[0] = 0
        ended = len(seen)
        await asyncio.sleep(0.05)
        assert len(seen) == ended

    asyncio.run(asyncio.wait_for(scene(), 20))
    assert seen[:3] == [("mgpo-now", 3)] * 3 and seen[-1] == ("mgpo-now", 0)


@pytest.mark.parametrize("error", [OSError("no such disk"), sqlite3.OperationalError("disk I/O error")])
def test_figures_that_cannot_be_had_are_asked_for_again_and_do_not_change_how_a_stage_ends(monkeypatch, error):
    monkeypatch.setattr(gauges, "_EVERY_S", 0.01)
    seen, asked, shown = [], [], SimpleNamespace(show=lambda label, values: seen.append(values))

    def figures():
        asked.append(1)
        if len(asked) in (1, 2):
            raise error
        return {"depth": 1.0}

    async def scene():
        async with showing(shown, "mgpo-now", figures):
            while not seen:
                await asyncio.sleep(0.005)
            asked.clear()  # so that the last look fails too
            return "result"

    assert asyncio.run(asyncio.wait_for(scene(), 20)) == "result"


# ---------------------------------------------------------------- on Ray's own endpoint


def scraped() -> dict[Series, float]:
    """Of the first node's endpoint."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(url, timeout=60).read().decode()
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert tags["run"] == "somerun" and tags["job"]
        found[name, tags["stage"], tags["of"]] = float(value)
    return found


def until(expected: dict[Series, float | None]) -> None:
    """Until the endpoint shows these, None: not at all. Ray passes gauges on every second here (ten by default)."""
    deadline = time.monotonic() + 120
    while any((found := scraped()).get(key) != value for key, value in expected.items()):
        assert time.monotonic() < deadline, {key: found.get(key) for key in expected}
        time.sleep(0.5)


@contextmanager
def local_ray() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )  # fmt: skip
    METERS.connect("job-1")
    try:
        yield
    finally:
        METERS.disconnect()
        ray.shutdown()


@pytest.mark.engine
def test_what_is_logged_is_scraped_for_longer_than_ray_keeps_it_and_also_after_ray_began_anew(run):
    with Metrics(run) as metrics:
        with local_ray():
            metrics.log("mgpo", 4, {"reward": 0.5, "staleness/1": 20})
            metrics.log("mgpo-ledger", 4, {"issued": 320})
            metrics.show("mgpo-now", {"depth/proposer": 64, "issued": 325})
            lasting = {
                ("step_reward", "mgpo", ""): 0.5,
                ("step_staleness", "mgpo", "1"): 20,
                ("now_depth", "mgpo", "proposer"): 64,
                ("ledger_issued_total", "mgpo", ""): 5,
            }
            until(lasting)
            for _ in range(10):  # five intervals
                time.sleep(0.5)
                assert lasting.items() <= scraped().items()
            metrics.log("mgpo", 5, {"reward": 0.75})
            until(lasting | {("step_reward", "mgpo", ""): 0.75, ("step_staleness", "mgpo", "1"): None})
        with local_ray():
            until({("step_reward", "mgpo", ""): 0.75, ("now_depth", "mgpo", "proposer"): 64})
            metrics.end("mgpo")
            until({("step_reward", "mgpo", ""): None, ("now_depth", "mgpo", "proposer"): None})
