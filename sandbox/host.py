"""The supervisor's side of one run: order it from a zygote, watch it to its end.

Invariant: what a run did is told by the kernel (through the zygote) and by what this side measured; a run's own words
are only carried. When `Run.finish` returns, the run's process is dead and its scratch about to go, or its zygote has
been killed too and the answer is `infra`.

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
import time
from collections.abc import Sequence
from typing import Any

from . import kernel, scratch
from .api import Limits, Status
from .server import GRACE_S, InfraError, Zygote

_TICK_S = 0.05
_LOOKING, _BLIND_S = 10, 0.25
"""How many times the CPU time of a look at scratch passes before the next, so that it stays a tenth; and how long at
most, because what a run writes meanwhile is not seen."""
_SIP, _REST_S = 4096, 0.005
"""A pipe that gave less than so much is left alone for so long: else each byte of a run would wake us up."""
_FREEZE_S = 1.0
_DYING_S = 10.0
"""What was killed ends when the kernel has done with it: it may be writing to a disk that is slow."""
MAX_CELLS = 64
"""Of a session."""
_CORES = os.cpu_count() or 1


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
        self.pid, self._pidfd, self._ready = 0, -1, False
        self._scratch: str | None = None
        """Where it lies, if it is not on a tmpfs of the run's own."""
        self._fds: dict[int, tuple[bytearray, int, str]] = {}
        self._resting: dict[int, float] = {}
        """Pipes that are not looked at before that time."""
        self._next_look = 0.0
        self._poll = select.poll()
        self._session, self._session_s = session_s is not None, session_s
        self._stdin = stdin
        self._job: int = -1
        self._to_write = memoryview(b"")
        self._token = b""
        self.cpu_before = 0.0
        """CPU seconds that its process had used before: to wall itself in, for the cells before."""
        self.peak_before_kb = 0
        """Resident memory that it had before, which counts into the peak of whatever it becomes."""
        self._facts: socket.socket | None = None

    # ------------------------------------------------------------ start

    def order(self, zygote: Zygote, job: bytes) -> None:
        """Ask for the child; does not wait. Raises InfraError."""
        self._zygote = zygote
        self._count_threads = not (zygote.layer("throw-away uid") or zygote.layer("pids cgroup"))
        try:
            self._facts, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as e:
            raise InfraError(f"no descriptors for a run: {e}") from None
        given = [theirs.fileno()]
        try:
            if not zygote.layer("mount jail"):
                self._scratch, home = scratch.make(zygote.folder)
                given.insert(0, home)
            if self._session:
                reading, self._job = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._job, False)
                given.insert(0, reading)
            else:
                given.insert(0, _memfd(job, program=self.language != "python" and self.stage is None))
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
            limits = dict(vars(self.limits))
            if self._session_s is not None:  # the kernel's CPU limit adds up over the cells, ours is for each
                limits["cpu_s"] = 2 * MAX_CELLS * (self.limits.cpu_s + GRACE_S)
            lifetime_s = (self._session_s or 0) + 2 * (self.limits.wall_s + GRACE_S)
            what = {"session": self._session, "language": self.language, "stage": self.stage}
            order = json.dumps({"limits": limits, "lifetime_s": lifetime_s, **what}).encode()
            zygote.orders.settimeout(GRACE_S)
            socket.send_fds(zygote.orders, [order], given)
        except OSError as e:
            if self._scratch is not None:  # which no run will have
                with contextlib.suppress(OSError):  # it goes with the folder
                    scratch.remove(self._scratch)
                self._scratch = None
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

    def send_cell(self, job: dict[str, Any]) -> None:
        """Give a session its next cell; `watch` then writes it as the session reads. The answer is to begin with a word
        that nobody has heard before: what was said on the pipe ahead of the cell is none."""
        self.drain()
        token = os.urandom(16).hex()
        self._token = b"\n" + token.encode()
        line = json.dumps(job | {"token": token}).encode() + b"\n"
        for kept in (self.stdout, self.stderr, self.report):
            kept.clear()
        self.truncated = False
        self.cpu_before = self.cpu_s()
        self.started = time.monotonic()
        self._to_write = memoryview(line)
        self._poll.register(self._job, select.POLLOUT)
        for fd in self._resting:
            self._poll.register(fd, select.POLLIN)
        self._resting.clear()

    def watch(self) -> None:
        """Until the run's exit, or a session's report. Enforces wall, CPU, output and, without tmpfs, disk."""
        wall_end = self.started + self.limits.wall_s
        self._next_look = self.started + _TICK_S
        while self.exit is None and not (self._session and self.verdict is None and self._answered()):
            now = time.monotonic()
            if self.verdict is not None:
                if not self._step(now + _DYING_S):
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
                self._step(min(wall_end, soonest, self._next_look if watched else wall_end))
                if watched and time.monotonic() >= self._next_look:
                    self._look()

    def _answered(self) -> bool:
        """Whether the session's cell has ended, by its own word; `report` then is that word alone."""
        said = b"\n" + self.report
        at = said.find(self._token)
        end = said.find(b"\n", at + 1)
        if at < 0 or end < 0:
            return False
        self.report[:] = said[at + len(self._token) : end]
        return True

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

    def freeze(self) -> None:
        """At the end of a session's cell: nothing of it runs any more, and all that it said and left in scratch is
        taken into account. If that is too much, it is killed."""
        self.pause(True)
        self.drain()
        if self._scratch is not None and self.verdict is None:
            try:
                if not self._within(self._count_still(self._scratch)):
                    self.kill(*self._too_much())
            except FileNotFoundError:
                pass  # it has ended: `watch` hears how
            except OSError as e:
                raise InfraError(f"scratch cannot be counted: {e}") from None

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
        now = time.monotonic()
        for fd in [fd for fd, end in self._resting.items() if end <= now]:
            del self._resting[fd]
            self._poll.register(fd, select.POLLIN)
        wake = min([until, *self._resting.values()])
        events = self._poll.poll(max(0.0, (wake - now) * 1000))
        for fd, _ in events:
            if fd == self._facts.fileno():
                self._hear()
            elif fd == self._job:
                self._write()
            elif fd in self._fds:
                self._read(fd)
        return bool(events) or wake < until

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
        if ("started" in said or "output" in said) and not fds:
            raise InfraError("no descriptors for a run")
        if "started" in said:
            self._pidfd = fds[0]
            self.pid = _pid_of(self._pidfd)
        elif "output" in said:
            self._output = fds[0]
        elif "ready" in said:
            self._ready, self.cpu_before, self.peak_before_kb = True, said["ready"], said["peak_kb"]
        elif "infra" in said:
            raise InfraError(said["infra"])
        else:
            self.exit = said | {"cpu_s": said["cpu_s"] - self.cpu_before}
            assert self._zygote is not None
            self._zygote.left = said["left"]
            if said.get("used") is not None and not self._within(said["used"]):
                self.verdict = self.verdict or self._too_much()
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
            self._leave_alone(fd)
            del self._fds[fd]
            os.close(fd)
            return 0
        if len(data) < _SIP:
            self._leave_alone(fd)
            self._resting[fd] = time.monotonic() + _REST_S
        if len(kept) + len(data) > most:
            kept += data[: most - len(kept)]
            self.truncated = True
            if self.exit is None:
                self.kill("output_limit", f"more than {most >> 10} KB of {name}")
            else:
                self.verdict = self.verdict or ("output_limit", f"more than {most >> 10} KB of {name}")
        else:
            kept += data
        return len(data)

    def _leave_alone(self, fd: int) -> None:
        self._resting.pop(fd, None)
        with contextlib.suppress(KeyError):  # a run that never started was not watched
            self._poll.unregister(fd)

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
        began = time.thread_time()
        if self._scratch is not None:
            try:
                *used, sure = scratch.usage(self._scratch, still=False)
                if not sure and self._within(used):
                    used = self._count_frozen(self._scratch)
            except FileNotFoundError:
                return  # it has ended: the zygote counts before it cleans
            except OSError as e:
                raise InfraError(f"scratch cannot be counted: {e}") from None
            if not self._within(used):
                self.kill(*self._too_much())
        if self._count_threads:
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/stat") as file:
                threads = int(file.read().rpartition(")")[2].split()[17])
                if threads > 1 + self.limits.threads:
                    self.kill("process_limit", f"more than {self.limits.threads} threads beside the first")
        spent = time.thread_time() - began
        self._next_look = time.monotonic() + min(max(_TICK_S, _LOOKING * spent), _BLIND_S)

    def _within(self, used: Sequence[int]) -> bool:
        return used[0] <= self.limits.scratch_mb << 20 and used[1] <= scratch.MOST_ENTRIES

    def _too_much(self) -> tuple[Status, str]:
        return "disk_limit", f"more than {self.limits.scratch_mb} MB or {scratch.MOST_ENTRIES} files of scratch"

    def _count_frozen(self, path: str) -> list[int]:
        """Count while nothing can move: the run stops, all its threads, for as long as that takes."""
        self.pause(True)
        try:
            return self._count_still(path)
        finally:
            self.pause(False)

    def _count_still(self, path: str) -> list[int]:
        """Of a run that was told to stop."""
        pause_s, end = 0.0002, time.monotonic() + _FREEZE_S
        while self._moves() and time.monotonic() < end:  # a thread may sit in the kernel, writing
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)
        return list(scratch.usage(path, still=True)[:2])

    def _moves(self) -> bool:
        """Whether a thread of the run has not stopped yet."""
        with contextlib.suppress(OSError):  # it has ended
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] not in "TtZX":
                        return True
        return False

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


def _memfd(data: bytes, program: bool = False) -> int:
    """An anonymous file with `data`, at its start. It can be executed if it is a `program`, and then not be read, so
    that nothing of it is ever dumped; else it cannot be executed."""
    how = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("run", how | (kernel.MFD_EXEC if program else kernel.MFD_NOEXEC_SEAL))
    except OSError:  # an older kernel, which asks for the mode only
        fd = os.memfd_create("run", how)
    try:
        os.fchmod(fd, 0o111 if program else 0o400)  # refused where the machine lets no such file be executed
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd
