"""Control groups (cgroup v2), where we may make any: one for each run.

Invariant: a run is in its group before it reads its order, and nothing else is there. What is left in a group when its
run has ended is killed, and the group is used no more. No limit of a group is one that an honest run meets before the
rlimits: a group bounds what they cannot count, which is what the kernel holds for a run.

The supervisor makes a folder for the groups of a fork server (`new_folder`) and takes it away (`remove`); the fork
server makes the groups and hands them out (`Groups`). A folder whose owners were killed is found by the lock that they
no longer hold.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_PREFIX = "agentic-sandbox-"
CONTROLLERS = ("memory", "pids")
_LIMITS = ("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max")


# ---------------------------------------------------------------- the supervisor's side


def new_folder() -> tuple[str, int]:
    """A group for the groups of one fork server, and the descriptor whose lock says that its owners live. It is made
    where most controllers are: in this process's own group, or in one above it. Raises OSError."""
    made, refusals = [], []
    for parent in _parents():
        try:
            made.append(_folder_in(parent))
        except OSError as e:
            refusals.append(e)
    if not made:
        raise refusals[0]  # of this process's own group
    best = max(made, key=lambda one: len(_words(one[0], "cgroup.subtree_control")))
    for path, lock in made:
        if path != best[0]:
            remove(path)
            os.close(lock)
    return best


def _parents() -> Iterator[str]:
    """This process's group, and those above it, as long as no limit is left behind by going there."""
    point, group = _own()
    while True:
        yield group
        if group == point or any(_words(group, name)[:1] not in ([], ["max"]) for name in _LIMITS):
            return
        group = os.path.dirname(group)


def _own() -> tuple[str, str]:
    """Where cgroup v2 is mounted, and the folder of this process's group there. Raises OSError."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[3:5] for line in file if " - cgroup2 " in line]
    with open("/proc/self/cgroup") as file:
        groups = [line[3:].rstrip("\n") for line in file if line.startswith("0::")]
    for root, point in mounts:
        for group in groups:
            below = os.path.relpath(group, root)
            if not below.startswith(".."):
                return point, os.path.normpath(os.path.join(point, below))
    raise OSError(errno.ENOENT, "no cgroup v2 is mounted")


def _folder_in(parent: str) -> tuple[str, int]:
    for name in os.listdir(parent):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):  # another user's, one that lives, or swept by someone else meanwhile
                lock = _lock(os.path.join(parent, name))
                try:
                    remove(os.path.join(parent, name))
                finally:
                    os.close(lock)
    path, lock = _locked_folder(parent)
    if not os.path.exists(os.path.join(path, "cgroup.kill")):
        os.close(lock)
        os.rmdir(path)
        raise OSError(errno.ENOSYS, "no cgroup.kill: Linux 5.14 or newer is needed")
    _enable(parent)
    _enable(path)
    return path, lock


def _locked_folder(parent: str) -> tuple[str, int]:
    """Before its lock is held, a new folder looks like one of the dead, and may be swept."""
    for _ in range(8):
        path = os.path.join(parent, _PREFIX + os.urandom(8).hex())
        os.mkdir(path)
        with contextlib.suppress(OSError):
            lock = _lock(path)
            if os.path.exists(path):
                return path, lock
            os.close(lock)
    raise OSError(errno.EAGAIN, "each folder made was taken away")


def _lock(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _enable(group: str) -> None:
    """Have the groups below this one counted. It may be refused: to whom the group is not delegated, and where it holds
    processes itself."""
    there, on = _words(group, "cgroup.controllers"), _words(group, "cgroup.subtree_control")
    for name in CONTROLLERS:
        if name in there and name not in on:
            with contextlib.suppress(OSError):
                _write(os.path.join(group, "cgroup.subtree_control"), f"+{name}")


def remove(path: str) -> None:
    """End what is in a folder, and take it away. Raises OSError while something is dying there."""
    _write(os.path.join(path, "cgroup.kill"), "1")
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            os.rmdir(entry.path)
    os.rmdir(path)


def _words(group: str, name: str) -> list[str]:
    """What a file of a group says; nothing if there is no such file."""
    with contextlib.suppress(OSError), open(os.path.join(group, name)) as file:
        return file.read().split()
    return []


def _write(path: str, text: str, folder: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# ---------------------------------------------------------------- the fork server's side


class Groups:
    """The groups below a folder, which is out of sight later."""

    def __init__(self, folder: str):
        self.controllers = [name for name in CONTROLLERS if name in _words(folder, "cgroup.subtree_control")]
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._free: list[str] = []
        """The last given back at the end."""
        self._made = 0
        self._limits: dict[str, tuple[int, int]] = {}
        self._killed: dict[str, int] = {}
        """How often the kernel had killed for memory in a group before the run that has it now."""

    def take(self) -> str:
        """A group with no process in it."""
        if not self._free:
            name = str(self._made)
            self._made += 1
            os.mkdir(name, dir_fd=self._folder)
            if "memory" in self.controllers:
                with contextlib.suppress(FileNotFoundError):  # a kernel that counts no swap
                    self._set(name, "memory.swap.max", "0")
            self._free.append(name)
        return self._free.pop()

    def enter(self, name: str) -> None:
        """In a child: go there."""
        self._set(name, "cgroup.procs", "0")

    def limit(self, name: str, memory: int, tasks: int) -> None:
        """Bytes, the kernel's own for the run among them; threads, the first among them."""
        if self._limits.get(name) == (memory, tasks):
            return
        for controller, file, most in (("memory", "memory.max", memory), ("pids", "pids.max", tasks)):
            if controller in self.controllers:
                self._set(name, file, str(most))
        self._limits[name] = memory, tasks

    def ran_out_of_memory(self, name: str) -> bool:
        """Whether the kernel has killed in this group since it was asked last."""
        if "memory" not in self.controllers:
            return False
        words = self._get(name, "memory.events").split()
        kills = int(dict(zip(words[::2], words[1::2], strict=True)).get("oom_kill", 0))
        before, self._killed[name] = self._killed.get(name, 0), kills
        return kills > before

    def give_back(self, name: str) -> None:
        """When its run has ended. Where no filter refuses it, a run may leave processes behind."""
        if "populated 1" in self._get(name, "cgroup.events"):
            self._set(name, "cgroup.kill", "1")
        else:
            self._free.append(name)

    def _get(self, name: str, file: str) -> str:
        fd = os.open(f"{name}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return os.read(fd, 4096).decode()
        finally:
            os.close(fd)

    def _set(self, name: str, file: str, text: str) -> None:
        _write(f"{name}/{file}", text, self._folder)
