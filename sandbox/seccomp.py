"""The kernel filter: an allow-list of system calls, with the arguments of the dangerous ones checked.

Invariant: what is not named here is refused. Four refusals: EPERM for what programs ordinarily try (exec, sockets), so
that they can go on; EAGAIN for a second process, as the kernel has it where there are too many; death for what only an
attack tries; ENOSYS where libraries have a fallback.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from . import kernel

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, EAGAIN, ENODEV, EINVAL, ENOSYS, EOPNOTSUPP = (0x00050000 | number for number in (1, 11, 19, 22, 38, 95))


def _names(text: str) -> list[str]:
    return text.split()


# Free of arguments worth checking. Paths are the file wall's business; memory and time are the rlimits'.
_PLAIN = _names("""
read write close fstat lseek mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 pwrite64 readv
writev preadv pwritev sched_yield mremap msync dup dup2 dup3 nanosleep getitimer setitimer alarm pause getpid
exit exit_group wait4 waitid uname fsync fdatasync ftruncate getdents getdents64 getcwd chdir fchdir mkdir
mkdirat unlink unlinkat rmdir rename renameat renameat2 link linkat symlink symlinkat readlink readlinkat access
faccessat faccessat2 stat lstat newfstatat statx umask gettimeofday time getrlimit getrusage times getuid getgid
geteuid getegid getresuid getresgid getgroups getppid getpgrp rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
statfs fstatfs sched_get_priority_max sched_get_priority_min gettid set_tid_address epoll_create epoll_create1
epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 set_robust_list eventfd eventfd2 pipe pipe2
getcpu getrandom membarrier copy_file_range rseq recvfrom shutdown getsockopt getsockname getpeername
restart_syscall arch_prctl
""")
_HOSTILE = _names("""
ptrace process_vm_readv process_vm_writev bpf perf_event_open userfaultfd kexec_load kexec_file_load init_module
finit_module delete_module mount umount2 pivot_root chroot unshare setns add_key request_key keyctl io_uring_setup
io_uring_enter io_uring_register pidfd_getfd process_madvise open_by_handle_at swapon swapoff reboot acct open_tree
move_mount fsopen fsmount mount_setattr quotactl
""")

_O_ACCMODE, _O_TRUNC, _O_PATH = 3, 0o1000, 0o10000000
_THREAD, _NAMESPACES = 0x00010000 | 0x00000100 | 0x00000800 | 0x00000400 | 0x00000200, 0x7E020000
"""CLONE_THREAD, _VM, _SIGHAND, _FILES, _FS: with a table of files for each thread, their limit would be many times."""
_NO_THREAD = 0x8000F000
"""What no thread library asks for. One of them (CLONE_VFORK) has its caller wait where no signal stops it."""
_FCNTL = (0, 1, 2, 3, 4, 1030, 1034)  # DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GET_SEALS: no owner, no locks
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_RLIMIT_CPU, _RLIMIT_CORE = 0, 4
_SIGKILL, _SIGCONT, _REAL_TIME = 9, 18, 0xFFFFFFE0
_MADVISE = (*range(5), 8, 10, 11, *range(14, 20))
"""What allocators ask for. Not: to merge equal pages, to throw out or to fetch those that other runs share."""
_MAP_HUGETLB, _MAP_ANONYMOUS = 0x40000, 0x20
_CLOSE_RANGE_CLOEXEC = 4
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_PRIVATE, _FUTEX_COMMANDS = 0, 1, 9, 0x80, 14
_PRCTL = (15, 16)  # a thread's name


@dataclass(frozen=True)
class Check:
    """(argument & mask) is one of `values`, or, if `refuse`, none of them. `high` looks at the upper 32 bits."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    refuse: bool = False
    high: bool = False
    refusal: int = EPERM


_SELF = 0x7FFFFFF1
"""Stands for the run's process number, which is known only to the run."""


