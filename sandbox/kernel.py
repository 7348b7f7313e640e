"""Linux system calls that Python does not wrap, by ctypes: the numbers of two architectures, and the few we make.

Invariant: every call raises OSError on failure; nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from .api import SandboxUnavailable

# Linux numbers: x86_64, aarch64 (None: the call does not exist there, its *at or *2 form does).
_TABLE = """
read 0 63|write 1 64|close 3 57|fstat 5 80|lseek 8 62|mmap 9 222|mprotect 10 226|munmap 11 215|brk 12 214
rt_sigaction 13 134|rt_sigprocmask 14 135|rt_sigreturn 15 139|pread64 17 67|pwrite64 18 68|readv 19 65|writev 20 66
preadv 295 69|pwritev 296 70|preadv2 327 286|pwritev2 328 287|sched_yield 24 124|mremap 25 216|msync 26 227
mincore 27 232|madvise 28 233|dup 32 23|dup3 292 24|nanosleep 35 101|getitimer 36 102|setitimer 38 103|getpid 39 172
sendfile 40 71|exit 60 93|exit_group 231 94|wait4 61 260|waitid 247 95|uname 63 160|fcntl 72 25|fsync 74 82
fdatasync 75 83|truncate 76 45|ftruncate 77 46|fallocate 285 47|getdents64 217 61|getcwd 79 17|chdir 80 49
fchdir 81 50|mkdirat 258 34|unlinkat 263 35|renameat 264 38|renameat2 316 276|linkat 265 37|symlinkat 266 36
readlinkat 267 78|openat 257 56|faccessat 269 48|faccessat2 439 439|newfstatat 262 79|statx 332 291|umask 95 166
gettimeofday 96 169|getrlimit 97 163|setrlimit 160 164|getrusage 98 165|sysinfo 99 179|times 100 153|getuid 102 174
getgid 104 176|geteuid 107 175|getegid 108 177|getresuid 118 148|getresgid 120 150|getgroups 115 158|getppid 110 173
getpgid 121 155|getsid 124 156|rt_sigpending 127 136|rt_sigtimedwait 128 137|rt_sigsuspend 130 133
sigaltstack 131 132|statfs 137 43|fstatfs 138 44|getpriority 140 141|sched_getaffinity 204 123|sched_getparam 143 121
sched_getscheduler 145 120|sched_get_priority_max 146 125|sched_get_priority_min 147 126
sched_rr_get_interval 148 127|prctl 157 167|gettid 186 178|futex 202 98|futex_waitv 449 449|set_tid_address 218 96
clock_gettime 228 113|clock_getres 229 114|clock_nanosleep 230 115|kill 62 129|tgkill 234 131|epoll_create1 291 20
epoll_ctl 233 21|epoll_pwait 281 22|epoll_pwait2 441 441|ppoll 271 73|pselect6 270 72|set_robust_list 273 99
get_robust_list 274 100|eventfd2 290 19|pipe2 293 59|prlimit64 302 261|getcpu 309 168|getrandom 318 278
membarrier 324 283|copy_file_range 326 285|rseq 334 293|close_range 436 436|clone 56 220|clone3 435 435|ioctl 16 29
socketpair 53 199|sendto 44 206|recvfrom 45 207|shutdown 48 210|getsockopt 55 209|getsockname 51 204
getpeername 52 205|restart_syscall 219 128|openat2 437 437|capget 125 90|ptrace 101 117|process_vm_readv 310 270
process_vm_writev 311 271|bpf 321 280|perf_event_open 298 241|userfaultfd 323 282|kexec_load 246 104
kexec_file_load 320 294|init_module 175 105|finit_module 313 273|delete_module 176 106|mount 165 40|umount2 166 39
pivot_root 155 41|chroot 161 51|unshare 272 97|setns 308 268|add_key 248 217|request_key 249 218|keyctl 250 219
io_uring_setup 425 425|io_uring_enter 426 426|io_uring_register 427 427|pidfd_getfd 438 438|process_madvise 440 440
open_by_handle_at 304 265|swapon 167 224|swapoff 168 225|reboot 169 142|acct 163 89|open_tree 428 428
move_mount 429 429|fsopen 430 430|fsmount 432 432|mount_setattr 442 442|quotactl 179 60|seccomp 317 277
landlock_create_ruleset 444 444|landlock_add_rule 445 445|landlock_restrict_self 446 446|capset 126 91
open 2 -|stat 4 -|lstat 6 -|access 21 -|pipe 22 -|select 23 -|poll 7 -|dup2 33 -|alarm 37 -|getdents 78 -
execveat 322 281|rename 82 -|mkdir 83 -|rmdir 84 -|creat 85 -|link 86 -|unlink 87 -|symlink 88 -|readlink 89 -
getpgrp 111 -|time 201 -|epoll_create 213 -|epoll_wait 232 -|eventfd 284 -|arch_prctl 158 -|pause 34 -
fork 57 -|vfork 58 -
"""
NUMBERS: dict[str, tuple[int, int | None]] = {
    name: (int(x86), None if arm == "-" else int(arm))
    for name, x86, arm in (row.split() for row in _TABLE.strip().replace("\n", "|").split("|"))
}
NEWEST = 462
"""Numbers above this are calls younger than the tables; they answer ENOSYS, so that libraries fall back."""
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
EXECUTING = 0x1000 | 0x100
"""AT_EMPTY_PATH, and AT_SYMLINK_NOFOLLOW: a path that is given all the same leads to no descriptor by /proc."""
MFD_NOEXEC_SEAL, MFD_EXEC = 8, 16  # Linux 6.3
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 36, 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def arch() -> str:
    """The machine's architecture, if we have its tables."""
    name = platform.machine()
    if name not in AUDIT_ARCH:
        raise SandboxUnavailable(f"no system call table for {name}; the sandbox runs on {' and '.join(AUDIT_ARCH)}")
    return name


