"""One run: the forked child walls itself in, then becomes the program.

Invariant: no untrusted byte is read before the last layer is in place, and a layer that fails ends the child as an
infrastructure error. What is the same for every run is done while the child waits for its order. The sequence matters:
mounts need capabilities, changing uid takes them away and clears the death signal, the kernel filter would refuse all
of it and so comes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from . import compiled, kernel, pages, program, seccomp
from .api import Limits
from .toolchains import Stage
from .walls import PROGRAM_FD, Walls, become, hide_user

MAX_ORDER = 8192
MOST_FDS = 7
IDLE = b"idle"
_AT_ONCE = 3 * 16
_USUAL_MB = Limits().scratch_mb
_SCRATCH_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
STDIN, STDOUT, STDERR, REPORT, JOB = range(PROGRAM_FD + 1)


@dataclass
class _Ahead:
    """What a child has before its order."""

    ruleset: int = -1
    """Landlock's, for Python."""
    filter: seccomp.Filter | None = None
    """Likewise."""
    failure: Exception | None = None


def _make_ahead(walls: Walls, orders: socket.socket) -> _Ahead:
    made = _Ahead()
    try:
        if walls.run_namespaces:
            kernel.unshare(walls.run_namespaces)
            options = f"size={_USUAL_MB}m,nr_inodes=1024,mode=700,uid={os.geteuid()},gid={os.getegid()}"
            kernel.mount("scratch", walls.scratch, "tmpfs", _SCRATCH_FLAGS, options)
            _hand_out_mounts(walls.proc, orders)
        if walls.rulesets:
            made.ruleset = walls.rulesets["python"].begin()
        if walls.filter:
            made.filter = seccomp.Filter(walls.filter, os.getpid())
    except OSError as e:
        made.failure = e
    return made


def _hand_out_mounts(proc: int, orders: socket.socket) -> None:
    """Advice only, see `zygote._Spare.orders`."""
    with contextlib.suppress(OSError):
        own = os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            socket.send_fds(orders, [b"mounts"], [own])
        finally:
            os.close(own)


def await_order(
    walls: Walls,
    group: str | None,
    ahead: pages.Spans,
    generators: list[Any],
    orders: socket.socket,
    lifeline: tuple[int, int],
    mounts: list[socket.socket],
) -> NoReturn:
    """A child forked ahead of its order, which comes once; it ends if the zygote does. The last handles on the `mounts`
    of earlier runs may be here, and are let go. Told that the slot is idle, it touches the memory that lies `ahead` of
    it until the order comes."""
    os.setsid()
    if group is not None:
        assert walls.groups is not None
        walls.groups.enter(group)
    program.reseed(generators)
    made = _make_ahead(walls, orders)
    for handle in mounts:
        handle.close()
    mounts.clear()
    done = 0
    while True:
        data, fds, _, _ = socket.recv_fds(orders, MAX_ORDER, MOST_FDS)
        if data != IDLE:
            break
        while done < len(ahead) and not select.select([orders], [], [], 0)[0]:
            pages.touch(ahead[done : done + _AT_ONCE])
            done += _AT_ONCE
    if not data:
        os._exit(0)
    if made.failure is not None:  # what was lacking then may be there now; if not, that is what is told
        made = _make_ahead(walls, orders)
    order = json.loads(data)
    del data  # these frames stay below the program's
    become_run(walls, made, order, fds[:-1], fds[-1], lifeline)


def become_run(
    walls: Walls, made: _Ahead, order: dict[str, Any], fds: list[int], facts: int, lifeline: tuple[int, int]
) -> NoReturn:
    """`fds`: stdin, stdout, stderr, report, job and, without tmpfs, scratch; `facts` tells the supervisor that the
    walls stand, or why not."""
    try:
        if made.failure is not None:
            raise made.failure
        stage = _confine(walls, made, order, fds, facts, lifeline)
    except BaseException as e:
        os.write(facts, json.dumps({"infra": f"a layer failed: {type(e).__name__}: {e}"[:500]}).encode())
        os._exit(125)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(facts, json.dumps({"ready": time.process_time(), "peak_kb": peak_kb}).encode())
    kernel.syscall("close_range", JOB + 1, 0xFFFFFFFF, 0)
    if order["language"] != "python":
        compiled.become(stage, JOB, REPORT, order["limits"]["memory_mb"] << 20)
    if order["session"]:
        program.run_cells(JOB, REPORT)
    program.run_script(JOB, REPORT)


