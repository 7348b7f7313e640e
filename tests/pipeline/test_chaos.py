"""Chaos: what is planned, what is said; and, slowly, real kills of a real run."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import chaos
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
        {"trained_twice": 1},
        {"findings": ["x"]},
        {"orphans": 2},
        {"checkpoint": {"step": 2, "rollouts": 40}},
        {"checkpoint": {"step": 3, "rollouts": 41}},
    ):
        assert not chaos.sound(GOOD | bad)


def test_what_holds_the_stages_state_is_noticed_by_the_stage_not_by_ray(tmp_path, monkeypatch):
    """Ray starts a weight store again at once, and the stage may train a step before it knows."""
    victim, log = chaos.Victim(tmp_path, tmp_path, 1.0), tmp_path / "driver.log"
    log.write_bytes(b"")
    victim._child = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(victim, "_found", lambda: {kind: [SimpleNamespace(pid=2)] for kind in chaos.KINDS})
    assert victim._noticed("sandbox", {1}, 0.0, b"")
    assert not victim._noticed("weights", {1}, 0.0, b"")
    log.write_bytes(b"mgpo \xc2\xb7 WeightStore: its process is gone; begins again from what is on disk\n")
    assert victim._noticed("weights", {1}, 0.0, b"")


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
