"""The unprivileged file wall: Landlock, at whatever ABI the kernel speaks.

Invariant: after `restrict`, files are readable under the given roots only, writable under the scratch directory only,
and, where the ABI knows them, TCP, signals and abstract sockets end at the wall too.
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE, _IOCTL_DEV = (
    1 << bit for bit in (0, 1, 2, 3, 13, 14, 15)
)
_MAKE = sum(1 << bit for bit in (4, 5, 7, 8, 12))  # remove directory, remove file, make directory, file, symlink


def abi() -> int:
    """The kernel's Landlock version; raises OSError where there is none."""
    return kernel.syscall("landlock_create_ruleset", None, 0, 1)


def restrict(version: int, readable: list[tuple[int, bool]], writable: list[tuple[int, bool]]) -> None:
    """Wall this thread in. Roots are (O_PATH descriptor, is a directory)."""
    handled = (1 << 13) - 1
    handled |= (version >= 2) * _REFER | (version >= 3) * _TRUNCATE | (version >= 5) * _IOCTL_DEV
    network, scoped = 3 * (version >= 4), 3 * (version >= 6)
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", handled, network, scoped))
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = kernel.syscall("landlock_create_ruleset", ctypes.cast(attributes, ctypes.c_void_p), size, 0)
    see = {True: _READ_FILE | _READ_DIR, False: _READ_FILE}
    use = {False: (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled}
    use[True] = use[False] | (_READ_DIR | _MAKE | _REFER) & handled
    rule = ctypes.create_string_buffer(12)
    pointer = ctypes.cast(rule, ctypes.c_void_p)
    for fd, rights in [(fd, see[kind]) for fd, kind in readable] + [(fd, use[kind]) for fd, kind in writable]:
        struct.pack_into("=Qi", rule, 0, rights, fd)
        kernel.syscall("landlock_add_rule", ruleset, 1, pointer, 0)
    kernel.syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