def _confine(
    walls: Walls, made: _Ahead, order: dict[str, Any], fds: list[int], facts: int, lifeline: tuple[int, int]
) -> Stage | None:
    """Put up every wall. Returns the stage of a compiler that this run is to become, if it is one."""
    limits, scratch, language = order["limits"], walls.scratch, order["language"]
    stage = None if order["stage"] is None else walls.toolchains[language].stages[order["stage"]]
    rules = "binary" if language != "python" and stage is None else language
    uid = order.pop("uid")
    if walls.run_namespaces:
        if limits["scratch_mb"] != _USUAL_MB:
            kernel.mount("scratch", scratch, None, _SCRATCH_FLAGS | kernel.MS_REMOUNT, f"size={limits['scratch_mb']}m")
        if uid is not None:
            os.chown(scratch, uid, uid)
    if walls.jail:
        os.chdir(scratch)
    else:
        os.fchdir(fds[JOB + 1])
        scratch = os.getcwd()
    if os.environ["HOME"] != scratch:
        os.environ.update(HOME=scratch, TMPDIR=scratch)
    home = os.open(".", os.O_PATH | os.O_CLOEXEC)

    for target, source in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds[: JOB + 1]]):
        os.dup2(source, target)
    if uid is not None:
        become(uid)
    if walls.hides_users:
        hide_user(walls.proc)
    # A user namespace bounds what its makers may use by what they were bound to: limits come after it.
    _rlimits(order, private_uid=uid is not None, tmpfs=bool(walls.run_namespaces))
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    # The zygote may have died before the death signal was asked for: then its end of the lifeline is closed.
    os.close(lifeline[1])
    if select.select([lifeline[0]], [], [], 0)[0]:
        os._exit(125)

    if stage is not None:
        compiled.lay_out(stage, JOB, facts)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if walls.rulesets:
        ruleset = made.ruleset if rules == "python" else walls.rulesets[rules].begin()
        walls.rulesets[rules].restrict(ruleset, home)
    # Not before the ruleset, which is one descriptor more than those that the zygote holds for every language.
    kernel.lower_limit(resource.RLIMIT_NOFILE, limits["files"])
    if walls.filter:
        assert made.filter is not None
        ready = made.filter
        if rules != "python":
            ready = seccomp.Filter(walls.binary_filter if rules == "binary" else walls.starting_filter, os.getpid())
        ready.install()
    sys.dont_write_bytecode = True
    return stage


def _rlimits(order: dict[str, Any], private_uid: bool, tmpfs: bool) -> None:
    limits = order["limits"]
    cpu = math.ceil(limits["cpu_s"]) + 1
    # Without tmpfs, what is unlinked but open cannot be counted: then it is to be little.
    size = min(limits["file_mb"], limits["scratch_mb"] if tmpfs else max(1, limits["scratch_mb"] // 8)) << 20
    ceilings = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: size,
    }
    if private_uid:  # shared with others, the uid's count would say nothing of this run
        ceilings[resource.RLIMIT_NPROC] = 1 + limits["threads"]
    if order["language"] == "python":  # else not before this interpreter, which is larger, makes room for the program
        ceilings[resource.RLIMIT_AS] = order["base"] + (limits["memory_mb"] << 20)
        program.size_stacks((limits["memory_mb"] << 20) // 2 // limits["threads"])
    for name, ceiling in ceilings.items():
        kernel.lower_limit(name, ceiling)


def prepare() -> None:
    """In the zygote, so that no run has to: what is the same for all, and which it can live with."""
    for name in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        kernel.lower_limit(name, 0)
    kernel.lower_limit(resource.RLIMIT_CORE, 1)  # with 0, a host that pipes core dumps to a program would start it
    kernel.lower_limit(resource.RLIMIT_SIGPENDING, 256)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may have had it ignored
