"""TensorBoard's event files: records that carry checksums of their own.

    length (8 bytes) · masked CRC-32C of it (4) · data · masked CRC-32C of that (4)

Invariant: a file whose every bit is as it was written has no `damage`; a record that its process died writing is none.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pipeline.store.manifest import cause


def damage(path: Path) -> str | None:
    """What is wrong with an event file, in words."""
    try:
        content = path.read_bytes()
    except OSError as e:
        return cause(e)
    at = 0
    while at + 12 <= len(content):
        (size,), end = struct.unpack_from("<Q", content, at), at + 12
        if _masked(content[at : at + 8]) != content[at + 8 : end]:
            return f"holds a damaged record at byte {at}"
        if len(content) < end + size + 4:
            return None
        if _masked(content[end : end + size]) != content[end + size : end + size + 4]:
            return f"holds a damaged record at byte {at}"
        at = end + size + 4
    return None


def count(path: Path) -> int:
    """Events in a file that is not damaged, but for the first, which says the version."""
    content, at, found = path.read_bytes(), 0, 0
    while at + 12 <= len(content):
        at += 12 + struct.unpack_from("<Q", content, at)[0] + 4
        found += at <= len(content)
    return max(0, found - 1)


def _masked(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _row(n: int) -> int:
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    return n


_TABLE = [_row(n) for n in range(256)]
