"""The kernel filter, against two oracles: libseccomp's own tables, and an interpreter of the program it compiles to."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct

import pytest

from sandbox import kernel, seccomp

MACHINES = list(kernel.AUDIT_ARCH)
PID = 4711
ALLOW, KILL, EPERM, EAGAIN, ENODEV, EINVAL, ENOSYS, EOPNOTSUPP = "allow", "kill", 1, 11, 19, 22, 38, 95


@pytest.mark.parametrize("machine", MACHINES)
def test_call_numbers_are_those_of_libseccomp(machine: str) -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("no libseccomp on this machine")
    resolve = ctypes.CDLL(name).seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    wrong = {}
    for call in kernel.NUMBERS:
        theirs = resolve(kernel.AUDIT_ARCH[machine], call.encode())
        if (kernel.number(call, machine) if kernel.number(call, machine) is not None else -1) != max(theirs, -1):
            wrong[call] = theirs
    assert wrong == {}


def verdict(
    machine: str,
    call: str | int,
    *args: int,
    arch: int | None = None,
    starter: int | None = None,
    mapping: bool = True,
    waking: bool = False,
) -> object:
    """What the program says of one call: the BPF machine, as seccomp(2) describes it."""
    code = seccomp.program(machine, starter, mapping, waking)
    code = code.replace(struct.pack("I", seccomp._SELF), struct.pack("I", PID))
    number = call if isinstance(call, int) else kernel.number(call, machine)
    padded = [value & (1 << 64) - 1 for value in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("IIQ6Q", number, arch or kernel.AUDIT_ARCH[machine], 0, *padded)
    accumulator = at = 0
    while True:
        operation, yes, no, value = struct.unpack_from("HBBI", code, at * 8)
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x15:
            at += yes if accumulator == value else no
        elif operation == 0x35:
            at += yes if accumulator >= value else no
        elif operation == 0x45:
            at += yes if accumulator & value else no
        elif operation == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value, value & 0xFFFF)
        else:
            raise AssertionError(f"operation {operation:#x}")


THREAD = 0x3D0F00  # what glibc's pthread_create asks for


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("expected", "call", "args"),
    [
        (ALLOW, "read", ()),
        (ALLOW, "mmap", (0, 4096, 3, 0x22)),
        (EINVAL, "mmap", (0, 1 << 21, 3, 0x40022)),  # huge pages, of which the machine has few
        (ALLOW, "exit_group", ()),
        (ALLOW, "clone", (THREAD,)),
        (EAGAIN, "clone", (17,)),  # fork
        (EAGAIN, "clone", (0x4111,)),  # vfork
        (EAGAIN, "clone", (THREAD | 0x10000000,)),  # a thread in a new user namespace
        *((EAGAIN, "clone", (THREAD | flag,)) for flag in (0x1000, 0x2000, 0x4000, 0x8000, 1 << 31)),
        (ALLOW, "clone", (0x7D0F00,)),  # musl's
        *((EAGAIN, "clone", (THREAD & ~flag,)) for flag in (0x200, 0x400)),  # with folders, or files, of its own
        (ALLOW, "close_range", (5, 9, 0)),
        (ALLOW, "close_range", (5, 9, 4)),
        *((EINVAL, "close_range", (5, 9, flags)) for flags in (2, 6, 8)),
        (EAGAIN, "clone", (0x0911,)),  # a process that shares memory and signal handlers
        (ENOSYS, "clone3", ()),
        (ENOSYS, "sendfile", (5, 6, 0, 1)),
        (ALLOW, "openat", (-100, 0, 0o101101)),  # write, create, truncate
        (ALLOW, "openat", (-100, 0, 0o100000)),
        (EPERM, "openat", (-100, 0, 0o1000)),  # read, truncate
        (EPERM, "openat", (-100, 0, 0o1003)),
        (ENOSYS, "openat2", ()),
        (ALLOW, "kill", (PID, 15)),
        (EPERM, "kill", (PID, 9)),
        *((EPERM, "kill", (PID, number)) for number in (18, 32, 40, 64, -1)),
        *((EPERM, "tgkill", (PID, PID, number)) for number in (9, 18, 32, 40, 64)),
        (ALLOW, "tgkill", (PID, PID, 31)),
        (EPERM, "kill", (PID + 1, 0)),
        (EPERM, "kill", (-1, 15)),
        (EPERM, "kill", (0, 15)),
        (EPERM, "tgkill", (PID + 1, PID + 1, 15)),
        (ALLOW, "fcntl", (0, 3)),
        (EPERM, "fcntl", (0, 8)),
        (EPERM, "fcntl", (0, 6)),
        (EPERM, "ioctl", (0, 0x5412)),
        (EPERM, "prctl", (1, 0)),
        (ALLOW, "prctl", (15, 0)),
        (ALLOW, "prlimit64", (0, 9)),
        (EPERM, "prlimit64", (1, 9)),
        (EPERM, "prlimit64", (0, 0)),  # of CPU time: the kernel would kill
        (ALLOW, "setrlimit", (9,)),
        (EPERM, "setrlimit", (0,)),
        (ALLOW, "socketpair", (1, 1 | 0o2000000)),
        (EPERM, "socketpair", (1, 2)),
        (EPERM, "socketpair", (16, 1)),
        (ALLOW, "sendto", (3, 0, 0, 0, 0, 0)),
        (EPERM, "sendto", (3, 0, 0, 0, 1 << 40, 16)),
        (KILL, "ptrace", ()),
        (KILL, "unshare", ()),
        (KILL, "io_uring_setup", ()),
        (EPERM, "seccomp", ()),
        (EPERM, "kill", (PID, 18)),  # what is frozen stays frozen
        (EPERM, "tgkill", (PID, PID, 18)),
        (ALLOW, "preadv2", (3, 0, 1, 0, 0, 0)),
        (EOPNOTSUPP, "preadv2", (3, 0, 1, 0, 0, 8)),
        (EOPNOTSUPP, "pwritev2", (3, 0, 1, 0, 0, 1)),
        (EOPNOTSUPP, "fallocate", ()),
        (EPERM, "mincore", ()),
        (EPERM, "sysinfo", ()),
        (EPERM, "capget", ()),
        (ENOSYS, "futex_waitv", ()),
        *((ALLOW, "madvise", (0, 0, advice)) for advice in (0, 3, 4, 8, 14, 18)),
        *((EINVAL, "madvise", (0, 0, advice)) for advice in (9, 12, 20, 21, 22, 25, 100, -1)),
        *((ALLOW, "futex", (0, 128 | op)) for op in (0, 1, 9, 9 | 256, 13)),
        *((EAGAIN, "futex", (0, op)) for op in (0, 9, 9 | 256)),
        *((EINVAL, "futex", (0, op)) for op in (1, 3, 4, 5, 6, 10, 12, 1 | 256)),
        *((ALLOW, "clock_gettime", (clock,)) for clock in (0, 2, 3, 7, 11)),
        *((EINVAL, "clock_gettime", (~PID << 3 | kind,)) for kind in (0, 2, 6)),
        (EINVAL, "clock_nanosleep", (~1 << 3 | 2,)),
        *((ALLOW, "sched_getaffinity", (pid,)) for pid in (0, PID)),
        (ENOSYS, "sched_getaffinity", (PID + 1,)),
        (ALLOW, "getpriority", (0, PID)),
        (EPERM, "getpriority", (0, PID + 1)),
        (EPERM, "getpriority", (2, 0)),  # all processes of a user
        *((EPERM, call, (PID + 1,)) for call in ("getsid", "getpgid", "sched_getparam", "sched_getscheduler")),
        (ALLOW, "getsid", (0,)),
        (EPERM, "truncate", ()),
        (ENOSYS, 9999, ()),
        (ENOSYS, kernel.NEWEST + 1, ()),
    ],
)
def test_the_policy(machine: str, expected: object, call: str | int, args: tuple[int, ...]) -> None:
    assert verdict(machine, call, *args) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_without_a_name_is_refused(machine: str) -> None:
    named = {kernel.number(call, machine) for call in kernel.NUMBERS}
    answers = {verdict(machine, nr) for nr in range(kernel.NEWEST + 1) if nr not in named}
    assert answers == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_death(machine: str) -> None:
    assert verdict(machine, "read", arch=0x40000003) == KILL
    if machine == "x86_64":
        assert verdict(machine, 0x40000000) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_only_what_becomes_a_program_may_execute_and_only_from_its_descriptor(machine: str) -> None:
    whole = 0x1000 | 0x100  # nothing by a path, and no link followed
    for starter, expected in ((None, EPERM), (4, ALLOW)):
        assert verdict(machine, "execveat", 4, 0, 0, 0, whole, starter=starter) == expected
        for fd, flags in ((5, whole), (4, 0), (-100, 0), (4, 0x1000), (4, 0x100), (4, whole | 0x10000)):
            assert verdict(machine, "execveat", fd, 0, 0, 0, flags, starter=starter) == EPERM
        assert verdict(machine, 59 if machine == "x86_64" else 221, starter=starter) == EPERM  # execve


@pytest.mark.parametrize("machine", MACHINES)
def test_a_compiled_program_gets_no_handle_on_what_it_may_not_read(machine: str) -> None:
    for starter, expected in ((None, ALLOW), (4, EPERM)):
        assert verdict(machine, "openat", -100, 0, 0o10000000, starter=starter) == expected
        assert verdict(machine, "openat", -100, 0, 0o200000, starter=starter) == ALLOW  # a directory
    if machine == "x86_64":
        assert verdict(machine, "open", 0, 0o12000000, starter=4) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_a_compiled_program_waits_for_its_threads_and_wakes_no_others(machine: str) -> None:
    """What glibc asks for when a thread is joined is no private futex."""
    for op, expected in ((0, ALLOW), (9 | 256, ALLOW), (1, EINVAL), (10, EINVAL), (128 | 1, ALLOW), (128 | 9, ALLOW)):
        assert verdict(machine, "futex", 0, op, starter=4) == expected
        # Nor what libstdc++ asks for of atomics, latches and barriers: it wakes so where no page is shared.
        woken = ALLOW if op == 1 else expected
        assert verdict(machine, "futex", 0, op, starter=4, waking=True) == woken
        for other in (3, 4, 5, 6, 7, 8, 10, 11, 12, 13):
            assert verdict(machine, "futex", 0, other, starter=4, waking=True) == EINVAL


@pytest.mark.parametrize("machine", MACHINES)
def test_a_compiled_program_does_not_decide_on_core_dumps(machine: str) -> None:
    for starter, expected in ((None, ALLOW), (4, EPERM)):
        assert verdict(machine, "setrlimit", 4, starter=starter) == expected
        assert verdict(machine, "prlimit64", 0, 4, starter=starter) == expected


@pytest.mark.parametrize("starter", [None, 4])
def test_where_files_are_counted_by_name_none_can_be_mapped(starter: int | None) -> None:
    for shared in (1, 2):
        assert verdict("x86_64", "mmap", 0, 4096, 1, shared, 5, starter=starter) == ALLOW
        assert verdict("x86_64", "mmap", 0, 4096, 1, shared, 5, starter=starter, mapping=False) == ENODEV
        anonymous = shared | 0x20
        assert verdict("x86_64", "mmap", 0, 4096, 3, anonymous, starter=starter, mapping=False) == ALLOW
