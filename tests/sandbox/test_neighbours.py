"""Runs beside each other, on every platform that can be simulated here: see `neighbours`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import matrix, neighbours
from .simulate import PLATFORMS

ROOT = Path(__file__).parents[2]
HERE = PLATFORMS if os.geteuid() == 0 else PLATFORMS[:1]


def faults(honest: int, platforms: tuple[str, ...]) -> dict[str, dict[str, list[str]]]:
    """Of each platform, and there of each kind; all platforms at once."""
    started = {}
    for platform in platforms:
        script = [sys.executable, "-m", "tests.sandbox.neighbours", str(honest)]
        command = [sys.executable, "-m", "tests.sandbox.simulate", platform, "--", *script]
        pipe = subprocess.PIPE
        started[platform] = subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT, text=True)
    found = {}
    for platform, process in started.items():
        out, errors = process.communicate()
        assert process.returncode == 0, f"{platform}: {errors[-2000:]}"
        found[platform] = {row["name"]: row["faults"] for row in map(json.loads, out.splitlines())}
    return found


def test_no_run_harms_another_or_those_that_run_it() -> None:
    """On two platforms, the most and the least walled."""
    found = faults(10, tuple(platform for platform in HERE if platform in ("vm-root", "docker-root")))
    assert found == {platform: {kind.__name__: [] for kind in neighbours.KINDS} for platform in found}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_honest_runs_beside_each_kind_on_every_platform() -> None:
    found = faults(100, HERE)
    assert found == {platform: {kind.__name__: [] for kind in neighbours.KINDS} for platform in HERE}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to simulate platforms")
def test_honest_runs_end_as_alone_beside_a_tenth_of_the_hostile_programs() -> None:
    table, hostile, wrong = matrix.crowds(20, "1/10", [])
    assert hostile > 0 and wrong == 0, table
