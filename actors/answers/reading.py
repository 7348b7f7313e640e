r"""Text -> value: numbers, quantities, ratios, times, and lists, tuples, sets, intervals, matrices of them.

Invariant: pure; text is read with regular expressions only, never evaluated. A text is read as a whole or not at all:
what is left over makes it something else (None). Members of a collection that are formulas stay text, for the sandbox.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from actors.answers.notation import MATH_WORDS, is_formula
from actors.answers.units import Unit, read_unit
from actors.answers.values import Collection, Either, Formula, Number, Ratio, Time, Value
from actors.answers.writing import WORDS_IN_MATHS, label, signs, unwrap

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
less fewer more least most than only if but then else except base to
hundreds thousands millions billions dozens score
"""
COUNTS = frozenset("十百千万亿半零一二三四五六七八九两分之成倍余多约或不至到")
"""Signs behind a number that make it another one, or none."""
_NO_LABELS = (MATH_WORDS | set(_SAY_MORE.split()) | set(_SCALES) | set(_NUMBER_WORDS)) - {"cup"}
"""Words that change what a number before them says, or doubt it: whoever reads them over reads another number."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}\.[0-9]*|\.[0-9]+|{_DIGITS})"
_POWER = r"(?:[eE]([+-]?[0-9]{1,3})|\s*(?:\*|x|×|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?([+-]?[0-9]{1,3})\}?)"
_SLASH = rf"({_DIGITS})\s*/\s*({_DIGITS})"
_FRAC = rf"\\frac(?:\s*\{{\s*({_DIGITS})\s*\}}\s*\{{\s*({_DIGITS})\s*\}}|([0-9])([0-9]))"
_TEN = r"10\s*(?:\^|\*\*)\s*(?:\{([+-]?[0-9]{1,3})\}|([+-]?[0-9]{1,3}))(?![0-9.])"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?:(?P<whole>[0-9]+)\s+)?(?P<slash>{_SLASH})|(?P<lead>[0-9]+)?\s*(?P<frac>{_FRAC})"
    rf"|(?P<ten>{_TEN})|(?P<decimal>{_DECIMAL})(?P<power>{_POWER})?)"
)
_REPEATING = re.compile(r"([+-]?)\s*([0-9]+)\.([0-9]*)\\(?:overline|bar|dot)\s*(?:\{\s*([0-9]+)\s*\}|([0-9])(?![0-9]))")
_BASE = re.compile(
    r"([+-]?)([0-9A-Fa-f][0-9A-Fa-f ]*)(?:_\{?\(?([0-9]{1,2})\)?\}?|\s*\(?\s*(?:in )?base[ -]([0-9]{1,2})\s*\)?)"
)
_LITERAL = re.compile(r"([+-]?)0([xXoObB])([0-9A-Fa-f]+)")
_RATIO = re.compile(r"[0-9./,\s]+(?:(?::|\\colon(?![A-Za-z]))[0-9./,\s]+)+")
_TIME = re.compile(
    r"(?:([0-9]+) days?,?\s+)?([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,9})?))?(?:\s*([AaPp])\.?[Mm]\.?)?"
)
_MONEY = {"$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee"}
_NAME = re.compile(
    r"([A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?|[A-Za-z]\([A-Za-z]\)|\([A-Za-z](?:, ?[A-Za-z])+\))\s*=\s*(?![=])"
)
_RELATION = re.compile(r"[<>=≤≥≠∈]|\\(?:leq?|geq?|lt|gt|neq?|in|approx|to|mid)(?:slant)?(?![A-Za-z])")
_REPLACEMENTS = (
    (r"(?<=[0-9])_(?=[0-9]{3}(?![0-9]))", ","),
    (r"\\(?:left|right|displaystyle|,|!|;|:|quad|qquad|limits)(?![A-Za-z])", " "),
    (r"\\%", "%"),
    (r"\^\s*\{?\\circ\}?|°", " degrees"),
    (r"\\ ", " "),
    (r"~", " "),
    (r"\s+\^", "^"),
)
_UNIT_BEHIND = re.compile(
    r"(?<=[\s})0-9])(?:\\(?:text|mathrm)\s*\{([^{}]+)\}|\s((?:[mck]m|kg|ft|[A-Za-z]{4,})))"
    r"(?:\^\{?[23]\}?)?$"
)
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_MAX_DEPTH = 4


def read_value(text: str) -> Value | None:
    """A value, or None where the text is something else."""
    lines = [_clean(line) for line in signs(unwrap(text)).split("\n")]
    if len(lines) > 1 and all(rows := [_side_by_side(line) for line in lines]):
        return Collection("[]", tuple(replace(row, brackets="[]") for row in rows if row))
    return _value(_clean(text), depth=0)


def _clean(text: str) -> str:
    text = signs(unwrap(text))
    letter, rest = label(text)
    if letter is not None and (value := _value(_clean(rest), 0)) is not None and not isinstance(value, Formula):
        text = rest
    text = WORDS_IN_MATHS.sub(r" \1 ", text)
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    for sign, ratio in _VULGAR.items():
        text = text.replace(sign, f" {ratio}")
    first, _, rest = " ".join(text.split()).partition(" ")
    text = " ".join((_NUMBER_WORDS.get(first.lower(), first), rest)).strip()
    return re.sub(r"(?<![0-9])\.$|(?<=[0-9])\.$", "", text).strip()


def _value(text: str, depth: int) -> Value | None:
    if not text or depth > _MAX_DEPTH:
        return None
    if named := _NAME.match(text):
        inner = _value(text[named.end() :], depth + 1)
        if inner is not None and not (isinstance(inner, Collection) and not inner.brackets.strip()):
            return replace(inner, name=named[1].replace(" ", ""))
    return (
        _thousands(text)
        or _number(text)
        or _based(text)
        or _repeating(text)
        or _ratio_or_time(text)
        or _side_by_side(text)
        or _plus_minus(text)
        or _matrix(text, depth)
        or _collection(text, depth)
    )


# ---------------------------------------------------------------- numbers


def _thousands(text: str) -> Value | None:
    """10 000: one number, or two side by side. With a unit or a currency it is one."""
    match = re.fullmatch(r"([-+$€£¥₹]*)([1-9][0-9]{0,2}(?: [0-9]{3})+)(\.[0-9]+)?( .*)?", text)
    if match is None:
        return None
    sign, digits, places, rest = (group or "" for group in match.groups())
    number = _number(f"{sign}{digits.replace(' ', '')}{places}{rest}")
    several = _side_by_side(text) if not rest else None
    return number if several is None or number is None else Either((number, several))


def _number(text: str) -> Value | None:
    money = _MONEY.get(text[0])
    sign = re.match(r"([+-])\s*([$€£¥₹])", text)
    if sign:
        money, text = _MONEY[sign[2]], f"{sign[1]}{text[sign.end() :].lstrip()}"
    elif money:
        text = text[1:].lstrip()
    match = _NUMBER.match(text)
    magnitude = _magnitude(match) if match else None
    if match is None or magnitude is None:
        return None
    value, digits, last = magnitude
    value = -value if match["sign"] == "-" else value
    tail = text[match.end() :]
    if scale := re.match(rf"\s+({'|'.join(_SCALES)})\b", tail):
        factor = _SCALES[scale[1]]
        value, last, tail = value * factor, last * factor, tail[scale.end() :]
    number = Number(value, digits, last, text=text[: match.end()] if not scale else str(value))
    if money is not None:
        return replace(number, unit=read_unit(money)) if not tail.strip() or tail.strip() == money else None
    mixed = _side_by_side(match[0]) if match["whole"] else None
    if not tail.strip():
        return number if mixed is None else Either((number, mixed))
    if tail.lstrip()[0] in "*\\":  # a product
        return None
    if tail.strip() == "$":
        return replace(number, unit=read_unit("dollar"))
    unit = read_unit(tail.strip())
    if unit is not None:
        return replace(number, unit=unit, attached=len(tail) == 1 and tail.isalpha() and tail.isascii())
    if counted := re.fullmatch(r"\s*([\u4e00-\u9fff]{1,4})", tail):
        return None if set(counted[1]) & COUNTS else replace(number, label=counted[1])
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
    if match["ten"]:
        power = int(next(g for g in re.match(_TEN, match["ten"]).groups() if g))  # type: ignore[union-attr]
        return Fraction(10) ** power, None, Fraction(0)
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


def _based(text: str) -> Number | None:
    """1101_2, 1D_{16}, "1101 (base 2)", 0x1d. A digit that the base does not have makes it no number."""
    if literal := _LITERAL.fullmatch(text):
        sign, digits, base = literal[1], literal[3], {"x": 16, "o": 8, "b": 2}[literal[2].lower()]
    elif match := _BASE.fullmatch(text):
        sign, digits, base = match[1], match[2].replace(" ", ""), int(match[3] or match[4])
    else:
        return None
    if not 2 <= base <= 16 or any(int(digit, 16) >= base for digit in digits):
        return None
    value = Fraction(int(digits, base))
    return Number(-value if sign == "-" else value, numeral=None if base == 10 else digits, text=text)


def _repeating(text: str) -> Number | None:
    r"""0.1\overline{6}, which is 1/6."""
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    sign, whole, head, period = match[1], match[2], match[3], match[4] or match[5]
    value = Fraction(int(whole + head + period) - int(whole + head), 10 ** len(head) * (10 ** len(period) - 1))
    value = -value if sign == "-" else value
    return Number(value, text=f"{value.numerator}/{value.denominator}")


def _ratio_or_time(text: str) -> Value | None:
    readings: list[Value] = []
    if _RATIO.fullmatch(text) and not re.search(r"(?<![0-9.,/])0[0-9]", text):
        parts = [_number(part.strip()) for part in re.split(r":|\\colon", text)]
        values = [part.value for part in parts if isinstance(part, Number) and part.value > 0]
        readings += [Ratio(tuple(values))] if len(values) == len(parts) else []
    if match := _TIME.fullmatch(text):
        days, hours, minutes, seconds, half = match.groups()
        hour = int(hours) % 12 + 12 * (half in ("p", "P")) if half else int(hours)
        total = Fraction(int(days or 0) * 86400 + hour * 3600 + int(minutes) * 60) + Fraction(seconds or 0)
        readings.append(Time(total, 2 if seconds is None else 3, half is not None))
    return Either(tuple(readings)) if len(readings) == 2 else next(iter(readings), None)


def _side_by_side(text: str) -> Collection | None:
    """0 0 1, and never a product. "3 -4" alone may be a difference; a formula is not read here."""
    parts = text.split(" ")
    exact = [re.fullmatch(rf"[+-]?(?:{_DECIMAL}|[0-9]+/[0-9]+)", part) for part in parts]
    if len(parts) < 2 or not all(exact) or all(part[0] in "+-" for part in parts[1:]):
        return None
    numbers = [_number(part) for part in parts]
    return Collection("  ", tuple(n for n in numbers if n)) if all(numbers) else None


def _plus_minus(text: str) -> Collection | None:
    r"""\pm 3, 1 \pm \sqrt{2}: the two values."""
    match = re.fullmatch(r"([^,;]*?)\s*(?:\\pm(?![A-Za-z])|±|\+/-|\+-)\s*([^,;]+)", text)
    if match is None or "\\mp" in text or re.search(r"\\pm(?![A-Za-z])|±|\+/-", match[2]) or _RELATION.search(text):
        return None
    before, after = match.groups()
    inner = _number(after)
    if not before and isinstance(inner, Number):
        return Collection("{}", (inner, replace(inner, value=-inner.value, text=f"-{inner.text}")))
    if not is_formula(f"{before}+{after}"):
        return None
    return Collection("{}", (Formula(f"{before}+{after}"), Formula(f"{before}-{after}")))


# ---------------------------------------------------------------- collections


def _matrix(text: str, depth: int) -> Collection | None:
    match = re.fullmatch(r"\\begin\{([bpB]?matrix)\}(.*)\\end\{\1\}", text, re.DOTALL)
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\", match[2]) if row.strip()]
    read = [[_member(cell.strip(), depth + 1) for cell in row.split("&")] for row in rows]
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
    if len(parts) == 1 and brackets == "[]" and (inner := _rows(text, depth) or _side_by_side(text)):
        return replace(inner, brackets="[]")
    if not brackets and len(parts) < 2:
        return None
    items = [_member(part, depth + 1) for part in parts]
    if any(isinstance(item, Formula) for item in items) and (len(items) == 1 or _RELATION.search(text)):
        return None
    if len(items) == 1 and brackets == "()":
        return items[0] if isinstance(items[0], Collection) else None
    return None if any(item is None for item in items) else Collection(brackets, tuple(i for i in items if i))


def _rows(text: str, depth: int) -> Collection | None:
    """[1 2] [3 4], as numpy prints it."""
    rows = re.findall(r"\[[^\[\]]*\]", text)
    if len(rows) < 2 or re.sub(r"\[[^\[\]]*\]|\s", "", text):
        return None
    read = [_collection(row, depth + 1) for row in rows]
    return None if any(row is None for row in read) else Collection("[]", tuple(row for row in read if row))


def _member(text: str, depth: int) -> Value | None:
    if not text or depth > _MAX_DEPTH:
        return None
    if (value := _value(text, depth)) is not None:
        return value
    return formula(text)


def formula(text: str) -> Formula | None:
    r"""A text that the sandbox may read, without the unit after it: "5\sqrt{2} cm"."""
    unit: Unit | None = None
    if match := _UNIT_BEHIND.search(text):
        unit = read_unit((match[1] or match[2]).strip())
        text = text[: match.start()].strip() if unit else text
    return Formula(text, unit) if is_formula(text) else None


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
