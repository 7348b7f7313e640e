"""TensorBoard's event files: records that carry checksums of their own.

    length (8 bytes) · masked CRC-32C of it (4) · data · masked CRC-32C of that (4)

Invariant: a file whose every bit is as it was written is not damaged, nor is one whose process died writing a record.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pipeline.store.manifest import Damage, cause


def count(path: Path) -> int:
    """Events in a file, but for the first, which says the version. Raises Damage."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise Damage(path, cause(e)) from None
    at, found = 0, 0
    while at + 12 <= len(content):
        (size,), begin = struct.unpack_from("<Q", content, at), at + 12
        end = begin + size
        if _masked(content[at : at + 8]) != content[at + 8 : begin]:
            raise Damage(path, f"holds a damaged record at byte {at}")
        if end + 4 > len(content):
            break
        if _masked(content[begin:end]) != content[end : end + 4]:
            raise Damage(path, f"holds a damaged record at byte {at}")
        at, found = end + 4, found + 1
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
