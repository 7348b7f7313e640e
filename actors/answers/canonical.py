"""The one form in which an answer in free text is judged and exported, by kind.

Invariant: a form has one reading, and is its own form. None: the text is no answer, or one that could be taken in two
ways; it is wrong, whoever might have guessed what it means. What is exact is written exactly: 1.23456e8 is 123456000
and not what rounds to it. Formulas whose value is a rational number are that number; this is found out in the sandbox,
where one that cannot be worked out is none.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from pathlib import Path

from actors.answers.notation import MATH_WORDS
from actors.answers.reading import COUNTS, formula, read_value
from actors.answers.values import Collection, Either, Formula, Number, Ratio, Time, Value
from actors.answers.words import choice
from actors.answers.writing import WORDS_IN_MATHS, unwrap
from actors.execution import Executor
from pipeline.records import AnswerKind, Failure
from sandbox.api import Limits, Request

MAX_CHARS = 2_000
_COMPUTED = 15
"""Significant digits from which on a decimal may be what a computer made of a shorter one."""
_EXACT = '''

def exact(text):
    """{"number": its rational value} or {"formula": True}; None for what has no value."""
    tree = parse(text)
    value = build(tree) if tree is not None else None
    if isinstance(value, sp.Expr) and not value.is_Rational:
        value = sp.simplify(value)
    if value is None or (isinstance(value, sp.Basic) and value.has(sp.oo, sp.nan, sp.zoo, sp.Order)):
        return None
    return {"number": str(value)} if getattr(value, "is_Rational", False) else {"formula": True}
'''
_LIMITS = Limits(cpu_s=1.5)
"""What takes longer to work out is no answer that anybody wrote down to be read."""
_FORMULAS = (Path(__file__).parent / "formulas.py").read_text(encoding="utf-8") + _EXACT


async def canonical_answer(kind: AnswerKind, text: str, executor: Executor) -> str | None:
    """The form of an answer, or None for one that cannot be read. Raises Failure (infra_error) if the sandbox fails."""
    form = canonical(kind, text)
    if form is None or kind != "math" or read_value(form) is not None or _is_words(form):
        return form
    result = await executor.run(Request(_FORMULAS, entry="exact", args=(form,), limits=_LIMITS))
    if result.status == "infra":
        raise Failure(f"sandbox: {result.reason}", "infra_error")
    match result.value if result.ok else None:
        case {"number": str(number)}:
            return canonical("math", number)
        case {"formula": True}:
            return form
    return None


def canonical(kind: AnswerKind, text: str) -> str | None:
    """The form as far as it can be told without evaluating anything; a formula keeps its text."""
    if kind == "code":
        return text
    if any(unicodedata.category(c) in ("Cf", "Co", "Cn") for c in text):
        return None  # invisible, or a character that nothing is known of
    text = " ".join(unwrap(text).split())
    if not text or len(text) > MAX_CHARS:
        return None
    if kind == "text":
        return text
    if kind == "choice":
        form = choice(text)
        return (form.upper() if len(form) == 1 else form) or None
    value = read_value(text)
    if value is not None:
        return _written(value, text)
    if _is_words(text):
        return WORDS_IN_MATHS.sub(r"\1", text).lower().strip(" .")
    return text if formula(text) is not None else None


def _is_words(text: str) -> bool:
    """ "no solution", "even": letters and blanks, and none of them a name of maths."""
    plain = WORDS_IN_MATHS.sub(r"\1", text)
    words = re.findall(r"[a-z]+", plain.lower())
    if re.fullmatch(r"[\u4e00-\u9fff]+\.?", plain):
        return not set(plain) & COUNTS
    letters = re.fullmatch(r"[A-Za-z][A-Za-z' -]+\.?", plain) is not None
    return letters and len(words[0]) > 1 and not set(words) & MATH_WORDS


def _written(value: Value, text: str) -> str | None:
    match value:
        case Number():
            return _number(value, text)
        case Ratio():
            return ":".join(map(str, value.parts))
        case Time():
            return text
        case Either():
            return text if any(isinstance(reading, Time) for reading in value.readings) else None
        case Formula():
            return value.text if value.unit is None else None
        case Collection():
            return _collection(value)


def _number(number: Number, text: str) -> str | None:
    if number.label is not None or number.attached:
        return None  # "17 lakh", "3h": a word or a letter that may count
    if number.numeral is not None:
        return text
    plain = _decimal(number)
    if number.unit is None:
        return plain
    if text[0] in "$€£¥₹":
        return text[0] + plain
    text = re.sub(r"(?<=[0-9])(?=[\u4e00-\u9fff])", " ", text)
    quantity = re.fullmatch(r"-?[0-9.,/ ]*[0-9](?: ?(?P<percent>\\?%)| (?P<unit>[^0-9]+))", text)
    if quantity is None:
        return None
    return f"{plain}%" if quantity["percent"] else f"{plain} {quantity['unit'].strip()}"


def _decimal(number: Number) -> str:
    """Whole numbers in digits, what a few decimals say exactly in decimals, other fractions in lowest terms."""
    value = number.value
    if number.digits is not None and number.digits >= _COMPUTED:
        short = Fraction(f"{float(value):.12g}")
        if abs(short - value) <= abs(value) / 10**14:  # no more than a computer's rounding lies between them
            value = short
    if value.denominator == 1:
        return str(value.numerator)
    places = next((p for p in range(1, _COMPUTED) if 10**p % value.denominator == 0), None)
    if places is None:
        return str(value)
    digits = str(abs(value.numerator) * (10**places // value.denominator)).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _collection(collection: Collection) -> str | None:
    """Members of what has no order in a fixed one; numbers side by side could be a product."""
    members = [_written(item, getattr(item, "text", "")) for item in collection.items]
    if any(member is None for member in members) or (not collection.brackets.strip() and collection.brackets):
        return None
    known = [member for member in members if member is not None]
    if collection.brackets in ("[]", "()", "(]", "[)"):
        return f"{collection.brackets[0]}{', '.join(known)}{collection.brackets[1]}"
    values = {
        member: item.value if isinstance(item, Number) else Fraction(0)
        for member, item in zip(known, collection.items, strict=True)
    }
    return f"{{{', '.join(sorted(values, key=lambda m: (values[m], m)))}}}" if len(values) != 1 else known[0]
