"""The fork server's memory, arranged so that a run meets few page faults: a microsecond each, a thousand in a run.

Invariant: advice only. No byte of any process changes by it, and where the kernel does not take it, runs are slower and
nothing else.
"""

from __future__ import annotations

import array
import ctypes
import os
import resource
from collections.abc import Sequence

Span = Sequence[int]
"""Address, bytes, and how runs touch them: one of the kernel's two kinds of advice."""

_READ, _WRITE, _COLLAPSE = 22, 23, 25  # MADV_POPULATE_READ and _WRITE (Linux 5.14), MADV_COLLAPSE (6.1)
_PRESENT, _OF_FILE, _ONLY_HERE = 1 << 63, 1 << 61, 1 << 56
_NEAR = {_READ: 16, _WRITE: 1}
"""Pages to the next that still belongs to a span: of a file, the kernel maps those around a page with it."""
_HUGE = 1 << 21

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def merge(proc: int) -> None:
    """Move this process's memory to huge pages where it can be: a fork, and the end of what was forked, then handle
    a few hundred of them instead of fifteen thousand pages; a child's writes still copy single ones."""
    for start, end, mode, name in mapped(proc):
        if mode == "rw-p" and name in ("", "[heap]"):
            for at in range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                _madvise(at, _HUGE, _COLLAPSE)


def mapped(proc: int) -> list[tuple[int, int, str, str]]:
    """Start, end, mode and name of what this process has mapped; `proc` is open on /proc. Raises OSError."""
    with open(os.open("self/maps", os.O_RDONLY, dir_fd=proc)) as file:
        rows = [(*line.split(maxsplit=5), "")[:6] for line in file]
    return [(*(int(at, 16) for at in row[0].split("-")), row[1], row[5].strip()) for row in rows]  # type: ignore[misc]


def touched(pagemap: int, spans: Sequence[tuple[int, int]]) -> Sequence[Span]:
    """What this process, forked from the one that has `spans` (start, end), has touched of them since: pages of files
    that it read, and pages of its own that it wrote to. `pagemap` is open on its /proc/self/pagemap."""
    size = resource.getpagesize()
    found: list[list[int]] = []
    for start, end in spans:
        first = len(found)
        entries = array.array("Q", os.pread(pagemap, (end - start) // size * 8, start // size * 8))
        for address, entry in zip(range(start, end, size), entries, strict=False):
            if entry & _PRESENT and entry & (_OF_FILE | _ONLY_HERE):
                how = _READ if entry & _OF_FILE else _WRITE
                last = found[-1] if len(found) > first else [0, 0, 0]
                if last[2] == how and address < last[0] + last[1] + _NEAR[how] * size:
                    last[1] = address + size - last[0]
                else:
                    found.append([address, size, how])
    return found


def touch(spans: Sequence[Span]) -> None:
    """Have the kernel copy and map them at once, and not one by one when the program comes to them."""
    for address, size, how in spans:
        _madvise(address, size, how)
