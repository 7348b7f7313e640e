"""Every hostile program, on every platform that can be simulated here; and a check that the harness would notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import languages

from .arena import Arena
from .attacks import ATTACKS, CPP_ATTACKS
from .simulate import PLATFORMS

ROOT = Path(__file__).parents[2]
LEVELS = {"vm-root": "strong+", "vm-user": "strong+", "docker-root": "strong", "k8s-restricted": "strong"}
HAVE_CPP = "c++" in languages.found()
HERE = tuple(LEVELS) if os.geteuid() == 0 else ("vm-root",)  # only root can simulate; anyone else runs as what they are


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    """The arena's report of each platform, all at once."""
    started = {}
    for platform in HERE:
        arena = [sys.executable, "-m", "tests.sandbox.arena"]
        command = [sys.executable, "-m", "tests.sandbox.simulate", platform, "--", *arena]
        pipe = subprocess.PIPE
        started[platform] = subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT, text=True)
    found = {}
    for platform, process in started.items():
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, f"{platform}: {errors[-2000:]}"
        found[platform] = [json.loads(line) for line in out.splitlines()]
    return found


@pytest.mark.parametrize("platform", HERE)
def test_everything_is_contained(rows: dict[str, list[dict]], platform: str) -> None:
    head, *outcomes = rows[platform]
    expected = len(ATTACKS) + 2  # and the ordinary programs, and what is left behind
    assert len(outcomes) == expected + HAVE_CPP * (len(CPP_ATTACKS) + 1)
    assert {row["name"]: row["faults"] for row in outcomes if not row["contained"]} == {}
    if os.geteuid() == 0:
        assert head["level"] == LEVELS[platform]


def test_the_harness_notices_what_has_no_walls(tmp_path: Path) -> None:
    """The same programs in a plain subprocess: those that do no harm must be seen to succeed."""
    arena = Arena()
    try:
        unseen = []
        for attack in (attack for attack in ATTACKS + CPP_ATTACKS * HAVE_CPP if attack.control):
            program = [sys.executable, "-c", arena.program(attack)]
            if attack.language == "c++":
                program = [str(tmp_path / "attack")]
                compiler = ["g++", "-w", "-x", "c++", "-std=gnu++20", "-", "-o", *program]
                subprocess.run(compiler, input=arena.program(attack), text=True, check=True)
            environment = os.environ | {"ARENA_TOKEN": "secret"}
            said = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=20).stdout
            if "BREACH" not in said:
                unseen.append(attack.name)
            arena.harm()  # takes in what reached the sockets
        assert unseen == []
    finally:
        arena.close()


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 27 + 25 and len(CPP_ATTACKS) >= 25
    assert len({attack.name for attack in ATTACKS + CPP_ATTACKS}) == len(ATTACKS + CPP_ATTACKS)
    assert set(LEVELS) <= set(PLATFORMS)
