"""Attacks that every slot makes on itself before it serves: each must fail, and an ordinary program must work.

Invariant: they take the same path as any request. The ordinary program is there because a sandbox that starts nothing
would hold against everything.
"""

from __future__ import annotations

import json

from .api import Result

_CODE = r"""
import os, signal, socket, ctypes
held, broken = [], []
def must_fail(name, action):
    try:
        action()
    except (OSError, ValueError):
        held.append(name)
    else:
        broken.append(name)

libc = ctypes.CDLL(None, use_errno=True)
def raw(function, *args):
    if function(*args) < 0:
        raise OSError(ctypes.get_errno(), function.__name__)

library = __import__("json").__file__
must_fail("fork", os.fork)
must_fail("run a program", lambda: os.execv("/bin/true", ["true"]))
must_fail("open a socket", lambda: socket.socket())
must_fail("make a datagram pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
must_fail("read /etc/passwd", lambda: open("/etc/passwd"))
must_fail("read /proc/self/maps", lambda: open("/proc/self/maps"))
must_fail("list /home", lambda: os.listdir("/home"))
must_fail("write a library", lambda: open(library, "r+"))
must_fail("empty a library", lambda: os.close(os.open(library, os.O_RDONLY | os.O_TRUNC)))
must_fail("chmod", lambda: os.chmod(".", 0o777))
must_fail("write to the root", lambda: open("/self-test", "w"))
must_fail("signal everybody", lambda: os.kill(-1, 0))
must_fail("memory file", lambda: os.memfd_create("x"))
must_fail("lock a library", lambda: __import__("fcntl").flock(os.open(library, os.O_RDONLY), 1 | 4))
must_fail("send oneself signals by fcntl", lambda: __import__("fcntl").fcntl(0, 8, os.getpid()))
with open("probe", "w") as file:
    file.write("42")
with open("probe") as file:
    answer = int(file.read())
report = {"held": held, "broken": broken, "answer": answer, "environment": sorted(os.environ)}
"""
_ENVIRONMENT = {
    "HOME", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PATH", "TMPDIR",
}  # fmt: skip


def program_failures(result: Result) -> list[str]:
    """What did not hold for compiled programs, in words."""
    *broken, answer = result.stdout.splitlines() or [""]
    if not result.ok or answer != "42":
        return [f"an ordinary program fails ({result.status}: {result.reason})"]
    return [f"a program could {name}" for name in broken]


def job() -> bytes:
    return json.dumps({"code": _CODE, "value": "report"}).encode()


def failures(result: Result) -> list[str]:
    """What did not hold, in words; empty when all did."""
    if not result.ok:
        return [f"an ordinary program fails ({result.status}: {result.reason})"]
    said = result.value
    found = [f"a program could {name}" for name in said["broken"]]
    if said["answer"] != 42 or len(said["held"]) + len(said["broken"]) != _CODE.count("\nmust_fail("):
        found.append("an ordinary program gives a wrong answer")
    if leaked := set(said["environment"]) - _ENVIRONMENT:
        found.append(f"the environment holds {', '.join(sorted(leaked))}")
    return found
