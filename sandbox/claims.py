"""Reading what untrusted code says: strict JSON, bounded, and nothing else.

Invariant: `read` returns plain finite values or raises ValueError; it never runs, imports or unpickles anything.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, NoReturn

_DEPTH = 64
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,300}\.[0-9]*|\.[0-9]+|[0-9]{1,300}(?:\.[0-9]*)?[eE][+-]?[0-9]{1,3})")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
"""Of what a program says: each character can be matched in one way only, else a long word would take minutes."""
_LONG = 4300


def read(data: bytes) -> Any:
    """One strict JSON value. Refuses NaN, infinities, nesting beyond 64, and text that is no Unicode."""
    if _depth(data) > _DEPTH:
        raise ValueError(f"nested deeper than {_DEPTH}")
    left = sys.get_int_max_str_digits() or len(data)

    def integer(text: str) -> int:
        nonlocal left
        if len(text) > _LONG:  # it takes time that grows with the square of its length
            left -= len(text)
            if left < 0:
                raise ValueError("too many digits")
        return int(text)

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, parse_int=integer)
        if b"\\u" in data:
            _check_text(value)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _check_text(value: Any) -> None:
    """Lone surrogates can be written in JSON, and fail much later."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for pair in value.items():
            _check_text(list(pair))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is beyond a float")
    return value


def _depth(data: bytes) -> int:
    """Deepest bracket nesting, strings skipped; 0 if it cannot matter."""
    if data.count(b"[") + data.count(b"{") <= _DEPTH:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def same(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Equality of plain values: True is not 1, tuples are lists, and where a float is expected the value may differ by
    `tolerance`, relative or absolute. Where an integer or a text is expected, it is exact."""
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(expected, bool) and value is expected
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        return value == expected or (
            isinstance(expected, float)
            and max(abs(value), abs(expected)) < 1e300  # an integer may be beyond a float
            and math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(same(v, e, tolerance) for v, e in zip(value, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(same(value[key], expected[key], tolerance) for key in expected)
        )
    return type(value) is type(expected) and value == expected


def same_text(text: str, expected: str, tolerance: float = 0.0) -> bool:
    """Equal lines; blanks at the ends of lines and of the text do not count. With a tolerance, words that are expected
    to be decimals may differ by it, and blanks between words do not count."""
    found, wanted = _lines(text), _lines(expected)
    if not tolerance or len(found) != len(wanted):
        return found == wanted
    pairs = [(_WORDS.split(line), _WORDS.split(other)) for line, other in zip(found, wanted, strict=True)]
    return all(
        len(words) == len(others) and all(_same_word(w, o, tolerance) for w, o in zip(words, others, strict=True))
        for words, others in ([[w for w in side if w] for side in pair] for pair in pairs)
    )


def _same_word(word: str, expected: str, tolerance: float) -> bool:
    if word == expected or not _DECIMAL.fullmatch(expected) or not _NUMBER.fullmatch(word):
        return word == expected
    return same(float(word), float(expected), tolerance)


def _lines(text: str) -> list[str]:
    """Only the newline ends a line, and only spaces, tabs and carriage returns are blank: other characters that Unicode
    takes for either are text, and differ."""
    return "\n".join(line.rstrip(_BLANK) for line in text.split("\n")).strip(_BLANK + "\n").split("\n")


_BLANK = " \t\r"
_WORDS = re.compile(f"[{_BLANK}]")
