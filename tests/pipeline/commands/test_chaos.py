"""Chaos: what is planned, what is said; and, slowly, real kills of a real run."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commands import chaos
from pipeline.commands.keys import CHAOS_KEYS
from pipeline.config.loading import load
from pipeline.records import Episode, Failure, Outcome, Probe, Rollout, Verdict, Vote
from pipeline.store import events
from pipeline.store.ledger import Ledger
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_keyed, write_records
from tests.pipeline.judged import episode, probe, rollout, task, verdict
from tests.pipeline.store.test_ledger import checkpoint
from tests.pipeline.test_whole import SMALL

OTHERS = [kind for kind in chaos.KINDS if kind != "driver"]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 60), st.integers(0, 6), st.integers(1, 30), st.integers(0, 1000))
def test_every_kind_has_its_turn_before_the_last_step(kills, drivers, steps, seed):
    schedule = chaos.plan(OTHERS, kills, drivers, steps, seed)
    counts = Counter(kind for _, kind in schedule)
    assert counts.pop("driver", 0) == drivers
    assert sum(counts.values()) == kills
    if kills:
        assert max(counts.values()) - min(counts.get(kind, 0) for kind in OTHERS) <= 1
    at = [step for step, _ in schedule]
    assert at == sorted(at)
    assert all(1 <= step <= max(1, steps * 3 // 4) for step in at)
    assert schedule == chaos.plan(OTHERS, kills, drivers, steps, seed)


def test_another_seed_is_another_order():
    assert chaos.plan(OTHERS, 15, 0, 10, 1) != chaos.plan(OTHERS, 15, 0, 10, 2)


GOOD = {
    "planned": 5,
    "kills": 5,
    "lost": 0,
    "failed_by_infra": 0,
    "trained_twice": 0,
    "findings": [],
    "orphans": 0,
    "checkpoint": {"step": 3, "rollouts": 40},
    "expected": {"step": 3, "rollouts": 40, "tasks": 48},
}


def test_a_result_is_sound_only_if_everything_is():
    assert chaos.sound(GOOD)
    for bad in (
        {"kills": 4},
        {"lost": 1},
        {"failed_by_infra": 1},
        {"trained_twice": 1},
        {"findings": ["x"]},
        {"orphans": 2},
        {"checkpoint": {"step": 2, "rollouts": 40}},
        {"checkpoint": {"step": 3, "rollouts": 41}},
    ):
        assert not chaos.sound(GOOD | bad)


def test_what_infrastructure_failed_is_told_from_what_could_not_be_decided(tmp_path):
    """Four tasks, all with an end: one is trained, three failed, two of them for what was killed under them."""
    names = ("trained", "given up", "without votes", "no verdict")
    played = [
        episode(task(name), outcome=Outcome(kind="infra_error", reason="died") if name == "given up" else None)
        for name in names
    ]
    lost = Vote(verifier="symbolic", valid=None, outcome=Outcome(kind="infra_error", reason="sandbox died"))
    abstained = lost.model_copy(update={"outcome": Outcome(kind="data_error", reason="an answer of [")})
    judged = [
        (played[0], verdict(played[0])),
        (played[2], verdict(played[2], "undecided").model_copy(update={"votes": (lost,)})),
        (played[3], verdict(played[3], "undecided").model_copy(update={"votes": (abstained,)})),
    ]
    config = load(None, ["mgpo.steps=1", "mgpo.groups=1", "mgpo.group_size=4"])
    run = RunDir.open(tmp_path / "run", config)
    ledger = Ledger(run, "mgpo")
    ledger.begin(1)
    ends = {(name, ledger.issue(name)): "trained" if name == "trained" else "failed" for name in names}
    with run.new_step("mgpo", 1) as folder:
        account = ledger.segment(folder, ends)
        (folder / "state.json").write_text(json.dumps({"ledger": account}))
        write_records(folder / "episodes.parquet", played, Episode)
        write_keyed(folder / "verdicts.parquet", {(e.id, e.attempt): v for e, v in judged}, Verdict)
        write_keyed(folder / "probes.parquet", {(played[0].id, played[0].attempt): probe(played[0])}, Probe)
        write_records(folder / "rollouts.parquet", [rollout("trained", tokens=2)], Rollout)
    ledger.commit(account)
    checkpoint(run, 1, rollouts=1)
    result = {"planned": 0} | chaos._result(config, run, [], 0, 1.0, 0)
    run.close()
    assert (result["lost"], result["failed_by_infra"], result["ends"]["failed"]) == (0, 2, 3)
    assert result["findings"] == [] and not chaos.sound(result) and chaos.sound(result | {"failed_by_infra": 0})
    assert set(result) == set(CHAOS_KEYS)


def test_what_was_trained_twice_is_counted_beyond_what_the_audit_lists(tmp_path):
    """The audit names twenty findings of a stage; the count is a figure of its own."""
    config = load(None, ["mgpo.steps=2", "mgpo.groups=5", "mgpo.group_size=5"])
    run = RunDir.open(tmp_path / "run", config)
    names = [f"task-{i}" for i in range(25)]
    played = [episode(task(name)) for name in names]
    for step in (1, 2):
        ledger = Ledger(run, "mgpo")
        ledger.begin(step)
        with run.new_step("mgpo", step) as folder:
            account = ledger.segment(folder, {(name, ledger.issue(name)): "trained" for name in names})
            (folder / "state.json").write_text(json.dumps({"ledger": account}))
            write_records(folder / "episodes.parquet", played, Episode)
            write_keyed(folder / "verdicts.parquet", {(e.id, e.attempt): verdict(e) for e in played}, Verdict)
            write_keyed(folder / "probes.parquet", {}, Probe)
            write_records(folder / "rollouts.parquet", [rollout(name, tokens=2) for name in names], Rollout)
        ledger.commit(account)
    checkpoint(run, 2, rollouts=50)
    result = chaos._result(config, run, [], 0, 1.0, 0)
    run.close()
    assert result["trained_twice"] == 25 and len(result["findings"]) < 25


class Process:
    """One of the process table; its children are below it."""

    def __init__(self, pid, title="", children=()):
        self.pid, self._title, self._children, self._parent = pid, title, children, 0
        for child in children:
            child._parent = pid

    def children(self, recursive):
        return [p for child in self._children for p in (child, *child.children(recursive))]

    def cmdline(self):
        return [self._title]

    def ppid(self):
        return self._parent

    def create_time(self):
        return 0.0


def test_an_engine_is_known_by_its_replica(tmp_path, monkeypatch):
    tree = Process(1, children=[
        Process(2, "/ray/raylet/raylet", [
            Process(3, "ray::ServeReplica:run-1-proposer:Proposer.episode", [Process(4, "VLLM::EngineCore")]),
            Process(5, "ray::ServeReplica:run-1-solver-0:Solver", [Process(6, "VLLM::EngineCore")]),
            Process(7, "ray::ServeReplica:run-1-student:Solver", [Process(8, "VLLM::EngineCore")]),
        ]),
    ])  # fmt: skip
    victim = chaos.Victim(tmp_path, tmp_path, 1.0)
    victim._child = SimpleNamespace(pid=1)
    monkeypatch.setattr(chaos.psutil, "Process", lambda pid: tree)
    found = {kind: [p.pid for p in processes] for kind, processes in victim._found().items()}
    assert found == {
        "driver": [1], "raylet": [2], "proposer": [3], "engine": [4], "solver": [5], "solver-engine": [6],
    }  # fmt: skip


def test_what_holds_the_stages_state_is_noticed_by_the_stage_not_by_ray(tmp_path, monkeypatch):
    """Ray starts a weight store again at once, and the stage may train a step before it knows."""
    victim, run = chaos.Victim(tmp_path, tmp_path, 1.0), RunDir(tmp_path)
    victim._child = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(victim, "_found", lambda: {kind: [SimpleNamespace(pid=2)] for kind in chaos.KINDS})
    assert victim._noticed("sandbox", {1}, 0.0)
    assert not victim._noticed("weights", {1}, 0.0)
    events.append(run, "stage_restarted", stage="mgpo", steps=2, cause="WeightStore: gone", pools="kept")
    assert victim._noticed("weights", {1}, 0.0)
    assert not victim._noticed("weights", {1}, time.time() + 1), "that was before the kill"


def test_a_new_directory_is_a_run_before_anything_else_is_kept_there(tmp_path, monkeypatch):
    config, opened = load(None, []), []

    def undisturbed(stage, root, folder):
        RunDir.open(root, config).close()  # as the stage's own process does
        opened.append(stage)
        raise Failure("so far")

    monkeypatch.setattr(chaos, "_undisturbed", undisturbed)
    with pytest.raises(Failure, match=r"^so far$"):
        chaos.chaos(config, tmp_path / "new", [], 0, 1.0, print)
    assert opened == ["acquire"]


def test_an_unknown_kind_is_one_line(tmp_path):
    done = command(tmp_path, "--kinds", "proposer,teapot")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("propose: --kinds: unknown kind 'teapot'; expected some of proposer, engine,")


def command(root: Path, *options: str) -> subprocess.CompletedProcess:
    sets = [f"--set={name}={value}" for name, value in SMALL.items()]
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "chaos", "--json", "--run-dir", str(root), *sets, *options],
        capture_output=True, text=True, timeout=1500, env=os.environ,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_survives_the_death_of_its_processes(tmp_path, staleness):
    kinds = "engine,sandbox,buffer,train-worker"
    options = (f"--set=mgpo.max_staleness={staleness}", "--set=mgpo.steps=6", "--kinds", kinds)
    done = command(tmp_path / "run", *options, "--kills", "4", "--driver-kills", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["kills"], result["lost"], result["trained_twice"], result["findings"]) == (5, 0, 0, [])
    assert set(result["kinds"]) == {*kinds.split(","), "driver"}
    assert result["kinds"]["driver"]["how"] == ["resumed"]
    assert result["checkpoint"]["step"] == 6
