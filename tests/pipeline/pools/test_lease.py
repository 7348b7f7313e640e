"""Drivers that are killed on a cluster that they share: what they left goes, and what others have there stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster

from pipeline.pools import lease
from tests.mini import MINI

DRIVER = """
import asyncio, os, sys
from pathlib import Path
from pipeline.config import PoolConfig
from pipeline.pools import lease
from pipeline.pools.cluster import Cluster
from pipeline.pools.serving import PoolSpec
from pipeline.records import Failure
from tests.mini import MINI, changed
from pipeline.config import RayConfig

class Echo:
    def pid(self):
        return os.getpid()
    async def forever(self):
        await asyncio.sleep(3600)

async def main():
    address, root, patience = sys.argv[1:]
    lease._PATIENCE_S = float(patience)
    pool = PoolConfig(max_replicas=2)  # one that scales lets the calls under way end, for as long as those may take
    cluster = Cluster(MINI.model_copy(update={"ray": RayConfig(address=address)}), Path(root))
    try:
        handle = await cluster._pool(PoolSpec("echo", pool, Echo, {}, longest_call_s=600))
        under_way = handle.forever.remote()
        cluster.buffer()
        print(await handle.pid.remote(), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(await handle.pid.remote(), flush=True)
    except Failure as e:
        print(f"{e.kind}: {e}", flush=True)
    await cluster.idle()
    cluster.close()

asyncio.run(main())
"""


class Driver:
    """A process that has a pool of one replica, and asks it for its process whenever it is asked."""

    def __init__(self, address: str, root: Path, patience_s: float = 60):
        self.name = lease.name_of(MINI, root)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, address, str(root), str(patience_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.says()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    ray.init(address=cluster.address, namespace=lease.NAMESPACE, log_to_driver=False)
    try:
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def drive(address: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    started: list[Driver] = []

    def start(name: str, **options: float) -> Driver:
        started.append(Driver(address, tmp_path / name, **options))
        return started[-1]

    yield start
    for driver in started:
        driver.kill()


def there(name: str) -> list[str]:
    """What a run has on the cluster."""
    actors = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True)]
    return [*(app for app in serve.status().applications if name in app), *(a for a in actors if name in a)]


def until(true: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < 60
        time.sleep(0.2)
    return time.monotonic() - began


def gone(pid: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    return True


pytestmark = [pytest.mark.slow, pytest.mark.engine]


def test_what_a_killed_driver_left_goes_and_another_run_keeps_its_own(drive: Callable[..., Driver]) -> None:
    killed, other = drive("killed"), drive("other")
    replica, others = killed.says(), other.says()
    assert any(app == f"{killed.name}-echo" for app in there(killed.name)) and killed.name in there(killed.name)
    killed.kill()
    took = until(lambda: there(killed.name) == [] and gone(replica))
    print(f"gone {took:.1f} s after the driver")
    assert other.asked() == others and there(other.name)
    other.end()
    until(lambda: there(other.name) == [] and gone(others))


def test_the_same_run_again_at_once_finds_nothing_of_the_killed_driver(drive: Callable[..., Driver]) -> None:
    killed = drive("run")
    before = killed.says()
    killed.kill()
    again = drive("run")
    assert again.says() not in ("", before)
    assert gone(before)
    assert again.asked()


def test_a_second_driver_of_a_run_that_lives_is_refused_and_takes_nothing(drive: Callable[..., Driver]) -> None:
    first = drive("run")
    replica = first.says()
    second = drive("run", patience_s=3)
    assert second.says().startswith(f"infra_error: run {first.name}: the cluster gave no lease within 3 s: it is held")
    second.end()
    assert first.asked() == replica


def test_a_lease_that_dies_before_its_driver_removes_what_the_driver_left(drive: Callable[..., Driver]) -> None:
    driver = drive("run")
    replica = driver.says()
    actor = ray.get_actor(driver.name, lease.NAMESPACE)
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    driver.kill()
    until(lambda: there(driver.name) == [] and gone(replica))
