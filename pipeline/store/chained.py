"""Lines of JSON that are appended to a file, each with a checksum over itself and the line before it.

    {…, "crc": "<CRC-32 of the line without this field, begun with the number that the line before states>"}

Invariant: a line that was changed, put in, taken out or moved does not follow from the line before it, or the next one
does not; only a loss of the last lines, which is what a crash does, goes unnoticed here.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_END = re.compile(rb', "crc": "([0-9a-f]{8})"\}$')


@dataclass(frozen=True)
class Line:
    number: int
    facts: dict[str, Any] | None
    """None where the line cannot be read."""
    chain: int | None
    """What the next line's checksum begins with; None where the line states none."""
    follows: bool
    """From the line before it; of a line after one that states no checksum that cannot be told, and it is taken to."""


def line(facts: Mapping[str, Any], chain: int) -> tuple[bytes, int]:
    """The line of some facts, and the chain after it."""
    body = json.dumps(facts, ensure_ascii=False)
    chain = zlib.crc32(body.encode(), chain)
    return f'{body[:-1]}, "crc": "{chain:08x}"}}\n'.encode(), chain


def lines(content: bytes) -> Iterator[Line]:
    """The whole lines; and a last one that no crash leaves, which does not follow: with another byte in place of its
    newline, or not as lines begin."""
    chain: int | None = 0
    *whole, tail = content.split(b"\n")
    for number, text in enumerate(whole, start=1):
        found = _read(number, text, chain)
        chain = found.chain
        yield found
    if is_whole(tail[:-1]) or tail[:2] != b'{"'[: len(tail)]:
        yield Line(len(whole) + 1, None, None, False)


def continues(content: bytes, tail: bytes) -> bool:
    """Whether whole lines were appended to these."""
    before = content.count(b"\n")
    return all(line.follows for line in lines(content + tail) if line.number > before)


def is_whole(text: bytes) -> bool:
    """Whether a line is whole but for its newline, and not one that was being written when its process died."""
    return _END.search(text) is not None


def stated(text: bytes) -> int:
    """The checksum that a line states, with which the next one begins; 0 where it states none."""
    end = _END.search(text)
    return int(end[1], 16) if end else 0


def _read(number: int, text: bytes, chain: int | None) -> Line:
    end = _END.search(text)
    if end is None:
        return Line(number, None, None, False)
    stated, body = int(end[1], 16), text[: end.start()] + b"}"
    try:
        facts = json.loads(body)
    except ValueError:
        return Line(number, None, stated, False)
    if not isinstance(facts, dict):
        return Line(number, None, stated, False)
    return Line(number, facts, stated, chain is None or zlib.crc32(body, chain) == stated)
