"""Other platforms, simulated on this machine by giving up what they refuse. Needs root.

    python -m tests.sandbox.simulate docker-root -- python -m tests.sandbox.matrix

vm-user         an ordinary user, user namespaces allowed
docker-root     root with Docker's 14 default capabilities, its seccomp profile's refusals
k8s-root        the same capabilities, no seccomp profile (what Kubernetes gives if nobody asks)
k8s-restricted  an ordinary user without capabilities, no_new_privs, the runtime's default seccomp profile

The refusals are real: dropped capabilities and a kernel filter, both inherited by everything started. The interpreter
must be readable by others, as in an image; where it lives in a closed home, that home is opened in a mount namespace.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

from sandbox import kernel, seccomp

PLATFORMS = ("vm-root", "vm-user", "docker-root", "k8s-root", "k8s-restricted")
USER = 23456
_DOCKER_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
_PR_CAPBSET_DROP = 24
_REFUSED = """
unshare setns mount umount2 pivot_root bpf perf_event_open add_key request_key keyctl userfaultfd kexec_load
init_module finit_module delete_module open_by_handle_at swapon swapoff reboot acct quotactl io_uring_setup
io_uring_enter io_uring_register open_tree move_mount fsopen fsmount mount_setattr
"""


def enter(platform: str) -> None:
    """Become a process on `platform`, for good."""
    if platform == "vm-root":
        return
    _open_closed_homes()
    profile = _profile() if platform in ("docker-root", "k8s-restricted") else None
    if platform in ("docker-root", "k8s-root"):
        _keep_capabilities(_DOCKER_CAPABILITIES, profile)
        return
    if profile:
        seccomp.Filter(profile, 0).install()
    if platform == "k8s-restricted":
        for capability in range(41):
            kernel.prctl(_PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    if platform == "k8s-restricted":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _keep_capabilities(kept: set[int], profile: bytes | None) -> None:
    for capability in set(range(41)) - kept:
        kernel.prctl(_PR_CAPBSET_DROP, capability)
    if profile:
        seccomp.Filter(profile, 0).install()
    mask = sum(1 << capability for capability in kept)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = ctypes.create_string_buffer(struct.pack("6I", low, low, low, high, high, high))
    kernel.syscall("capset", ctypes.cast(header, ctypes.c_void_p), ctypes.cast(data, ctypes.c_void_p))


def _profile() -> bytes:
    """The refusals of Docker's default profile that matter here: everything else is allowed."""
    machine = kernel.arch()
    namespaces = 0x7E020000
    code = [seccomp._op(0x20, 0)]
    for name in _REFUSED.split():
        code += [seccomp._op(0x15, kernel.number(name, machine) or 0, no=1), seccomp._op(0x06, seccomp.EPERM)]
    code += [seccomp._op(0x15, kernel.number("clone3", machine) or 0, no=1), seccomp._op(0x06, seccomp.ENOSYS)]
    code += [
        seccomp._op(0x15, kernel.number("clone", machine) or 0, no=3),
        seccomp._op(0x20, 16),
        seccomp._op(0x45, namespaces, no=1),
        seccomp._op(0x06, seccomp.EPERM),
    ]
    return b"".join([*code, seccomp._op(0x06, seccomp.ALLOW)])


def _open_closed_homes() -> None:
    """If the interpreter is behind a directory that others may not enter, show only the interpreter there."""
    prefix = os.path.realpath(sys.base_prefix)
    parts = prefix.split("/")
    closed = ["/".join(parts[:n]) for n in range(2, len(parts) + 1)]
    closed = [path for path in closed if not os.stat(path).st_mode & stat.S_IXOTH]
    if not closed:
        return
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    held = os.open(prefix, os.O_PATH)
    kernel.mount("home", closed[0], "tmpfs", 0, "mode=755")
    os.makedirs(prefix)
    kernel.mount(f"/proc/self/fd/{held}", prefix, None, kernel.MS_BIND | kernel.MS_REC)
    os.close(held)


def main() -> None:
    platform, separator, *command = sys.argv[1:]
    if platform not in PLATFORMS or separator != "--" or not command:
        sys.exit(f"usage: python -m tests.sandbox.simulate {{{','.join(PLATFORMS)}}} -- COMMAND ...")
    enter(platform)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
