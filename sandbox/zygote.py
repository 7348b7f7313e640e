"""The fork server: a clean, warm, single-threaded interpreter that forks one walled-in child per run.

Invariant: it holds no secret and never sees a byte of a run's code, input or output; those are descriptors that pass
through, so that no child can find another's data in inherited memory; nor the name of a scratch directory, which comes
as a descriptor too.

Consumes orders from its socket (a JSON header with the descriptors of one run), and hands each to a child that it has
forked while the run before was on, and that waits for nothing else, or to be told that the slot is idle. Produces, on
each run's own facts socket: `started` with a pidfd, `ready` from the child itself, `exit` with what the kernel says.
Waits for its socket, its children's ends and their facts sockets only. A facts socket that closes is the order to kill
that child; its own socket that closes means no more orders, and the process ends with its last child. So when the
supervisor dies, everything below dies.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from . import child, kernel, languages, pages, program, scratch, walls, warmup
from .api import Limits
from .groups import Groups

_REST_MS = 1
"""A slot is idle when a run has ended and no order has come for so long: a caller that has one is quicker. Work ahead
is for idle slots, because in all it is more than what it saves."""


@dataclass
class _Child:
    pid: int
    pidfd: int
    facts: socket.socket
    group: str | None
    scratch: int | None
    """Open, and without its name, which is known to its run only."""
    uid: int | None
    ends: float
    mounts: socket.socket
    """Has the handle of `_Spare.orders` in it."""


@dataclass
class _Spare:
    """A child that waits for its order."""

    pid: int
    pidfd: int
    orders: socket.socket
    """What it sends there is not received while it lives: a handle on its mount namespace. So the end of that, for
    which the kernel waits for all cores, is not part of the process's own end, and comes when that is known."""
    group: str | None


