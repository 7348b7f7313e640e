"""The fork server's memory, arranged so that a run meets few page faults: microseconds each, and two thousand in a run.

Invariant: advice only. No byte of any process changes by it, and where the kernel does not take it, runs are slower and
nothing else.
"""

from __future__ import annotations

import array
import ctypes
import mmap
import os
import resource
from typing import TypeAlias

Spans: TypeAlias = "array.array[int]"
"""Address, bytes and kind of advice of each, one after another: no objects, which looking at would write to."""

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
    for start, end, mode, name in _mapped(proc):
        if mode == "rw-p" and name in ("", "[heap]"):
            for at in range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                _madvise(at, _HUGE, _COLLAPSE)


def _mapped(proc: int) -> list[tuple[int, int, str, str]]:
    """Start, end, mode and name of what this process has mapped; `proc` is open on /proc. Raises OSError."""
    with open(os.open("self/maps", os.O_RDONLY, dir_fd=proc)) as file:
        rows = [(*line.split(maxsplit=5), "")[:6] for line in file]
    return [(*(int(at, 16) for at in row[0].split("-")), row[1], row[5].strip()) for row in rows]  # type: ignore[misc]


_watched = array.array("Q")
"""Start and end of each mapping, likewise."""


def watch(proc: int) -> None:
    """Note what this process has mapped for itself, so that a child forked from it can find what it has touched of
    that. Raises OSError."""
    own = [span for span in _mapped(proc) if span[2][3] == "p" and not span[3].startswith("[v")]
    _watched[:] = array.array("Q", [address for span in own for address in span[:2]])


def touched(pagemap: int) -> list[int]:
    """In a child, the `Spans` that it has touched since: pages of files that it read, and pages of its own that it
    wrote to. `pagemap` is open on its /proc/self/pagemap, and is copied before it is looked at, which touches more."""
    size = resource.getpagesize()
    mappings = list(zip(_watched[::2], _watched[1::2], strict=True))
    copy = memoryview(mmap.mmap(-1, sum(end - start for start, end in mappings) // size * 8))
    at = 0
    for start, end in mappings:
        at += os.preadv(pagemap, [copy[at : at + (end - start) // size * 8]], start // size * 8)
    entries = iter(copy.cast("Q"))
    found = [0, 0, 0]
    for start, end in mappings:
        for address, entry in zip(range(start, end, size), entries):  # noqa: B905 - `entries` goes on
            if entry & _PRESENT and entry & (_OF_FILE | _ONLY_HERE):
                how = _READ if entry & _OF_FILE else _WRITE
                first, length, kind = found[-3:]
                if kind == how and first >= start and address < first + length + _NEAR[how] * size:
                    found[-2] = address + size - first
                else:
                    found += address, size, how
    return found[3:]


def touch(spans: Spans) -> None:
    """Have the kernel copy and map them at once, and not one by one when the program comes to them."""
    for n in range(0, len(spans), 3):
        _madvise(*spans[n : n + 3])