def number(name: str, machine: str) -> int | None:
    return NUMBERS[name][list(AUDIT_ARCH).index(machine)]


_NATIVE = {name: number(name, platform.machine()) or 0 for name in NUMBERS} if platform.machine() in AUDIT_ARCH else {}


def syscall(name: str, *args: int | ctypes.c_void_p | None) -> int:
    """One raw system call; integers are passed as C longs. Raises OSError."""
    raw = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = int(_libc.syscall(ctypes.c_long(_NATIVE[name]), *raw))
    if result < 0:
        raise _error(name)
    return result


def prepared(name: str) -> Callable[..., None]:
    """A system call that is made hundreds of times in a run: its arguments are ctypes already. Raises OSError."""
    call, nr = _libc.syscall, ctypes.c_long(_NATIVE[name])

    def make(*args: ctypes.c_long | ctypes.Array[ctypes.c_char]) -> None:
        if call(nr, *args) < 0:
            raise _error(name)

    return make


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    if _libc.unshare(flags) < 0:
        raise _error("unshare")


def setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind) < 0:
        raise _error("setns")


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        raise _error(f"prctl {option}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    raw = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    if _libc.mount(raw[0], raw[1], raw[2], flags, raw[3]) < 0:
        raise _error(f"mount {target}")


def make_read_only(target: str) -> None:
    """A mount and all below it: read-only, no set-uid, no devices."""
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0))
    path = ctypes.create_string_buffer(os.fsencode(target))
    at_fdcwd, recursive = -100, 0x8000
    syscall("mount_setattr", at_fdcwd, ctypes.cast(path, ctypes.c_void_p), recursive,
            ctypes.cast(attributes, ctypes.c_void_p), 32)  # fmt: skip


def pivot_root_here() -> None:
    """Make the current directory the root and let go of the old one."""
    dot = ctypes.create_string_buffer(b".")
    here = ctypes.cast(dot, ctypes.c_void_p)
    syscall("pivot_root", here, here)
    if _libc.umount2(b".", MNT_DETACH) < 0:
        raise _error("umount of the old root")
    os.chdir("/")


def execute(fd: int, argv: Sequence[str], memory: int) -> None:
    """Become the program behind a descriptor, with this environment and `memory` bytes of address space, which may be
    less than the interpreter has now. Returns only by raising OSError."""
    settings = [name + b"=" + value for name, value in os.environb.items()]
    words, environment = (
        ctypes.cast((ctypes.c_char_p * (len(row) + 1))(*row, None), ctypes.c_void_p)
        for row in ([os.fsencode(word) for word in argv], settings)
    )
    empty = ctypes.cast(ctypes.create_string_buffer(b""), ctypes.c_void_p)
    lower_limit(resource.RLIMIT_AS, memory)
    syscall("execveat", fd, empty, words, environment, EXECUTING)


_CAPABILITY_HEADER = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
_NO_CAPABILITIES = ctypes.create_string_buffer(24)


def drop_capabilities() -> None:
    """Give up every capability, permitted and inheritable ones too."""
    header, empty = ctypes.byref(_CAPABILITY_HEADER), ctypes.byref(_NO_CAPABILITIES)
    if _libc.capset(header, empty) < 0:
        raise _error("capset")


_HARD = {n: resource.getrlimit(n)[1] for name, n in vars(resource).items() if name.startswith("RLIMIT_")}


def lower_limit(name: int, ceiling: int) -> None:
    """Set a limit of this process for good, where it is not lower already."""
    hard = _HARD[name]
    ceiling = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
    resource.setrlimit(name, (ceiling, ceiling))


_attributes_begin, _attributes_stack = _libc.pthread_attr_init, _libc.pthread_attr_setstacksize
_attributes_use: Any = getattr(_libc, "pthread_setattr_default_np", None)  # glibc's; without it this is imported only
_thread_attributes = ctypes.create_string_buffer(256)  # what glibc takes of it: 56 bytes, or 64


def size_stacks(size: int) -> None:
    """How much address space the stack of each new thread of this process takes, whoever starts it."""
    failed = (
        _attributes_begin(_thread_attributes)
        or _attributes_stack(_thread_attributes, ctypes.c_size_t(size))
        or _attributes_use(_thread_attributes)
    )
    if failed:
        raise OSError(failed, f"stacks of {size} bytes: {os.strerror(failed)}")


def cpu_seconds(pid: int) -> float:
    """CPU time used so far by another process, all its threads together."""
    return time.clock_gettime((~pid << 3) | 2)