class Zygote:
    def __init__(self, orders: socket.socket):
        self.orders = orders
        setup = json.loads(orders.recv(1 << 16))
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError as e:
            sys.exit(
                f"pidfd_open is refused here ({e.strerror}): Linux 5.3 or newer is needed, or a gVisor that has it"
            )
        _prefer_for_oom()
        roots = warmup.load(setup["packages"])
        proc = os.open("/proc", os.O_PATH)  # it will be out of sight
        pages.merge(proc)
        try:
            groups: Groups | OSError = Groups(setup["group"])
        except OSError as e:
            groups = OSError(e.errno, setup["no_group"] or e.strerror)
        self.walls = walls.build(roots, languages.received(setup["languages"]), setup["folder"], proc, groups)
        self.folder = setup["folder"]
        if not self.walls.jail:
            os.chmod(self.folder, 0o711)
            warmup.open_modules(roots)
        self.base = _address_space(proc)
        child.prepare()
        program.prepare()
        self.lifeline = os.pipe()
        self.children: dict[int, _Child] = {}
        self.spare: _Spare | None = None
        self.mounts: list[socket.socket] = []
        """Handles of runs that have ended."""
        self.left = 0
        """Scratch directories that could not be removed."""
        self.ahead: pages.Spans = array.array("Q")
        self.uids: list[int] = []
        """Throw-away uids that no process has, the last given back at the end: one run after another has the same."""
        gc.collect()
        self.generators = program.generators()
        gc.disable()
        gc.freeze()
        # What every run touches comes first.
        learned = self._learn("", proc) + self._learn(warmup.typical(setup["packages"]), proc)
        self.ahead.extend(learned)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        orders.send(json.dumps({"layers": self.walls.layers}).encode())

    def _learn(self, code: str, proc: int) -> list[int]:
        """The memory that a run of `code`, made as any other, touches, see `pages.Spans`. Empty where the platform does
        not show it; where it is the walls that fail, the supervisor's own first run will tell."""
        try:
            pages.watch(proc)
            self.spare = self._park()
            with open(os.open(f"self/fdinfo/{self.spare.pidfd}", os.O_RDONLY, dir_fd=proc)) as file:
                pid = next(line.split()[1] for line in file if line.startswith("Pid:"))  # as `proc` counts
            pagemap = os.open(f"{pid}/pagemap", os.O_RDONLY, dir_fd=proc)
        except OSError:
            return []
        end = "from sandbox.pages import touched\nfrom sandbox.program import rehearse\nrehearse()"
        request = {"code": f"{code}\n{end}", "entry": "touched", "args": (0,)}
        job = os.memfd_create("job")
        os.pwrite(job, json.dumps(request).encode(), 0)
        said, report = os.pipe()
        facts, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"limits": asdict(Limits()), "lifetime_s": 60, "session": False, "language": "python", "stage": None}
        outputs = [os.open("/dev/null", os.O_WRONLY) for _ in range(2)]
        home = [] if self.walls.jail else [scratch.make(self.folder)[1]]
        with facts, open(said) as answer:
            one = self._spawn(order, [pagemap, *outputs, report, job, *home, theirs.detach()])
            text = answer.read()
            if one is not None:
                self._reap(self.children.pop(one.pidfd))
        return json.loads(text).get("value", []) if text else []

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self.orders, select.POLLIN)
        accepting, ended = True, False
        while accepting or self.children:
            wait = self._until_next_end()
            events = poll.poll(min(wait, _REST_MS) if ended else wait)
            if ended and not events:
                ended = False
                self._rest()
            for fd, _ in events:
                if fd == self.orders.fileno():
                    ended = False
                    accepting = self._accept(poll)
                    # No frame that knows an order is on the stack now, which the next run inherits.
                    if accepting and self.spare is None:
                        with contextlib.suppress(OSError):  # the next order will try again, and tell
                            self.spare = self._park()
                elif fd in self.children:
                    with contextlib.suppress(KeyError):
                        poll.unregister(self.children[fd].facts)
                    poll.unregister(fd)
                    self._reap(self.children.pop(fd))
                    ended = True
                else:
                    for one in self.children.values():
                        if one.facts.fileno() == fd:
                            signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
                            poll.unregister(fd)
        if self.spare is not None:
            self._end(self.spare)

    def _accept(self, poll: select.poll) -> bool:
        """Take an order; False if there will be none any more."""
        data, fds, _, _ = socket.recv_fds(self.orders, child.MAX_ORDER, child.MOST_FDS)
        if not data:
            poll.unregister(self.orders)
        elif (born := self._spawn(json.loads(data), fds)) is not None:
            poll.register(born.pidfd, select.POLLIN)
            poll.register(born.facts, select.POLLRDHUP)
        return bool(data)

    def _rest(self) -> None:
        self._let_go()
        if self.spare is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: the next order finds out
                self.spare.orders.send(child.IDLE)

    def _until_next_end(self) -> int:
        """Milliseconds to the next end of a child's lifetime; those whose time is up are killed. The supervisor is
        quicker: this holds where it does not look."""
        now = time.monotonic()
        for one in self.children.values():
            if now >= one.ends:
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        return int(1000 * min([3600.0, *(max(one.ends - now, 0.1) for one in self.children.values())]))

    def _spawn(self, order: dict[str, Any], fds: list[int]) -> _Child | None:
        facts = socket.socket(fileno=fds[-1])
        home = uid = None
        try:
            home = None if self.walls.jail else os.dup(fds[-2])
            uid = self._take_uid()
            order.update(base=self.base, uid=uid)
            if home is not None and uid is not None:
                os.fchown(home, uid, uid)
            ends = time.monotonic() + order["lifetime_s"]
            spare = self._hand_over(order, fds)
            socket.send_fds(facts, [b'{"started": true}'], [spare.pidfd])
            born = _Child(spare.pid, spare.pidfd, facts, spare.group, home, uid, ends, spare.orders)
            return self.children.setdefault(spare.pidfd, born)
        except OSError as e:
            self._clean(home)
            self._give_back(uid)
            _tell(facts, {"infra": f"no process for the run: {e}"})
            facts.close()
            return None
        finally:
            for fd in fds[:-1]:
                os.close(fd)

    def _take_uid(self) -> int | None:
        if self.walls.uids is None:
            return None
        taken = {one.uid for one in self.children.values()}
        while not self.uids:
            self.uids += {walls.drawn(self.walls.uids)} - taken
        return self.uids.pop()

    def _give_back(self, uid: int | None) -> None:
        if uid is not None:
            self.uids.append(uid)

    def _hand_over(self, order: dict[str, Any], fds: list[int]) -> _Spare:
        """Give an order to the child that waits for one; if that one has died meanwhile, to a new one."""
        for _ in range(2):
            spare, self.spare = self.spare or self._park(), None
            try:
                self._bound(spare, order)
                socket.send_fds(spare.orders, [json.dumps(order).encode()], fds)
                return spare
            except (BrokenPipeError, ConnectionResetError):
                self._end(spare)
            except OSError:
                self._end(spare)
                raise
        raise ChildProcessError("the processes forked for it died")

    def _bound(self, spare: _Spare, order: dict[str, Any]) -> None:
        """As much as address space and scratch can be: what is beyond them is the kernel's, for the run."""
        if spare.group is not None:
            assert self.walls.groups is not None
            limits = order["limits"]
            memory = self.base + (limits["memory_mb"] + limits["scratch_mb"] << 20)
            self.walls.groups.limit(spare.group, memory, 1 + limits["threads"])

    def _park(self) -> _Spare:
        """Fork the next run's process ahead of its order: a fork and what comes with it take as long as the walls."""
        group = self.walls.groups.take() if self.walls.groups is not None else None
        try:
            mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                pid = self._fork(mine, its, group)
            self._let_go()  # it has them too
            return _Spare(pid, os.pidfd_open(pid), mine, group)
        except OSError:
            self._leave(group)
            raise

    def _fork(self, mine: socket.socket, its: socket.socket, group: str | None) -> int:
        own = self.walls.pid_namespace
        if own is not None:
            kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    living = [end for one in self.children.values() for end in (one.facts, one.mounts)]
                    for other in (mine, self.orders, *living):
                        other.close()  # whose other ends must see when this process alone is left
                    self.children.clear()  # no business of the run's
                    self.uids.clear()
                    child.await_order(self.walls, group, self.ahead, self.generators, its, self.lifeline, self.mounts)
                finally:
                    os._exit(1)  # whatever a program made of us: it never goes on as a fork server
        finally:
            if own is not None:
                kernel.setns(own, kernel.CLONE_NEWPID)
        return pid

    def _reap(self, one: _Child) -> None:
        """The run is over: the supervisor hears how it ended, then its scratch goes, which takes as long as the run
        made it take."""
        _, status, usage = os.wait4(one.pid, 0)
        self._give_back(one.uid)
        facts: dict[str, Any] = {
            "exit": os.waitstatus_to_exitcode(status),
            "peak_kb": usage.ru_maxrss,
            "left": self.left,
        }
        if one.group is not None and facts["exit"] == -signal.SIGKILL:
            assert self.walls.groups is not None
            facts["out_of_memory"] = self.walls.groups.ran_out_of_memory(one.group)
        with contextlib.suppress(OSError):
            facts["used"] = None if one.scratch is None else scratch.usage(_name(one.scratch), still=True)[:2]
        _tell(one.facts, facts | {"cpu_s": usage.ru_utime + usage.ru_stime})
        one.facts.close()
        self.mounts.append(one.mounts)
        os.close(one.pidfd)
        self._leave(one.group)
        self._clean(one.scratch)

    def _leave(self, group: str | None) -> None:
        if group is not None:
            assert self.walls.groups is not None
            self.walls.groups.give_back(group)

    def _let_go(self) -> None:
        """Of the mounts of runs that have ended: when there is nothing else to do, or another has them too."""
        for handle in self.mounts:
            handle.close()
        self.mounts.clear()

    def _end(self, spare: _Spare) -> None:
        spare.orders.close()
        signal.pidfd_send_signal(spare.pidfd, signal.SIGKILL)
        os.waitpid(spare.pid, 0)
        os.close(spare.pidfd)
        self._leave(spare.group)

    def _clean(self, home: int | None) -> None:
        """What cannot be taken away now is counted, and goes with the folder."""
        if home is None:
            return
        try:
            scratch.remove(_name(home))
        except OSError:
            self.left += 1
        os.close(home)


def _tell(facts: socket.socket, message: dict[str, Any]) -> None:
    """Whoever asked may be gone; then nobody waits for this message."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        facts.send(json.dumps(message).encode())


def _name(folder: int) -> str:
    """Of a scratch directory, when its run is over."""
    return os.readlink(f"/proc/self/fd/{folder}")


def _address_space(proc: int) -> int:
    with open(os.open("self/statm", os.O_RDONLY, dir_fd=proc)) as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _prefer_for_oom() -> None:
    """If the machine runs out of memory, the kernel is to take the sandbox first. Advice: it may be refused."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def main() -> None:
    while os.open("/dev/null", os.O_RDONLY) < 10:
        pass  # a child's own descriptors take the low numbers; nothing of ours may lie there
    orders = socket.socket(fileno=int(sys.argv[1]))
    zygote = Zygote(orders)
    zygote.serve()
    if not zygote.walls.jail:
        scratch.remove(zygote.folder)
