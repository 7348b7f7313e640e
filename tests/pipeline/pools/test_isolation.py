"""Jobs on one cluster: the replicas of each have its package, variables and keys, and nobody can read the keys."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.pools.head import ENV, Head, checkout, free_port, head, until

DRIVER = """
import asyncio, json, os, sys, time
from pathlib import Path
from pipeline.config import PoolConfig
from pipeline.config.loading import load
from pipeline.pools.cluster import Cluster
from pipeline.pools.serving import PoolSpec
from told import Told

SETTINGS = ["teacher={kind: openai, base_url: 'http://x/v1', model: m, api_key_env: MY_KEY}"]

async def main(root):
    cluster = Cluster(load(None, SETTINGS), root, lambda *said: print(*said, flush=True))
    small = PoolConfig(num_cpus=0.1)
    pools = {trusted: PoolSpec(f"pool{trusted:d}", small, Told, {}, trusted=trusted) for trusted in (True, False)}
    while True:
        for trusted, spec in pools.items():
            said = await (await cluster._pool(spec)).say.remote()
            print("SAID", json.dumps(said | {"trusted": trusted}), flush=True)
        while not (root / "again").exists():
            await asyncio.sleep(0.3)
            if (root / "end").exists():
                await cluster.idle()
                return cluster.close()
        (root / "again").unlink()

root = Path(sys.argv[1])
root.mkdir()
asyncio.run(main(root))
"""
TOLD = """
import hashlib, os

class Told:
    def __init__(self):
        self.began = self.digest()

    def digest(self):
        return hashlib.sha256(os.environ["MY_KEY"].encode()).hexdigest() if "MY_KEY" in os.environ else None

    def say(self):
        import actors.whose
        names = ("MINE", "ONLY_ONE", "ONLY_SERVES", "SERVES_TOKEN", "OMP_NUM_THREADS")
        return {"package": actors.whose.NAME, "key": self.digest(), "at_first": self.began, "pid": os.getpid(),
                "env": {name: os.environ[name] for name in names if name in os.environ}}
"""
OTHERS = """
import sys, ray
from ray import serve
ray.init(address=sys.argv[1], runtime_env={"env_vars": {"ONLY_SERVES": "1", "SERVES_TOKEN": "t", "MINE": "s"},
         "working_dir": sys.argv[2]}, log_to_driver=False)
serve.start(proxy_location="HeadOnly", http_options={"port": int(sys.argv[3])})
"""
"""Somebody else, who starts Serve first."""


def package(folder: Path, name: str) -> Path:
    """A checkout of our code that knows its name."""
    checkout(folder)
    (folder / "actors" / "whose.py").write_text(f"NAME = {name!r}\n")
    (folder / "drive.py").write_text(DRIVER)
    (folder / "told.py").write_text(TOLD)
    return folder


def said(log: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in log.splitlines() if line.startswith("SAID ")]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def wait_for(there: Head, name: str, count: int) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]] | None:
        assert there.job(name)["status"] in ("PENDING", "RUNNING"), there.log(name)
        return found if len(found := said(there.log(name))) >= count else None

    return list(until(look, 150, lambda: there.log(name)))


def by_hand(there: Head, code: Path, root: Path, key: str) -> list[dict[str, Any]]:
    """What the pools say of a driver that nobody submitted, which ends then."""
    env = ENV | {"RAY_ADDRESS": there.address, "MY_KEY": key}
    command = [sys.executable, str(code / "drive.py"), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=root.parent) as driver:
        assert driver.stdout is not None
        lines: list[str] = []
        for line in driver.stdout:
            lines.append(line)
            if len(said("".join(lines))) == 2:
                (root / "end").touch()
        assert driver.wait(60) == 0
    return said("".join(lines))


def files_with(folder: Path, text: str) -> set[str]:
    held = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)) for path in held if text.encode() in path.read_bytes()}


@pytest.fixture(params=["ours", "others"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Head, str]]:
    """A head, and who starts Serve on it."""
    with head(2) as up:
        if request.param == "others":
            code = package(tmp_path / "others", "others")
            command = [sys.executable, "-c", OTHERS, up.address, str(code), str(free_port())]
            subprocess.run(command, check=True, timeout=120, capture_output=True, cwd=tmp_path, env=ENV)
        yield up, request.param


pytestmark = [pytest.mark.slow, pytest.mark.engine]


def test_two_jobs_have_each_its_own_and_nobody_reads_their_keys(there: tuple[Head, str], tmp_path: Path) -> None:
    up, starter = there
    keys = {"one": "sk-one-5d0cafe1", "two": "sk-two-9b1dfeed", "three": "sk-three-70adbeef"}
    file = tmp_path / "keys-of-one"  # as a secret of Kubernetes is mounted; no runtime env has it
    file.write_text(f"export MY_KEY={keys['one']}\n")
    proxies = json.loads(up.get("/api/serve/applications/"))["proxy_location"] if starter == "others" else "Disabled"
    entry = f". {file}; exec {sys.executable} drive.py {tmp_path / 'root-one'}"
    up.submit("one", package(tmp_path / "one", "one"), ["sh", "-c", entry], {"MINE": "1", "ONLY_ONE": "1"})
    first = wait_for(up, "one", 2)
    mine = {"MINE": "2", "OMP_NUM_THREADS": "2", "MY_KEY": keys["two"]}
    entry = f"exec {sys.executable} drive.py {tmp_path / 'root-two'}"
    up.submit("two", package(tmp_path / "two", "two"), ["sh", "-c", entry], mine)
    second = wait_for(up, "two", 2)
    third = by_hand(up, package(tmp_path / "three", "three"), tmp_path / "root-three", keys["three"])
    (tmp_path / "root-one" / "again").touch()
    again = wait_for(up, "one", 4)[2:]

    assert [one["pid"] for one in again] == [one["pid"] for one in first]
    for told, name, env in (
        (first + again, "one", {"MINE": "1", "ONLY_ONE": "1", "OMP_NUM_THREADS": "1"}),
        (second, "two", {"MINE": "2", "OMP_NUM_THREADS": "2"}),
        (third, "three", {"OMP_NUM_THREADS": "1"}),
    ):
        assert [one["package"] for one in told] == [name] * len(told)
        assert [one["env"] for one in told] == [env] * len(told)
        for one in told:
            assert one["key"] == one["at_first"] == (digest(keys[name]) if one["trusted"] else None)

    status = up.get("/api/serve/applications/")
    assert json.loads(status)["proxy_location"] == proxies
    assert len(json.loads(status)["applications"]) == 4 and '"env_vars"' in status
    session = (up.folder / "session_latest").resolve()
    for name, key in keys.items():
        assert key not in status
        assert not files_with(up.logs / "serve", key)
        assert not files_with(tmp_path / f"root-{name}", key)
        assert name == "two" or not files_with(session, key)
    told = "MY_KEY: set by the job's env_vars, which Ray logs"
    assert told in up.log("two") and told not in up.log("one")
    assert any("runtime_env_agent" in name for name in files_with(session, keys["two"])), "the page says that it logs"
    for name in ("one", "two"):
        (tmp_path / f"root-{name}" / "end").touch()
        until(lambda name=name: up.job(name)["status"] == "SUCCEEDED", 60, lambda name=name: up.log(name))
    assert os.listdir(tmp_path / "root-one") == ["end"]