def checks(starter: int | None = None, mapping: bool = True, waking: bool = False) -> dict[str, tuple[Check, ...]]:
    """The calls whose arguments decide; a run may signal itself and nobody else, and ask about itself alone: what it
    could learn of other processes, or of pages that it shares with them, would be a word between runs. Without
    `mapping`, files cannot be mapped; with `waking`, no page can be had that other processes map too."""
    opening = tuple(mode | truncate for mode in (0, 1, 2) for truncate in (0, _O_TRUNC) if mode or not truncate)
    # With a handle on /proc/self/exe, which need not be readable, a program could start itself again.
    flags = _O_ACCMODE | _O_TRUNC | (0 if starter is None else _O_PATH)
    nowhere = (Check(4, (0,)), Check(4, (0,), high=True))
    of_itself = Check(0, (0, _SELF))
    own_clock = Check(0, (0,), 0x80000000, refusal=EINVAL)  # the others are the CPU clocks of processes
    # The CPU limit is not the program's: the kernel enforces it by SIGKILL, see `kill`. Nor is the refusal of core
    # dumps, which keeps a handler of the host's from being started; an interpreter is refused one in any case.
    kept = (_RLIMIT_CPU,) if starter is None else (_RLIMIT_CPU, _RLIMIT_CORE)
    # A futex on a page of a file is the same for all who map it. Waiting for a thread's end is not private either, in
    # compiled programs; nobody can wake those who wait so but the kernel.
    shared_waits = (_FUTEX_WAIT, _FUTEX_WAIT_BITSET)
    futexes: tuple[Check, ...] = (
        Check(1, shared_waits, 0xFF, refuse=True, refusal=EAGAIN),
        Check(1, (_FUTEX_PRIVATE,), _FUTEX_PRIVATE, refusal=EINVAL),
    )
    if starter is not None:
        private = (_FUTEX_PRIVATE | command for command in range(_FUTEX_COMMANDS))
        # Where C++ waits for an atomic, a latch or a barrier, it wakes so.
        wakes = (_FUTEX_WAKE,) if waking else ()
        futexes = (Check(1, (*shared_waits, *wakes, *private), 0xFF, refusal=EINVAL),)
    return {
        "futex": futexes,
        "madvise": (Check(2, _MADVISE, refusal=EINVAL),),
        # A mapped page keeps all of a file that has no name and no descriptor any more.
        "mmap": (
            Check(3, (0,), _MAP_HUGETLB, refusal=EINVAL),  # the machine's reserve of huge pages
            *((Check(3, (_MAP_ANONYMOUS,), _MAP_ANONYMOUS, refusal=ENODEV),) if not mapping else ()),
        ),
        "close_range": (Check(2, (0, _CLOSE_RANGE_CLOEXEC), refusal=EINVAL),),  # no table of its own for a thread
        # Without flags: one of them asks whether a page lies in memory.
        "preadv2": (Check(5, (0,), refusal=EOPNOTSUPP),),
        "pwritev2": (Check(5, (0,), refusal=EOPNOTSUPP),),
        "getpriority": (Check(0, (0,)), Check(1, (0, _SELF))),
        "sched_getaffinity": (Check(0, (0, _SELF), refusal=ENOSYS),),
        **dict.fromkeys(("sched_getparam", "sched_getscheduler", "sched_rr_get_interval"), (of_itself,)),
        **dict.fromkeys(("getpgid", "getsid", "get_robust_list"), (of_itself,)),
        **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep"), (own_clock,)),
        # O_RDONLY|O_TRUNC empties a file that Landlock, before its ABI 3, lets be read.
        "open": (Check(1, opening, flags),),
        "openat": (Check(2, opening, flags),),
        "fcntl": (Check(1, _FCNTL),),
        "ioctl": (Check(1, _IOCTL),),
        "prctl": (Check(0, _PRCTL),),
        "prlimit64": (Check(0, (0,)), Check(1, kept, refuse=True)),
        "setrlimit": (Check(0, kept, refuse=True),),
        "clone": (Check(0, (_THREAD,), _THREAD | _NAMESPACES | _NO_THREAD, refusal=EAGAIN),),
        # SIGKILL of oneself is refused, so that a SIGKILL we did not send always came from outside; SIGCONT, so that
        # what we freeze stays frozen; real-time signals, which the kernel counts for all processes of a user together.
        "kill": (Check(0, (_SELF,)), Check(1, (_SIGKILL, _SIGCONT), refuse=True), Check(1, (0,), _REAL_TIME)),
        "tgkill": (Check(0, (_SELF,)), Check(2, (_SIGKILL, _SIGCONT), refuse=True), Check(2, (0,), _REAL_TIME)),
        # A stream pair for event loops. A datagram one could be sent to any socket of the host by path.
        "socketpair": (Check(0, (1,)), Check(1, (1,), 0xF)),
        "sendto": nowhere,
    }


