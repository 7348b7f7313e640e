"""What a run can reach: the interpreter's own library, warm packages, the shared libraries that they need, devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import Request, Slot

from .simulate import PLATFORMS

ROOT = Path(__file__).parents[2]
HERE = [platform for platform in PLATFORMS if platform in ("vm-root", "docker-root")] if os.geteuid() == 0 else []


@pytest.fixture(scope="module", params=HERE or ["vm-root"])
def reached(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a run reaches with every wall, and with Landlock alone."""
    if request.param not in HERE:
        pytest.skip("only root can look into the root of a fork server, or simulate")
    simulated = [sys.executable, "-m", "tests.sandbox.simulate", request.param, "--"]
    command = [*simulated, sys.executable, "-m", __package__ + ".reach"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_reaches_nothing_else_of_the_machine(reached: dict[str, Any]) -> None:
    assert reached["tried"] > 3000
    assert (reached["status"], reached["opened"]) == ("ok", [])


def test_the_root_of_a_run_holds_nothing_else(reached: dict[str, Any]) -> None:
    """As it is seen from outside."""
    if reached["shown"] is None:
        pytest.skip("no mount jail here, so that the root of a run is the machine's")
    assert reached["shown"] == []


@pytest.mark.parametrize(
    "code",
    [
        "import sqlite3, ssl, bz2, lzma, zlib, hashlib, ctypes, uuid, decimal, multiprocessing, asyncio, curses",
        "import numpy.fft, numpy.ma, numpy.polynomial, numpy.testing; assert abs(numpy.fft.fft(numpy.ones(4))[0]) == 4",
        "import sympy.physics.units, sympy.stats, sympy.combinatorics; assert sympy.prime(5) == 11",
        "import zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin')",
        "import ctypes; ctypes.CDLL('libgcc_s.so.1')",  # which ends threads
    ],
)
def test_what_programs_import_when_they_run_is_there(slot: Slot, code: str) -> None:
    result = slot.run(Request(code))
    assert (result.status, result.stderr) == ("ok", "")
