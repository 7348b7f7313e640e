"""The unprivileged file wall: Landlock, at whatever ABI the kernel speaks.

Invariant: after `begin` and `restrict`, files are readable under the given roots only, writable under the scratch
directory only, executable if named, and, where the ABI knows them, TCP, signals and abstract sockets end at the wall.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from . import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE, _IOCTL_DEV = (
    1 << bit for bit in (0, 1, 2, 3, 13, 14, 15)
)
_MAKE = sum(1 << bit for bit in (4, 5, 7, 8, 12))  # remove directory, remove file, make directory, file, symlink


def abi() -> int:
    """The kernel's Landlock version; raises OSError where there is none."""
    return kernel.syscall("landlock_create_ruleset", None, 0, 1)


class Ruleset:
    """The rules that all runs share, packed once. Roots are (O_PATH descriptor, is a directory)."""

    def __init__(
        self,
        version: int,
        readable: list[tuple[int, bool]],
        writable: list[tuple[int, bool]],
        executable: Sequence[tuple[int, bool]] = (),
    ):
        handled = (1 << 13) - 1
        handled |= (version >= 2) * _REFER | (version >= 3) * _TRUNCATE | (version >= 5) * _IOCTL_DEV
        network, scoped = 3 * (version >= 4), 3 * (version >= 6)
        self._attributes = _pack("QQQ", handled, network, scoped)
        self._size = 24 if version >= 6 else 16 if version >= 4 else 8
        see = {True: _READ_FILE | _READ_DIR, False: _READ_FILE}
        use = {False: (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled}
        use[True] = use[False] | (_READ_DIR | _MAKE | _REFER) & handled
        self._scratch = use[True]
        self._rules = [_pack("=Qi", see[kind], fd) for fd, kind in readable]
        self._rules += [_pack("=Qi", use[kind], fd) for fd, kind in writable]
        self._rules += [_pack("=Qi", _READ_FILE | _EXECUTE, fd) for fd, _ in executable]
        self._add = kernel.prepared("landlock_add_rule")

    def begin(self) -> int:
        """A descriptor of the shared rules, for one run: they may be in place before it is known."""
        ruleset = kernel.syscall("landlock_create_ruleset", _at(self._attributes), self._size, 0)
        self._extend(ruleset, self._rules)
        return ruleset

    def restrict(self, ruleset: int, scratch: int) -> None:
        """Wall this thread in, with one more directory that it may write."""
        self._extend(ruleset, [_pack("=Qi", self._scratch, scratch)])
        kernel.syscall("landlock_restrict_self", ruleset, 0)
        os.close(ruleset)

    def _extend(self, ruleset: int, rules: Sequence[ctypes.Array[ctypes.c_char]]) -> None:
        into, below_path, no_flags = ctypes.c_long(ruleset), ctypes.c_long(1), ctypes.c_long(0)
        for rule in rules:
            self._add(into, below_path, rule, no_flags)


def _pack(layout: str, *values: int) -> ctypes.Array[ctypes.c_char]:
    data = struct.pack(layout, *values)
    return ctypes.create_string_buffer(data, len(data))


def _at(buffer: ctypes.Array[ctypes.c_char]) -> ctypes.c_void_p:
    return ctypes.cast(buffer, ctypes.c_void_p)