def program(
    machine: str | None = None, starter: int | None = None, mapping: bool = True, waking: bool = False
) -> bytes:
    """The BPF program, for `install`. With `starter`, the program behind that descriptor may be executed, and none by
    its path. A binary search over the call numbers: the kernel walks it once for each call there is when it is
    installed, which is with every run."""
    machine = machine or kernel.arch()
    code = [
        _op(0x20, 4),  # architecture
        _op(0x15, kernel.AUDIT_ARCH[machine], yes=1),
        _op(0x06, KILL),
        _op(0x20, 0),  # call number
    ]
    if machine == "x86_64":  # the x32 calls are the same calls under other numbers
        code += [_op(0x45, 0x40000000, no=1), _op(0x06, KILL)]
    verdicts = {name: [_op(0x06, ALLOW)] for name in _PLAIN}
    verdicts |= {name: [_op(0x06, KILL)] for name in _HOSTILE}
    # A byte that `sendfile` has put into a socket keeps its page, whatever becomes of the file.
    verdicts |= {name: [_op(0x06, ENOSYS)] for name in ("clone3", "openat2", "futex_waitv", "sendfile")}
    verdicts |= {name: [_op(0x06, EAGAIN)] for name in ("fork", "vfork")}
    verdicts["fallocate"] = [
        _op(0x06, EOPNOTSUPP)
    ]  # room in no time, before anyone has looked; libraries write instead
    conditional = checks(starter, mapping, waking)
    if starter is not None:
        conditional["execveat"] = (Check(0, (starter,)), Check(4, (kernel.EXECUTING,)))
    for name, conditions in conditional.items():
        verdicts[name] = [part for check in conditions for part in _compile(check)] + [_op(0x06, ALLOW)]
    by_number = {kernel.number(name, machine): block for name, block in verdicts.items()}
    runs: list[tuple[int, list[bytes]]] = []
    for nr in range(kernel.NEWEST + 2):  # the last run is that of all younger calls
        block = by_number.get(nr, [_op(0x06, EPERM if nr <= kernel.NEWEST else ENOSYS)])
        if not runs or runs[-1][1] != block:
            runs.append((nr, block))
    return b"".join(code + _search(runs))


def _search(runs: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """Find the run that a call number falls into; each run is (its first number, what to do)."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    low, high = _search(runs[:middle]), _search(runs[middle:])
    return [_op(0x35, runs[middle][0], no=1), _op(0x05, len(low)), *low, *high]


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _compile(check: Check) -> list[bytes]:
    """Instructions that fall through when the check holds and return its refusal when it does not."""
    load = [_op(0x20, 16 + 8 * check.argument + 4 * check.high)]
    if check.mask != 0xFFFFFFFF:
        load.append(_op(0x54, check.mask))
    last = len(check.values) - 1
    # Accepted values jump over the refusal; refused ones jump to it and the others over it.
    tests = [
        _op(0x15, value, yes=(last - i) + (not check.refuse), no=int(check.refuse and i == last))
        for i, value in enumerate(check.values)
    ]
    return [*load, *tests, _op(0x06, check.refusal)]


class Filter:
    """A program for one process, with what the kernel asks for laid out."""

    def __init__(self, code: bytes, pid: int):
        code = code.replace(struct.pack("I", _SELF), struct.pack("I", pid))
        self._code = ctypes.create_string_buffer(code, len(code))
        self._header = ctypes.create_string_buffer(
            struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(self._code))
        )

    def install(self) -> None:
        """Put this thread, and all it starts, under the filter. Needs no_new_privs."""
        kernel.syscall("seccomp", 1, 0, ctypes.cast(self._header, ctypes.c_void_p))
