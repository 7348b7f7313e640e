"""A Ray head of a test's own, as an operator starts one: with its own ports, folder and jobs page, ended by its pid."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.util import get_node_ip_address

REPO = Path(__file__).parents[3]
ENV = os.environ | {"RAY_AUTH_MODE": "disabled"}
"""Of a head and of whoever talks to it: a token file of the user's would close its pages."""
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


class Head:
    """One that is up. Its jobs page is at `page`, its files are in `folder`."""

    def __init__(self, folder: Path, page: str, address: str):
        self.folder, self.page, self.address = folder, page, address

    @property
    def logs(self) -> Path:
        return self.folder / "session_latest" / "logs"

    def submit(self, name: str, working_dir: Path, entry: Sequence[str], env: Mapping[str, str]) -> None:
        """By Ray's own command, which returns once the job is accepted."""
        runtime_env = json.dumps({"env_vars": dict(env)})
        command = [
            *RAY, "job", "submit", "--address", self.page, "--no-wait", "--submission-id", name,
            "--working-dir", str(working_dir), "--runtime-env-json", runtime_env, "--", *entry,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=ENV)

    def stop(self, name: str) -> None:
        command = [*RAY, "job", "stop", "--address", self.page, name]
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=ENV)

    def job(self, name: str) -> dict[str, Any]:
        """What Ray says of a job: status, message, driver_exit_code."""
        found: dict[str, Any] = json.loads(self.get(f"/api/jobs/{name}"))
        return found

    def log(self, name: str) -> str:
        """What a job has written so far."""
        file = self.logs / f"job-driver-{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.page + path, timeout=30) as answer:
            return str(answer.read().decode())


def until(true: Callable[[], Any], timeout_s: float, told: Callable[[], object] = str) -> Any:
    """The first true answer; asked again every 0.3 s. `told`: what is said where there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {told()}"
        time.sleep(0.3)
    return found


def checkout(folder: Path) -> None:
    """Our code, as a job brings it along: without environment, runs and tests."""
    for part in ("actors", "pipeline", "sandbox", "trainers"):
        shutil.copytree(REPO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def head(cpus: float) -> Iterator[Head]:
    """Raises AssertionError where Ray does not come up within two minutes."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets lie in it, whose paths must be short
    gcs, page = free_port(), free_port()
    own = {"--port": gcs, "--dashboard-port": page}
    own |= {f"--{name}-port": free_port() for name in ("ray-client-server", "metrics-export", "dashboard-agent-listen")}
    own |= {"--min-worker-port": 0, "--max-worker-port": 0}  # any that is free
    command = [
        *RAY, "start", "--head", "--block", f"--num-cpus={cpus:g}",
        "--object-store-memory=100000000", f"--temp-dir={folder}", "--include-dashboard=true", "--disable-usage-stats",
        *(f"{name}={value}" for name, value in own.items()),
    ]  # fmt: skip
    said = folder / "said.txt"
    with said.open("w") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env=ENV, cwd=folder)
    there = Head(folder, f"http://127.0.0.1:{page}", f"{get_node_ip_address()}:{gcs}")
    try:
        until(lambda: started.poll() is not None or _answers(there), 120, said.read_text)
        assert started.poll() is None, said.read_text()
        yield there
    finally:
        _end(started)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(there: Head) -> bool:
    try:
        return bool(json.loads(there.get("/api/jobs/")) == [])
    except (OSError, ValueError):
        return False


def _end(started: subprocess.Popen[bytes]) -> None:
    """End a head and whatever it started."""
    all_of_it = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
    started.terminate()
    try:
        started.wait(30)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait(30)
    for process in psutil.wait_procs(all_of_it, 5)[1]:
        process.kill()
