"""Trackers beside TensorBoard get what is logged, offline, and never hold up or fail a run."""

from __future__ import annotations

import json
import threading

import pytest

from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store.identity import identity_of
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch import trackers
from pipeline.watch.trackers import tracking

ROWS = [
    ("mgpo", 1, {"reward": 0.5, "usd/http://host:1/v1": 2.0}),
    ("sft", 1, {"loss": 3.0}),
    ("mgpo", 2, {"reward": 0.75}),
]


class Fake:
    """Remembers, or does what it is told."""

    def __init__(self, log=lambda *row: None):
        self.rows, self.whole, self.do = [], None, log

    def log(self, *row):
        self.do(*row)
        self.rows.append(row)

    def close(self, whole):
        self.whole = whole


KIND = "json"
"""A client that is installed everywhere."""


def track(monkeypatch, fake: Fake, opening=lambda: None) -> list[tuple[str, str]]:
    monkeypatch.setitem(trackers.TRACKERS, KIND, lambda *_: opening() or fake)
    said: list[tuple[str, str]] = []
    with tracking([KIND], "run-1", None, {}, lambda *line: said.append(line)) as opened:
        for row in ROWS:
            opened[0].log(*row)
    return said


def test_a_tracker_gets_all_rows_in_order_and_is_closed(monkeypatch):
    fake = Fake()
    assert track(monkeypatch, fake) == []
    assert fake.rows == ROWS and fake.whole


def test_a_tracker_hears_that_a_run_did_not_come_to_its_end(monkeypatch):
    fake = Fake()
    monkeypatch.setitem(trackers.TRACKERS, KIND, lambda *_: fake)
    with pytest.raises(Failure), tracking([KIND], "run-1", None, {}, print):
        raise Failure("the disk is full")
    assert fake.whole is False


def test_a_tracker_that_cannot_be_opened_fails_no_run(monkeypatch):
    def refuse():
        raise ConnectionError("no such server")

    ((_, line),) = track(monkeypatch, Fake(), refuse)
    assert f"{KIND}: took 0 of 3 rows: ConnectionError: no such server" in line


def test_a_tracker_that_opens_late_holds_nobody_up_and_gets_all_rows(monkeypatch):
    logged, fake = threading.Event(), Fake()
    monkeypatch.setitem(trackers.TRACKERS, KIND, lambda *_: logged.wait(30) and fake)
    with tracking([KIND], "run-1", None, {}, print) as opened:
        for row in ROWS:
            opened[0].log(*row)
        logged.set()
    assert fake.rows == ROWS and fake.whole


def test_what_a_tracker_does_not_take_is_counted_told_and_costs_nothing_else(monkeypatch):
    def refuse(stage, step, values):
        if stage == "sft":
            raise OSError("the server is away")

    fake = Fake(refuse)
    ((who, line),) = track(monkeypatch, fake)
    assert who == "trackers" and "took 2 of 3 rows: OSError: the server is away" in line
    assert fake.rows == [ROWS[0], ROWS[2]] and fake.whole


def test_a_tracker_that_hangs_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(trackers, "_CLOSE_S", 0.2)
    release = threading.Event()
    ((_, line),) = track(monkeypatch, Fake(lambda *_: release.wait(30)))
    release.set()
    assert "took 0 of 3 rows: it has not ended within 0.2 s" in line


def test_what_is_logged_goes_to_the_trackers_without_what_is_no_number(tmp_path, monkeypatch):
    fake, run = Fake(), RunDir.open(tmp_path / "r", Config(domain="mini"))
    monkeypatch.setitem(trackers.TRACKERS, KIND, lambda *_: fake)
    with Metrics(run) as metrics, tracking([KIND], "r", tmp_path, {}, print) as metrics.trackers:
        metrics.log("mgpo", 3, {"reward": 0.5, "pass_at_k": float("nan")})
    run.close()
    assert fake.rows == [("mgpo", 3, {"reward": 0.5})]


def test_trackers_do_not_make_another_run_and_unknown_ones_are_refused():
    assert identity_of(Config(domain="mini", trackers=("wandb",))) == identity_of(Config(domain="mini"))
    with pytest.raises(ValueError, match="wandb"):
        Config(domain="mini", trackers=("comet",))


def test_a_client_that_is_not_installed_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(
        Failure, match=r"wandb is not installed; expected it, as `pip install 'agentic-proposing\[wandb\]'"
    ):
        with tracking(["wandb"], "r", tmp_path, {}, print):
            pass


# ---------------------------------------------------------------- their own clients, offline


def test_mlflow_has_the_figures_by_stage_and_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(trackers, "_CLOSE_S", 60.0)
    said: list[tuple[str, str]] = []
    for rows in (ROWS[:2], ROWS[2:]):
        with tracking(["mlflow"], "run-1", tmp_path, {"seed": 7}, lambda *line: said.append(line)) as opened:
            for row in rows:
                opened[0].log(*row)
    assert said == []
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("propose").experiment_id])
    assert run.info.run_name == "run-1" and run.data.params == {"seed": "7"} and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "mgpo/reward")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75)]
    assert run.data.metrics["sft/loss"] == 3.0 and len(run.data.metrics) == 3


@pytest.mark.slow  # starts W&B's own service
def test_wandb_writes_offline_what_wandb_sync_sends(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(trackers, "_CLOSE_S", 60.0)
    said: list[tuple[str, str]] = []
    with tracking(["wandb"], "run-1", tmp_path, {"seed": 7}, lambda *line: said.append(line)) as opened:
        for row in ROWS:
            opened[0].log(*row)
    assert said == []
    (file,) = tmp_path.glob("wandb/offline-run-*-run-1/run-run-1.wandb")
    content = file.read_bytes()
    assert all(json.dumps(name).strip('"').encode() in content for name in ("mgpo/reward", "sft/loss", "mgpo/step"))
