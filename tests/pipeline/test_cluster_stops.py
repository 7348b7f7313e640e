"""Runs on a Ray head of the test's own that are killed or stopped in every stage: how long the driver takes to end, how
long until nothing of the run is left on the cluster; and that a run beside them, and the run itself, lose nothing.

    pytest -n 0 -s -m nightly tests/pipeline/test_cluster_stops.py          about ten minutes each on two idle cores
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.rundir import RunDir
from pipeline.store.verify import verify
from tests.pipeline.pools.head import REPO, Head, checkout, head, until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

MOMENTS = {
    "acquire": (r"acquire · ", 0),
    "sft, collecting": (r"sft: collect · (starts|resumes)", 5),
    "sft, training": (r"sft: train · (starts|resumes)", 10),
    "mgpo": (r"mgpo · (starts|resumes)", 30),
    "synthesize": (r"synthesize · (starts|resumes)", 10),
    "solve": (r"solve · (starts|resumes)", 10),
    "evaluate": (r"evaluate: before · (starts|resumes)", 2),
}
"""A line of the job's log, and the seconds after it at which the run is stopped."""
ENDED_S, GONE_S = 60, 60
"""How long a driver may take to end, and then what it left to go."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Path]]:
    """A head, and the package of the jobs."""
    code = tmp_path_factory.mktemp("code")
    checkout(code)
    with head(4) as there:
        yield there, code


def kill(there: Head, name: str) -> None:
    os.kill(int(there.job(name)["driver_info"]["pid"]), signal.SIGKILL)


STOPS: dict[str, Callable[[Head, str], None]] = {"kill -9": kill, "ray job stop": Head.stop}


def submit(up: tuple[Head, Path], name: str, root: Path) -> None:
    there, code = up
    config = REPO / "deploy" / "configs" / "quick.yaml"
    run = [sys.executable, "-m", "pipeline", "run", str(config), "--run-dir", str(root)]
    there.submit(name, code, run, {"PYTHONUNBUFFERED": "1"})


def over(there: Head, name: str) -> bool:
    return there.job(name)["status"] in ("SUCCEEDED", "FAILED", "STOPPED")


def left(there: Head) -> list[str]:
    """What is on the cluster beside what belongs to it: Serve's controller, Ray's coordinator, Ray's own actors."""

    def rows(what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(there.get(f"/api/v0/{what}?limit=1000"))["data"]["result"]["result"]
        return found

    apps = list(json.loads(there.get("/api/serve/applications/"))["applications"])
    actors = [row["name"] or row["class_name"] for row in rows("actors") if row["state"] != "DEAD"]
    groups = [row["placement_group_id"] for row in rows("placement_groups") if row["state"] != "REMOVED"]
    of_ray = ("SERVE_CONTROLLER_ACTOR", "AutoscalingCoordinator", "_ray_internal_job_actor")
    return [*apps, *(name for name in actors if not name.startswith(of_ray)), *groups]


def reach(there: Head, name: str, moment: str) -> None:
    line, after_s = MOMENTS[moment]

    def reached() -> bool:
        assert not over(there, name), there.log(name)
        return re.search(line, there.log(name), flags=re.M) is not None

    until(reached, 900, lambda: there.log(name))
    time.sleep(after_s)


def whole(root: Path) -> None:
    """Nothing is missing, damaged, or counted twice."""
    assert [str(finding) for finding in verify(RunDir(root))] == []
    command = [sys.executable, "-m", "pipeline", "ledger", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPO)
    assert done.returncode == 0 and "everything adds up" in done.stdout, done.stdout + done.stderr


def stop_in(up: tuple[Head, Path], name: str, root: Path, moment: str, how: str) -> None:
    """Submit the run as job `name` and stop it at that moment; says how long it takes until nothing of it is left."""
    there = up[0]
    submit(up, name, root)
    reach(there, name, moment)
    began = time.monotonic()
    STOPS[how](there, name)
    until(lambda: over(there, name), ENDED_S, lambda: there.log(name))
    ended_s = time.monotonic() - began
    until(lambda: left(there) == [], GONE_S, lambda: left(there))
    gone_s = time.monotonic() - began
    print(f"{moment:<16} {how:<13} job over after {ended_s:4.1f} s, nothing left after {gone_s:4.1f} s", flush=True)


@pytest.mark.parametrize("how", STOPS)
def test_a_run_stopped_in_every_stage_leaves_nothing_and_ends_whole(
    up: tuple[Head, Path], tmp_path: Path, how: str
) -> None:
    there, root, job = up[0], tmp_path / "run", how.split()[0]
    print()
    for i, moment in enumerate(MOMENTS):
        stop_in(up, f"{job}-{i}", root, moment, how)
    submit(up, f"{job}-end", root)
    until(lambda: over(there, f"{job}-end"), 1500, lambda: there.log(f"{job}-end"))
    assert "propose: exit code 0" in there.log(f"{job}-end")
    whole(root)


def test_a_run_beside_one_that_is_killed_and_submitted_again_loses_nothing(
    up: tuple[Head, Path], tmp_path: Path
) -> None:
    there, roots = up[0], {name: tmp_path / name for name in ("killed", "beside")}
    for name, root in roots.items():
        submit(up, name, root)
    reach(there, "killed", "sft, collecting")
    kill(there, "killed")
    submit(up, "again", roots["killed"])
    for name in ("beside", "again"):
        until(lambda name=name: over(there, name), 2400, lambda name=name: there.log(name))
        assert "propose: exit code 0" in there.log(name), there.log(name)
    until(lambda: left(there) == [], GONE_S, lambda: left(there))
    for root in roots.values():
        whole(root)
