"""The supervisor's side of a fork server: start it, know its layers, end it.

Invariant: a zygote that was killed or closed has left nothing: no process, no descriptor, and no folder or control
group but one that its dying runs still hold, which the next to start sweeps.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from . import groups, kernel, languages, scratch
from .api import Layer, SandboxUnavailable

GRACE_S = 2.0
START_S = 90.0
_BOOT = "import sys; sys.path.insert(0, sys.argv[2]); from sandbox.zygote import main; sys.path.pop(0); main()"


class InfraError(Exception):
    """The sandbox, not the program, failed."""


class Zygote:
    """One fork server process. Safe for several threads: an order is one message, answers come on each run's own
    socket."""

    def __init__(self, packages: tuple[str, ...]):
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"the sandbox needs Linux; on {sys.platform} run the project in its container (deploy/Dockerfile)"
            )
        kernel.arch()
        self.folder, lock = scratch.new_folder()
        self._locks = [lock]
        """Whoever finds these free may take the folders away; the fork server has them too."""
        self._ending = threading.Lock()
        """A slot that closes and a run that finds its zygote dead may end it at once."""
        self._group, no_group = "", ""
        try:
            self._group, lock = groups.new_folder()
            self._locks.append(lock)
        except OSError as e:
            no_group = e.strerror or str(e)
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.memfd_create("sandbox-zygote-log")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, str(theirs.fileno()), _package_root()],
                env=_clean_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(theirs.fileno(), *self._locks),
                start_new_session=True,
            )
            theirs.close()
            hello = self._greet(packages, log, no_group)
        except BaseException:
            self.kill()
            raise
        finally:
            theirs.close()
            os.close(log)
        self.left = 0
        """Scratch directories that could not be removed when their runs ended."""
        self.layers = tuple(Layer(name, *said) for name, said in hello["layers"].items())
        if self.layer("mount jail"):
            scratch.remove(self.folder)  # it was but the place to mount on
        if self._group and not self.layer("cgroup"):
            groups.remove(self._group)

    def layer(self, name: str) -> bool:
        return any(layer.active for layer in self.layers if layer.name == name)

    def _greet(self, packages: tuple[str, ...], log: int, no_group: str) -> dict[str, Any]:
        said = b""
        with contextlib.suppress(OSError):
            self.orders.settimeout(START_S)
            tools = {name: asdict(chain) for name, chain in languages.found().items()}
            where = {"folder": self.folder, "group": self._group, "no_group": no_group}
            self.orders.send(json.dumps({"packages": packages, "languages": tools, **where}).encode())
            said = self.orders.recv(1 << 16)
            self.orders.settimeout(None)
        if not said:
            last = os.pread(log, 1 << 16, 0).decode(errors="replace").strip().splitlines()
            raise InfraError(f"the fork server did not start: {last[-1] if last else 'no answer'}")
        return dict(json.loads(said))

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def retire(self) -> None:
        """No more orders; it ends with its last run."""
        self.orders.close()

    def reaped(self) -> bool:
        """Whether a retired one has ended; if so, nothing of it is left."""
        if self.alive:
            return False
        self.kill()
        return True

    def close(self) -> None:
        """End it, and with it every run it still has."""
        self.orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self.kill()

    def kill(self) -> None:
        self.orders.close()
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        with self._ending:
            if self._locks:
                self._clear()
                for lock in self._locks:
                    os.close(lock)
                self._locks = []

    def _clear(self) -> None:
        """Remove the folders, in which its last runs may be dying still; if that cannot be, the next slot to start
        finds them unlocked, and tries again."""
        end = time.monotonic() + GRACE_S
        for path, remove in ((self.folder, scratch.remove), (self._group, groups.remove)):
            while os.path.exists(path):
                try:
                    remove(path)
                except OSError:
                    if time.monotonic() > end:
                        break
                    time.sleep(0.01)


def _package_root() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _clean_environment() -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # One arena: else each thread reserves 64 MB of the address space that the memory limit counts.
    fixed = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "MALLOC_ARENA_MAX": "1"}
    return dict.fromkeys(threads, "1") | fixed
