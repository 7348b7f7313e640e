"""Answers that are numbers, quantities, or lists, tuples, sets, intervals and matrices of them.

Invariant: pure and exact; text is read with regular expressions only, never evaluated. What a value is taken to be,
where writing leaves it open:
- A unit, a percent sign, a label ("12 apples") or a name ("x = 12") given on one side only is ignored: the question
  fixed it. On both sides units must agree after conversion, and names must be the same. Two different labels, or a
  label against a unit: unknown.
- 50 % is 0.5, and 50 where the other side is a bare number.
- Decimals equal what they round or cut off: 0.333333 is 1/3, 0.666666 is 2/3. Six significant digits at least, else
  they must be exact. From 15 digits on they are a computer's: 0.30000000000000004 is 0.3.
- {a, b} and a bare "a, b" have no order, [a, b] and (a, b) do. (a, b), [a, b], (a, b] are intervals as well as lists:
  two values in unlike brackets are different if one is half-open, else unknown; of any other length, equal lists.
- {5} is 5 (the one solution), [5] is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from actors.answers.units import Unit, read_unit

Judgement = Literal["equal", "different", "unknown"]


_WORDS_OF_MATHS = """
pi sqrt log ln sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh exp abs min max gcd lcm
mod floor ceil frac infty infinity oo inf cup cap and or times cdot pm alpha beta gamma delta theta phi
"""
MATH_WORDS = frozenset(_WORDS_OF_MATHS.split())
"""Words that belong to a formula and make no prose."""

_COUNTING = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
_NUMBER_WORDS = {word: str(n) for n, word in enumerate(_COUNTING.split())}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SAY_MORE = """
half halves third thirds quarter quarters fourths fifth fifths sixth sixths sevenths eighths ninths tenth tenths
hundredths thousandths squared cubed factorial remainder modulo over plus minus negative point power pair pairs
not no none about approx approximately around nearly almost roughly maybe probably possibly perhaps likely
less fewer more least most than only if but then else except
hundreds thousands millions billions dozens score
"""
_NO_LABELS = (MATH_WORDS | set(_SAY_MORE.split()) | set(_SCALES) | set(_NUMBER_WORDS)) - {"cup"}
"""Words that change or doubt the number before them: a reader that skips one of them reads another number."""


@dataclass(frozen=True)
class Number:
    value: Fraction
    digits: int | None = None
    """Significant digits of a decimal; None for what is exact."""
    last: Fraction = Fraction(0)
    """What one unit of a decimal's last digit is worth."""
    unit: Unit | None = None
    label: str | None = None
    """A word after the number that is no known unit."""
    name: str | None = None
    """x in "x = 3"."""


@dataclass(frozen=True)
class Collection:
    brackets: str
    """"[]", "()", "(]", "[)", "{}", or "" for a bare list."""
    items: tuple[Value, ...]
    name: str | None = None


Value = Number | Collection

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}\.[0-9]*|\.[0-9]+|{_DIGITS})"
_POWER = r"(?:[eE]([+-]?[0-9]{1,3})|\s*(?:\*|x|×|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?([+-]?[0-9]{1,3})\}?)"
_SLASH = rf"({_DIGITS})\s*/\s*({_DIGITS})"
_FRAC = rf"\\frac(?:\s*\{{\s*({_DIGITS})\s*\}}\s*\{{\s*({_DIGITS})\s*\}}|([0-9])([0-9]))"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?:(?P<whole>[0-9]+)\s+)?(?P<slash>{_SLASH})|(?P<lead>[0-9]+)?\s*(?P<frac>{_FRAC})"
    rf"|(?P<decimal>{_DECIMAL})(?P<power>{_POWER})?)"
)
_NAME = re.compile(
    r"([A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?|[A-Za-z]\([A-Za-z]\)|\([A-Za-z](?:, ?[A-Za-z])+\))\s*=\s*(?![=])"
)
_REPLACEMENTS = (
    ("[\u200b-\u200f\u2060\ufeff]", ""),
    (r"(?<=[0-9])(?:\\,|_)(?=[0-9]{3}(?![0-9]))", ","),
    (r"\\(?:left|right|displaystyle|,|!|;|:|quad|limits)(?![A-Za-z])", " "),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\\(?:text|textbf|textrm|mathrm|mathbf|mathit|bm|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
    (r"\{,\}", ","),
    (r"\\%", "%"),
    (r"\\[$]", ""),
    (r"\^\s*\{?\\circ\}?|°", " degrees"),
    (r"[−–]", "-"),
    (r"\\ ", " "),
    (r"~", " "),
    (r"\s+\^", "^"),
    (r"²", "^2"),
    (r"³", "^3"),
)
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}


def read_value(text: str) -> Value | None:
    """A number, quantity or collection of them, or None where the text is something else."""
    return _value(_clean(text), depth=0)


