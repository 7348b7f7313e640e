"""The zygote's own surroundings, made once: user and mount namespaces, a root that holds nothing but libraries.

Invariant: each layer is tried, not guessed; what the platform refuses is recorded with its reason and the rest goes
on. Whether the outcome is enough is decided by the supervisor. Runs in a single-threaded process.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import kernel, landlock, seccomp
from .groups import Groups
from .toolchains import Toolchain
from .warmup import Roots, below

_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
PROGRAM_FD = 4
"""Where a run that becomes another program finds it."""


@dataclass
class Walls:
    layers: dict[str, tuple[bool, str]] = field(default_factory=dict)
    jail: bool = False
    pid_namespace: int | None = None
    """Descriptor of the zygote's own pid namespace, where each run can have a new one."""
    run_namespaces: int = 0
    scratch: str = "/tmp"
    """In the jail, where each run mounts its own."""
    filter: bytes = b""
    """The system call filter; empty if the kernel takes none."""
    starting_filter: bytes = b""
    """The same, for runs that become a tool of a compiler: from `PROGRAM_FD`, and not by a path."""
    binary_filter: bytes = b""
    """The same, for those that become what it made."""
    uids: range | None = None
    """Where throw-away uids are drawn from, one for each process that lives, or None: runs keep the zygote's."""
    proc: int = -1
    """Open on /proc, which is out of sight."""
    hides_users: bool = False
    """Whether each run can have a user namespace of its own."""
    rulesets: dict[str, landlock.Ruleset] = field(default_factory=dict)
    """What may be read: by `python`, by a `binary`, and by the compiler of each language; empty without Landlock."""
    toolchains: dict[str, Toolchain] = field(default_factory=dict)
    groups: Groups | None = None
    """Where each run can have a control group of its own."""

    def note(self, name: str, active: bool, detail: str) -> bool:
        self.layers[name] = (active, detail)
        return active


def build(
    roots: Roots, toolchains: dict[str, Toolchain], mount_point: str, proc: int, groups: Groups | OSError
) -> Walls:
    """Build what can be built. May return in a child of the process that called it: see `_be_first`."""
    walls = Walls(proc=proc, toolchains=toolchains)
    _user_and_mounts(walls, roots, mount_point)
    _uids(walls)
    _own_users(walls)
    _landlock(walls, roots)
    _filter(walls)
    _groups(walls, groups)
    return walls


# ---------------------------------------------------------------- namespaces


def _user_and_mounts(walls: Walls, roots: Roots, mount_point: str) -> None:
    wanted = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS
    try:
        kernel.unshare(wanted)
        walls.note("user namespace", False, "not needed: namespaces need none here")
    except OSError as direct:
        try:
            _unshare_user(wanted)
            walls.note("user namespace", True, "capabilities over own namespaces only")
        except OSError as e:
            walls.note("user namespace", False, f"refused: {e.strerror}")
            for name in ("mount jail", "network namespace", "ipc namespace", "pid namespace"):
                walls.note(name, False, f"refused: {direct.strerror}, with a user namespace: {e.strerror}")
            return
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    walls.note("network namespace", True, "no interface, not even loopback")
    walls.note("ipc namespace", True, "one per run")
    try:
        socket.sethostname("sandbox")
        _jail(walls, roots, mount_point)
        walls.jail = walls.note("mount jail", True, "own read-only root of libraries; tmpfs scratch per run")
        walls.run_namespaces = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
    except OSError as e:
        walls.note("mount jail", False, f"refused: {e.strerror}")
        os.chdir("/")
    _pid_namespace(walls, own)


