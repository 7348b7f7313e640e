"""Two nodes, one of which is killed while MGPO samples, once or twenty times: the run ends as it would have, and the
ledger adds up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.store import accounts
from pipeline.store.rundir import RunDir
from tests.pipeline.test_whole import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.timeout(1500)]


SETS = SMALL | {"sft.trajectories": 64, "sft.epochs": 1}


def command(stage: str, root: Path, *more: str) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in SETS.items()]
    return [sys.executable, "-m", "pipeline.cli", stage, "--json", "--run-dir", str(root), *sets, *more]


def replicas(raylet: int) -> list[str]:
    """Titles of the replicas on a node."""
    titles = []
    for child in psutil.Process(raylet).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            titles += [line for line in child.cmdline()[:1] if line.startswith("ray::ServeReplica")]
    return titles


@contextlib.contextmanager
def nodes() -> Iterator[tuple[Cluster, Callable[[], Any]]]:
    """A head, and what adds a node to it, of another address: a driver takes any node that has its own."""
    head = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def another() -> Any:
        node = cluster.add_node(num_cpus=2, object_store_memory=200 << 20, node_ip_address="127.0.0.2")
        cluster.wait_for_nodes()
        return node

    try:
        yield cluster, another
    finally:
        ray.shutdown()
        cluster.shutdown()


def until(child: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def steps(root: Path) -> int:
    return len(list((root / "steps" / "mgpo").glob("0*")))


def survives(root: Path, kills: int, of: int) -> None:
    """A run whose second node is killed and replaced so many times, a step or more apart."""
    length = f"--set=mgpo.steps={of}"
    for stage in ("acquire", "sft"):
        subprocess.run(command(stage, root, length), check=True, capture_output=True, timeout=400)
    with nodes() as (cluster, another):
        node = another()
        joined = command("mgpo", root, length, f"--set=ray.address={cluster.address}")
        child = subprocess.Popen(joined, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        try:
            for _ in range(kills):
                before, raylet = steps(root), node.all_processes["raylet"][0].process.pid
                until(child, lambda: steps(root) > before and bool(replicas(raylet)))  # noqa: B023
                cluster.remove_node(node, allow_graceful=False)
                node = another()
            out, err = child.communicate(timeout=900)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait(30)
    assert child.returncode == 0, err
    assert json.loads(out)["steps"] == of
    run, _ = RunDir.read(root)
    found = accounts.audit(run)
    assert found["findings"] == []
    stage = found["stages"]["mgpo"]
    assert stage["totals"]["tasks"] == of * 16 and stage["totals"]["live"] == 0
    assert stage["trained_twice"] == 0 and stage["checkpoints"][-1]["step"] == of


def test_a_run_survives_the_death_of_a_node(tmp_path: Path) -> None:
    survives(tmp_path / "run", kills=1, of=6)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_run_survives_twenty_deaths_of_nodes(tmp_path: Path) -> None:
    survives(tmp_path / "run", kills=20, of=24)


DRIVER = """
import contextlib, os, signal, sys, time
from pathlib import Path
from pipeline.cli import main
with contextlib.suppress(SystemExit):
    main(["config", "validate"])
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20)
os.kill(ray._private.worker._global_node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
time.sleep(1)
ray.shutdown()
Path(sys.argv[1]).write_text(str(os.getppid()))
"""


def test_a_driver_whose_parent_is_process_1_outlives_its_raylet(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shell = ["sh", "-c", '"$0" -c "$1" end > log 2>&1 & echo $!', sys.executable, DRIVER]
    started = subprocess.run(
        shell, cwd=tmp_path, capture_output=True, check=True, timeout=30,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    driver = int(started.stdout)
    deadline = time.monotonic() + 120
    while psutil.pid_exists(driver) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (tmp_path / "end").exists(), log.read_text()
    if (tmp_path / "end").read_text() != "1":
        pytest.skip("orphans have another parent here")
