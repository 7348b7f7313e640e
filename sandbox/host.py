"""The supervisor's side: start a zygote, hand it orders, watch one run to its end.

Invariant: what a run did is told by the kernel (through the zygote) and by what this side measured; a run's own words
are only carried. When `Run.finish` returns, the run's process is dead and its scratch is gone, or its zygote has been
killed too and the answer is `infra`.

Each `Run` waits on its own descriptors: its output pipes, and the facts socket on which its zygote speaks of it alone.
Every wait ends at a deadline: the run's wall limit, then `GRACE_S` for the zygote to say how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from . import kernel, languages, scratch
from .api import Layer, Limits, SandboxUnavailable, Status

GRACE_S = 2.0
START_S = 90.0
_TICK_S = 0.05
_MOST_ENTRIES = 1024
_CORES = os.cpu_count() or 1
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
        self.folder, self._lock = scratch.new_folder()
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
                pass_fds=(theirs.fileno(), self._lock),
                start_new_session=True,
            )
            theirs.close()
            hello = self._greet(packages, log)
        except BaseException:
            self.kill()
            raise
        finally:
            theirs.close()
            os.close(log)
        self.layers = tuple(Layer(name, *said) for name, said in hello["layers"].items())
        if self.layer("mount jail"):
            scratch.remove(self.folder)  # it was but the place to mount on

    def layer(self, name: str) -> bool:
        return any(layer.active for layer in self.layers if layer.name == name)

    def _greet(self, packages: tuple[str, ...], log: int) -> dict[str, Any]:
        said = b""
        with contextlib.suppress(OSError):
            self.orders.settimeout(START_S)
            tools = {name: asdict(chain) for name, chain in languages.found().items()}
            self.orders.send(json.dumps({"packages": packages, "folder": self.folder, "languages": tools}).encode())
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
        if self._lock >= 0:
            with contextlib.suppress(FileNotFoundError):
                scratch.remove(self.folder)
            os.close(self._lock)
            self._lock = -1


def _package_root() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _clean_environment() -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # One arena: else each thread reserves 64 MB of the address space that the memory limit counts.
    fixed = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "MALLOC_ARENA_MAX": "1"}
    return dict.fromkeys(threads, "1") | fixed


class Run:
    """One child of a zygote: `order`, `await_walls`, `watch` until its exit (a session: until a report), `finish`."""

    def __init__(
        self,
        limits: Limits,
        stdin: bytes = b"",
        session_s: float | None = None,
        language: str = "python",
        stage: int | None = None,
    ):
        self.limits = limits
        """Of the run, or of each cell of a session that lives `session_s`."""
        self.language, self.stage = language, stage
        """Not `python`: the run becomes that stage of the language's compiler or, with None, a binary."""
        self._output = -1
        self._zygote: Zygote | None = None
        self.stdout, self.stderr, self.report = bytearray(), bytearray(), bytearray()
        self.output = b""
        """The file that a stage of a compiler wrote; a claim like all else."""
        self.truncated = False
        self.exit: dict[str, Any] | None = None
        self.verdict: tuple[Status, str] | None = None
        """Why this side ended the run, if it did."""
        self.pid, self._pidfd, self._scratch, self._ready = 0, -1, None, False
        self._fds: dict[int, tuple[bytearray, int, str]] = {}
        self._poll = select.poll()
        self._session, self._session_s = session_s is not None, session_s
        self._stdin = stdin
        self._job: int = -1
        self._to_write = memoryview(b"")
        self.cpu_before = 0.0
        """CPU seconds that its process had used before: to wall itself in, for the cells before."""
        self._facts: socket.socket | None = None

    # ------------------------------------------------------------ start

    def order(self, zygote: Zygote, job: bytes) -> None:
        """Ask for the child; does not wait. Raises InfraError."""
        self._zygote = zygote
        self._count_threads = not zygote.layer("throw-away uid")
        self._facts, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = [theirs.fileno()]
        try:
            if self._session:
                reading, self._job = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._job, False)
                given.insert(0, reading)
            else:
                given.insert(0, _memfd(job))
            for kept, most, name in (
                (self.report, (self.limits.value_kb << 10) + 4096, "value"),
                (self.stderr, self.limits.stderr_kb << 10, "stderr"),
                (self.stdout, self.limits.stdout_kb << 10, "stdout"),
            ):
                mine, its = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(mine, False)
                given.insert(0, its)
                self._fds[mine] = (kept, most, name)
            given.insert(0, _memfd(self._stdin))
            limits = asdict(self.limits)
            if self._session_s is not None:  # the kernel's CPU limit adds up over the cells, ours is for each
                limits["cpu_s"] = self._session_s
            lifetime_s = (self._session_s or self.limits.wall_s) + 2 * GRACE_S
            what = {"session": self._session, "language": self.language, "stage": self.stage}
            order = json.dumps({"limits": limits, "lifetime_s": lifetime_s, **what}).encode()
            zygote.orders.settimeout(GRACE_S)
            socket.send_fds(zygote.orders, [order], given)
        except OSError as e:
            raise InfraError(f"the fork server is gone: {e}") from None
        finally:
            for fd in given[:-1]:
                os.close(fd)
            theirs.close()
        self._facts.settimeout(0)
        self._poll.register(self._facts, select.POLLIN)

    def await_walls(self) -> None:
        """Until the child says that its last layer is in place. Raises InfraError."""
        deadline = time.monotonic() + GRACE_S + 3
        while not self._ready or self._pidfd < 0:  # said by two processes, in any order
            if not self._step(deadline):
                raise InfraError("the fork server did not answer in time")
        for fd in self._fds:  # not before: a flood may come sooner than the handle to stop it by
            self._poll.register(fd, select.POLLIN)
        self.started = time.monotonic()

    # ------------------------------------------------------------ watch

    def send_cell(self, line: bytes) -> None:
        """Give a session its next cell; `watch` then writes it as the session reads."""
        self.drain()
        for kept in (self.stdout, self.stderr, self.report):
            kept.clear()
        self.truncated = False
        self.cpu_before = self.cpu_s()
        self.started = time.monotonic()
        self._to_write = memoryview(line)
        self._poll.register(self._job, select.POLLOUT)

    def watch(self) -> None:
        """Until the run's exit, or a session's report. Enforces wall, CPU, output and, without tmpfs, disk."""
        wall_end = self.started + self.limits.wall_s
        while self.exit is None and not (self._session and self.verdict is None and self.report.endswith(b"\n")):
            now = time.monotonic()
            if self.verdict is not None:
                if not self._step(now + GRACE_S):
                    raise InfraError("a killed run did not end")
                continue
            cpu_left = self.limits.cpu_s - (self.cpu_s() - self.cpu_before)
            if now >= wall_end:
                self.kill("timeout", f"no end after {self.limits.wall_s:g} s")
            elif cpu_left <= 0:
                self.kill("cpu_limit", f"more than {self.limits.cpu_s:g} s of CPU time")
            else:
                # The soonest that all cores together could use up what CPU time is left.
                soonest = now + max(cpu_left / _CORES, 0.005)
                watched = self._scratch is not None or self._count_threads
                self._step(min(wall_end, soonest, now + (_TICK_S if watched else 3600)))
                self._look()

    def finish(self) -> None:
        """Take what is left in the pipes and let go of every descriptor. The run is dead when this returns."""
        if self.exit is None:
            self._make_sure_it_is_dead()
        self.drain()
        if self._output >= 0:  # its writers are dead
            size = os.fstat(self._output).st_size
            self.output = os.pread(self._output, size, 0)
        for fd in [*self._fds, self._job, self._pidfd, self._output]:
            if fd >= 0:
                os.close(fd)
        self._fds.clear()
        self._job = self._pidfd = self._output = -1
        if self._facts is not None:
            self._facts.close()

    def drain(self) -> None:
        """Take what the pipes hold now."""
        for fd in list(self._fds):
            while fd in self._fds and self._read(fd):
                pass

    def kill(self, status: Status, reason: str) -> None:
        self.verdict = self.verdict or (status, reason)
        if self._pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except PermissionError:  # another uid, and we hold no CAP_KILL: the zygote can
            assert self._facts is not None
            self._facts.shutdown(socket.SHUT_WR)
        except ProcessLookupError:
            pass

    def pause(self, stop: bool) -> None:
        """Freeze or thaw a session, so that nothing runs between its cells."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP if stop else signal.SIGCONT)

    def cpu_s(self) -> float:
        try:
            return kernel.cpu_seconds(self.pid) if self.pid > 0 else 0.0
        except OSError:  # it has ended and been reaped; its exit message is on the way
            return 0.0

    def resident_kb(self) -> int:
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() >> 10
        return 0

    # ------------------------------------------------------------ one step

    def _step(self, until: float) -> bool:
        """Wait for the next event and take it in; False if there was none by `until`."""
        assert self._facts is not None
        events = self._poll.poll(max(0.0, (until - time.monotonic()) * 1000))
        for fd, _ in events:
            if fd == self._facts.fileno():
                self._hear()
            elif fd == self._job:
                self._write()
            elif fd in self._fds:
                self._read(fd)
        return bool(events)

    def _hear(self) -> None:
        assert self._facts is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._facts, 4096, 1)
        except BlockingIOError:
            return
        except OSError as e:
            raise InfraError(f"the fork server is gone: {e}") from None
        if not data:
            raise InfraError("the fork server died during the run")
        said = json.loads(data)
        if "started" in said:
            self._scratch, self._pidfd = said["scratch"], fds[0]
            self.pid = _pid_of(self._pidfd)
        elif "output" in said:
            self._output = fds[0]
        elif "ready" in said:
            self._ready, self.cpu_before = True, said["ready"]
        elif "infra" in said:
            raise InfraError(said["infra"])
        else:
            self.exit = said | {"cpu_s": said["cpu_s"] - self.cpu_before}
            if not self._ready:
                raise InfraError(f"the run died before its walls stood ({said['exit']})")

    def _read(self, fd: int) -> int:
        """Take what a pipe holds, no more than its limit; the first byte beyond ends the run."""
        kept, most, name = self._fds[fd]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return 0
        if not data:
            with contextlib.suppress(KeyError):  # a run that never started was not watched
                self._poll.unregister(fd)
            del self._fds[fd]
            os.close(fd)
        elif len(kept) + len(data) > most:
            kept += data[: most - len(kept)]
            self.truncated = True
            if self.exit is None:
                self.kill("output_limit", f"more than {most >> 10} KB of {name}")
            else:
                self.verdict = self.verdict or ("output_limit", f"more than {most >> 10} KB of {name}")
        else:
            kept += data
        return len(data)

    def _write(self) -> None:
        try:
            sent = os.write(self._job, self._to_write)
        except BrokenPipeError:  # the session closed its input: it will get no further cell
            sent = len(self._to_write)
        self._to_write = self._to_write[sent:]
        if not self._to_write:
            self._poll.unregister(self._job)

    def _look(self) -> None:
        """What the kernel does not bound: total disk where there is no tmpfs, threads where the uid is shared."""
        if self._scratch is not None:
            size, entries = scratch.usage(self._scratch, _MOST_ENTRIES)
            if size > self.limits.scratch_mb << 20 or entries > _MOST_ENTRIES:
                self.kill("disk_limit", f"more than {self.limits.scratch_mb} MB or {_MOST_ENTRIES} files of scratch")
        if self._count_threads:
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/stat") as file:
                threads = int(file.read().rpartition(")")[2].split()[17])
                if threads > self.limits.threads:
                    self.kill("process_limit", f"more than {self.limits.threads} threads")

    def _make_sure_it_is_dead(self) -> None:
        """The zygote cannot be asked any more: kill it (its children follow), and the run by its own handle."""
        if self._zygote is not None:
            self._zygote.kill()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            gone = select.poll()
            gone.register(self._pidfd, select.POLLIN)
            gone.poll(GRACE_S * 1000)


def _pid_of(pidfd: int) -> int:
    """The process number as it is here: the zygote may be in another pid namespace. -1 once it is reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def _memfd(data: bytes) -> int:
    """An anonymous file with `data`, at its start."""
    fd = os.memfd_create("run", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