def _clean(text: str) -> str:
    text = text.strip()
    while True:  # wrappers may be nested: $\boxed{...}$
        inner = re.fullmatch(
            r"\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\]|\\boxed\{(.+)\}|\*\*(.+)\*\*", text, re.DOTALL
        )
        if inner is None:
            break
        text = next(g for g in inner.groups() if g is not None).strip()
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    for sign, ratio in _VULGAR.items():
        text = text.replace(sign, f" {ratio}")
    text = re.sub(r"^\$\s*", "", text.strip())
    if re.fullmatch(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?", text):
        text = text.replace(" ", "")
    first, _, rest = text.partition(" ")
    text = " ".join((_NUMBER_WORDS.get(first.lower(), first), rest))
    return re.sub(r"(?<![0-9])\.$|(?<=[0-9])\.$", "", " ".join(text.split())).strip()


def _value(text: str, depth: int) -> Value | None:
    if not text or depth > 4:
        return None
    if named := _NAME.match(text):
        inner = _value(text[named.end() :], depth + 1)
        if isinstance(inner, Number):
            return replace(inner, name=named[1])
        if isinstance(inner, Collection) and inner.brackets:
            return replace(inner, name=named[1].replace(" ", ""))
    return _number(text) or _plus_minus(text, depth) or _matrix(text, depth) or _collection(text, depth)


def _number(text: str) -> Number | None:
    match = _NUMBER.match(text)
    if match is None:
        return None
    magnitude = _magnitude(match)
    if magnitude is None:
        return None
    value, digits, last = magnitude
    value = -value if match["sign"] == "-" else value
    tail = text[match.end() :]
    if scale := re.match(rf"\s+({'|'.join(_SCALES)})\b", tail):
        factor = _SCALES[scale[1]]
        value, last, tail = value * factor, last * factor, tail[scale.end() :]
    number = Number(value, digits, last)
    if not tail.strip():
        return number
    unit = read_unit(tail.strip())
    if unit is not None:
        return replace(number, unit=unit)
    word = re.fullmatch(r"\s+([A-Za-z][A-Za-z]+(?: [A-Za-z]+){0,2})", tail)
    if word is None or set(word[1].lower().split()) & _NO_LABELS:
        return None
    return replace(number, label=word[1].lower().rstrip("s"))


def _magnitude(match: re.Match[str]) -> tuple[Fraction, int | None, Fraction] | None:
    """(value, significant digits, worth of the last one) without the sign; None for a division by zero."""
    if match["slash"]:
        top, bottom = re.fullmatch(_SLASH, match["slash"]).groups()  # type: ignore[union-attr]
        return _ratio(top, bottom, match["whole"])
    if match["frac"]:
        top, bottom = (g for g in re.fullmatch(_FRAC, match["frac"]).groups() if g)  # type: ignore[union-attr]
        return _ratio(top, bottom, match["lead"])
    decimal = match["decimal"].replace(",", "").removesuffix(".")
    powers = re.search(_POWER, match["power"]) if match["power"] else None
    scale = Fraction(10) ** (int(next(g for g in powers.groups() if g)) if powers else 0)
    value = Fraction(decimal) * scale
    if "." not in decimal and scale >= 1:
        return value, None, Fraction(0)
    places = len(decimal.partition(".")[2])
    return value, len(decimal.replace(".", "").lstrip("0")), scale / 10**places


def _ratio(top: str, bottom: str, whole: str | None) -> tuple[Fraction, None, Fraction] | None:
    numerator, denominator = int(top.replace(",", "")), int(bottom.replace(",", ""))
    return None if denominator == 0 else (int(whole or 0) + Fraction(numerator, denominator), None, Fraction(0))


def _plus_minus(text: str, depth: int) -> Collection | None:
    match = re.fullmatch(r"(?:\\pm|±|\+/-|\+-)\s*(.+)", text)
    inner = _number(match[1]) if match else None
    if inner is None:
        return None
    return Collection("{}", (inner, replace(inner, value=-inner.value)))


def _matrix(text: str, depth: int) -> Collection | None:
    match = re.fullmatch(r"\\begin\{([bpB]?matrix)\}(.*)\\end\{\1\}", text, re.DOTALL)
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\", match[2]) if row.strip()]
    read = [[_value(cell.strip(), depth + 1) for cell in row.split("&")] for row in rows]
    if any(cell is None for row in read for cell in row):
        return None
    return Collection("[]", tuple(Collection("[]", tuple(cell for cell in row if cell)) for row in read))


def _collection(text: str, depth: int) -> Collection | None:
    text = text.replace("\\{", "{").replace("\\}", "}").replace("\\lbrace", "{").replace("\\rbrace", "}")
    brackets = ""
    if text[0] in "[({" and text[-1] in "])}" and _closes_last(text):
        brackets, text = text[0] + text[-1], text[1:-1].strip()
        if (brackets[0] == "{") != (brackets[1] == "}"):
            return None
    parts = _split(text)
    if not parts:
        return Collection(brackets, ()) if brackets in ("[]", "{}", "()") else None
    if not brackets and len(parts) < 2:
        return None
    items = [_value(part, depth + 1) for part in parts]
    if len(items) == 1 and brackets == "()":
        return items[0] if isinstance(items[0], Collection) else None
    return None if any(item is None for item in items) else Collection(brackets, tuple(i for i in items if i))


def _closes_last(text: str) -> bool:
    """The bracket that opens the text is closed by its last character."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "[({") - (c in "])}")
        if depth == 0:
            return i == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Parts at top-level commas, semicolons, "and", "or". "1,234" is one number, "1, 234" are two."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(
        r"[\[({]|[\])}]|[,;]\s*(?:and|or)\b|;|,(?![0-9]{3}(?![0-9]))|,(?=\s)|\b(?:and|or)\b", text
    ):
        token = match[0]
        if token in "[({":
            depth += 1
        elif token in "])}":
            depth -= 1
        elif depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    return [] if parts == [""] else parts


# ---------------------------------------------------------------- comparing values


def compare_values(a: Value, b: Value) -> Judgement:
    if isinstance(a, Number) and isinstance(b, Number):
        return _compare_numbers(a, b)
    if isinstance(a, Number) or isinstance(b, Number):
        number, other = (a, b) if isinstance(a, Number) else (b, a)
        if isinstance(other, Collection) and other.brackets == "{}" and len(other.items) == 1:
            return compare_values(number, other.items[0])
        return "different"
    if a.name and b.name and a.name != b.name:
        return "different"
    if not a.brackets or not b.brackets or a.brackets == b.brackets == "{}":
        ordered = bool(a.brackets + b.brackets) and "{}" not in (a.brackets, b.brackets)
        return _all(a, b) if ordered else _same_members(a, b)
    if "{}" in (a.brackets, b.brackets):  # a set against an ordered list: told only where order does not matter
        return "equal" if _all(a, b) == "equal" else "unknown" if _same_members(a, b) != "different" else "different"
    outcome = _all(a, b)
    if a.brackets == b.brackets or outcome != "equal":
        return outcome
    if {a.brackets, b.brackets} & {"(]", "[)"}:
        return "different"
    return "unknown" if len(a.items) == 2 else "equal"


def _all(a: Collection, b: Collection) -> Judgement:
    if len(a.items) != len(b.items):
        return "different"
    outcomes = {compare_values(x, y) for x, y in zip(a.items, b.items, strict=True)}
    return "different" if "different" in outcomes else "unknown" if "unknown" in outcomes else "equal"


def _same_members(a: Collection, b: Collection) -> Judgement:
    """Every member of one is a member of the other."""
    outcomes = set()
    for xs, ys in ((a.items, b.items), (b.items, a.items)):
        for x in xs:
            found = {compare_values(x, y) for y in ys}
            outcomes.add("equal" if "equal" in found else "unknown" if "unknown" in found else "different")
    return "different" if "different" in outcomes else "unknown" if "unknown" in outcomes else "equal"


def _compare_numbers(a: Number, b: Number) -> Judgement:
    if a.name and b.name and a.name != b.name:
        return "different"
    if (a.unit and b.label) or (b.unit and a.label):
        return "unknown"
    if a.unit and b.unit:
        if a.unit.dimension != b.unit.dimension:
            return "different"
        same = _close(_scaled(a, a.unit.factor), _scaled(b, b.unit.factor))
    else:
        same = _close(a, b)
        for percent, bare in ((a, b), (b, a)):
            if percent.unit and percent.unit.is_percent:
                same |= _close(_scaled(percent, Fraction(1, 100)), bare)
    if not same:
        return "different"
    return "unknown" if a.label and b.label and a.label != b.label else "equal"


def _scaled(number: Number, factor: Fraction) -> Number:
    return replace(number, value=number.value * factor, last=number.last * factor)


def _close(a: Number, b: Number) -> bool:
    """The same value, or one is the other rounded or cut off at its last digit, of six at least."""
    x, y = abs(a.value), abs(b.value)
    if a.value == b.value:
        return True
    digits = [n for n in (a.digits, b.digits) if n is not None]
    if not digits or a.value * b.value < 0:
        return False
    if max(digits) >= 15 and abs(x - y) <= max(x, y) * Fraction(1, 10**12):
        return True
    short, full, last = (x, y, a.last) if a.last >= b.last else (y, x, b.last)
    return min(digits) >= 6 and (abs(x - y) <= last / 2 or 0 < full - short < last)