def _unshare_user(wanted: int) -> None:
    """A user namespace with, where we may, a range of uids; else our own uid alone. A helper outside writes the map,
    because the capability to map others is lost on the way in."""
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    go_read, go_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go_write)
        ok = bool(os.read(go_read, 1))
        try:
            for name, own in (("gid_map", gid), ("uid_map", uid)):
                with open(f"/proc/{me}/{name}", "w") as file:
                    file.write(f"{own} {own} 1\n{_RANGE[0]} {_RANGE[0]} {len(_RANGE)}\n")
        except OSError:
            ok = False
        os._exit(0 if ok else 1)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | wanted)
        if uid == 0:
            os.write(go_write, b"g")
    finally:
        os.close(go_write)
        os.close(go_read)
        _, status = os.waitpid(helper, 0)
    if status != 0:
        for name, text in (("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1"), ("uid_map", f"{uid} {uid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _be_first()


def _be_first() -> None:
    """Go on as the first process of a new pid namespace. One's own pid namespace can be returned to, after making
    another for a run, only if one's user namespace owns it. The process from before waits, to be found and killed."""
    try:
        kernel.unshare(kernel.CLONE_NEWPID)
    except OSError:
        return  # `_pid_namespace` will meet the same refusal, and record it
    inner = os.fork()
    if inner:
        code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        os._exit(code if code >= 0 else 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _pid_namespace(walls: Walls, own: int) -> None:
    def there_and_back() -> None:
        kernel.unshare(kernel.CLONE_NEWPID)
        kernel.setns(own, kernel.CLONE_NEWPID)

    # In a child: where the way back is refused, as by gVisor, this process could fork but once.
    if refusal := _try(there_and_back):
        walls.note("pid namespace", False, f"refused: {os.strerror(refusal)}")
    else:
        walls.pid_namespace = own
        walls.note("pid namespace", True, "one per run, the run its only process")


def _jail(walls: Walls, roots: Roots, mount_point: str) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("sandbox", mount_point, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4m,mode=755")
    tools = [path for chain in walls.toolchains.values() for path in (*_tools(chain), *chain.readable)]
    for path in filter(os.path.exists, roots.stdlib):
        _bind(os.path.realpath(path), mount_point + path)
    for path in roots.masked:
        kernel.mount("sandbox", mount_point + path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,mode=755")
    shown: list[str] = []
    for path in (*roots.packages, *roots.libraries, *_DEVICES, *sorted(tools, key=len)):
        if os.path.exists(path) and not (path in tools and below(path, shown)):
            _bind(os.path.realpath(path), mount_point + path)
            shown.append(path)
    for path in roots.masked:
        _seal(mount_point + path)
    for link in ("/lib", "/lib64", "/usr/lib64"):
        if os.path.islink(link) and not os.path.lexists(mount_point + link):
            os.makedirs(os.path.dirname(mount_point + link), exist_ok=True)
            os.symlink(os.readlink(link), mount_point + link)
    if any(below(path, ("/tmp",)) for path in (*roots.stdlib, *roots.packages, *roots.libraries)):
        walls.scratch = "/scratch"  # it would hide them
    os.makedirs(mount_point + walls.scratch, exist_ok=True)
    os.chdir(mount_point)
    kernel.pivot_root_here()
    _seal("/")


def _seal(mounted: str) -> None:
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("none", mounted, None, kernel.MS_REMOUNT | kernel.MS_BIND | flags)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    if not source.startswith("/dev/"):
        kernel.make_read_only(target)


# ---------------------------------------------------------------- uids


_RANGE = range(0x10000000, 0x28000000)
"""Throw-away uids, above any that a system hands out."""
_FEW = range(20000, 60000)
"""The same, where a container maps no more ids than these."""
INSIDE = 65532
"""The only uid that a run in a user namespace of its own can see."""


def _uids(walls: Walls) -> None:
    for some in (_RANGE, _FEW):
        code = _try(lambda: _become_reader(drawn(some))) or _try_to_end(drawn(some))  # noqa: B023 - called at once
        if code == 0:
            walls.uids = some
            walls.note("throw-away uid", True, f"one for each live run, of {len(some)} from {some[0]}")
            return
    walls.note(
        "throw-away uid",
        False,
        f"refused: {os.strerror(code)} (or the interpreter is closed to others); runs keep uid {os.geteuid()}, "
        "without capabilities",
    )


def drawn(uids: range) -> int:
    """Any of them: two fork servers, which know nothing of each other, will hardly draw the same."""
    return uids[int.from_bytes(os.urandom(4)) % len(uids)]


def _become_reader(uid: int) -> None:
    """Become `uid`, and see that it can still read the interpreter's library, which may lie in a closed home."""
    become(uid)
    os.close(os.open(os.__file__, os.O_RDONLY))


def _try_to_end(uid: int) -> int:
    """Whether a process of that uid can be signalled, which is how runs are stopped; the errno, or 0."""
    (there, becoming), (ending, end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(end)
            become(uid)
            os.write(becoming, b"b")
            os.read(ending, 1)
        finally:
            os._exit(0)  # whatever failed: no copy of us goes on
    os.close(becoming)
    try:
        if os.read(there, 1) != b"b":
            return errno.EPERM
        os.kill(child, 0)
        return 0
    except OSError as e:
        return e.errno or 1
    finally:
        for fd in (there, ending, end):
            os.close(fd)
        os.waitpid(child, 0)


def _own_users(walls: Walls) -> None:
    def enter() -> None:
        if walls.uids is not None:
            become(drawn(walls.uids))
        hide_user(walls.proc)

    if refusal := _try(enter):
        walls.note("user namespace per run", False, f"refused: {os.strerror(refusal)}")
    else:
        walls.hides_users = True
        walls.note("user namespace per run", True, f"each run sees uid {INSIDE}, whatever it is outside")


def hide_user(proc: int) -> None:
    """Enter a user namespace of one's own, in which one's uid and gid are `INSIDE`."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else the files below belong to root
    for name, text in (("setgroups", "deny"), ("gid_map", f"{INSIDE} {gid} 1"), ("uid_map", f"{INSIDE} {uid} 1")):
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(file, text.encode())
        os.close(file)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def become(uid: int) -> None:
    """Change to `uid` for good, with no groups; all capabilities go with it."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _try(action: Callable[[], None]) -> int:
    """Do something irrevocable in a child; the errno, or 0."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except OSError as e:
            os._exit(e.errno or 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---------------------------------------------------------------- control groups


def _groups(walls: Walls, groups: Groups | OSError) -> None:
    def enter() -> None:
        assert isinstance(groups, Groups)
        groups.enter(first)

    try:
        if isinstance(groups, OSError):
            raise groups
        first = groups.take()
        groups.limit(first, 1 << 30, 64)
        if refusal := _try(enter):
            raise OSError(refusal, os.strerror(refusal))
        groups.give_back(first)
    except OSError as e:
        for name in ("cgroup", "memory cgroup", "pids cgroup"):
            walls.note(name, False, f"refused: {e.strerror}")
        return
    walls.groups = groups
    walls.note("cgroup", True, "one per run; what it leaves behind ends with it")
    for name, bounded in (("memory", "memory, the kernel's for the run too"), ("pids", "threads")):
        there = name in groups.controllers
        walls.note(f"{name} cgroup", there, f"{bounded}, bounded for each run" if there else "not delegated here")


# ---------------------------------------------------------------- kernel filter and Landlock


def _filter(walls: Walls) -> None:
    # Without tmpfs, files are counted by their names: nothing may keep one that has none.
    code = seccomp.program(mapping=walls.jail)

    def install() -> None:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.Filter(code, os.getpid()).install()

    refusal = _try(install)
    walls.note("no new privileges", True, "set-uid programs gain nothing")
    walls.note("rlimits", True, "memory, CPU, file size, descriptors, threads")
    if walls.note("seccomp", refusal == 0, os.strerror(refusal) if refusal else f"{len(code) // 8} instructions"):
        walls.filter, walls.starting_filter = code, seccomp.program(starter=PROGRAM_FD)
        # A binary has no page in common with other processes: with Landlock it opens no file of theirs.
        alone = bool(walls.rulesets) or not walls.jail
        walls.binary_filter = seccomp.program(starter=PROGRAM_FD, mapping=walls.jail, waking=alone)


def _landlock(walls: Walls, roots: Roots) -> None:
    try:
        version = landlock.abi()
    except OSError as e:
        walls.note("landlock", False, f"refused: {e.strerror}")
        return
    paths = [*roots.packages, *roots.libraries]
    for lib in roots.stdlib:
        if not walls.jail and any(below(masked, (lib,)) for masked in roots.masked):
            # Other packages live inside the standard library's folder: name its entries one by one.
            paths += [e.path for e in os.scandir(lib) if e.path not in roots.masked]
        else:
            paths.append(lib)
    random, blank = _handles(_DEVICES[2:]), _handles(_DEVICES[:2])
    walls.rulesets["python"] = landlock.Ruleset(version, _handles(paths) + random, blank)
    walls.rulesets["binary"] = landlock.Ruleset(version, random, blank)
    for language, chain in walls.toolchains.items():
        walls.rulesets[language] = landlock.Ruleset(version, _handles(chain.readable), [], _handles(_tools(chain)))
    walls.note("landlock", True, f"ABI {version}")


def _tools(chain: Toolchain) -> tuple[str, ...]:
    return (*(stage.tool for stage in chain.stages), *chain.loaders)


def _handles(paths: Sequence[str]) -> list[tuple[int, bool]]:
    """(descriptor, is a directory) of those that exist."""
    fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths if os.path.exists(path)]
    return [(fd, stat.S_ISDIR(os.fstat(fd).st_mode)) for fd in fds]
