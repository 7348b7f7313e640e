"""A second reading of LANGUAGE.md, for tests only: written from that page with other means than the generator's.

Each sentence is a regular expression and a statement on (value, unit); nothing of pipeline.domains.mini is imported.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd
from typing import Any

WORDS = {
    "kilometres": "km",
    "metres": "m",
    "grams": "g",
    "milligrams": "mg",
    "kilojoules": "kJ",
    "hours": "h",
    "minutes": "min",
}

N, L, Q = "number", "list", "quantity"


class Bad(Exception):
    pass


def whole(x: Fraction) -> int:
    if x.denominator != 1:
        raise Bad("not whole")
    return int(x)


def need(ok: bool) -> None:
    if not ok:
        raise Bad("condition")


def only(unit: str, actual: str) -> None:
    if unit != actual:
        raise Bad("unit")


PEOPLE = ["Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Ida", "Max", "Zoe", "Sam", "Lea", "Jon"]
OBJECTS = ["stones", "coins", "apples", "cards", "books", "shells", "stamps", "pens", "cups", "nuts", "beads", "keys"]


def in_bounds(x: Any) -> None:
    need(all(v < 1_000_000 for v in (x if isinstance(x, list) else [x])))


def one_word_each(question: str) -> None:
    """One person and one kind of thing; numbers in plain digits, four at most."""
    words = re.findall(r"[^\W\d_]+", question)
    need(len({w for w in words if w in PEOPLE}) <= 1 and len({w for w in words if w in OBJECTS}) <= 1)
    need(all(re.fullmatch("0|[1-9][0-9]{0,3}", n) for n in re.findall(r"\d+", question)))


def solve(question: str) -> tuple[str, set[str]]:
    """(answer, skills named); raises Bad for anything the language does not allow."""
    x: Any = None
    kind = category = unit = ""
    used: set[str] = set()
    one_word_each(question)
    sentences = [part + mark for part, mark in re.findall(r"([^.?]+)([.?]) ?", question)]
    need(" ".join(sentences) == question and 2 <= len(sentences) <= 10)
    for at, s in enumerate(sentences):
        if x is not None:
            in_bounds(x)
        nums = [int(n) for n in re.findall(r"\d+", s)]
        a = nums[0] if nums else 0

        def is_(pattern: str, text: str = s) -> bool:
            slots = {"#": r"\d+", "NAME": f"(?:{'|'.join(PEOPLE)})", "THINGS": f"(?:{'|'.join(OBJECTS)})"}
            for slot, expression in slots.items():
                pattern = pattern.replace(slot, expression)
            return re.fullmatch(pattern, text) is not None

        if at == 0:
            if is_(r"NAME has # THINGS\."):
                x, kind, category = a, N, "maths"
            elif is_(r"A list holds (#, )*# and #\."):
                x, kind, category = nums, L, "code"
                need(2 <= len(nums) <= 9)
            elif is_(r"A car moves at # km per hour for # hours\."):
                x, unit, used, kind, category = nums[0] * nums[1], "km", {"distance"}, Q, "science"
            elif is_(r"A block of # cubic cm weighs # g per cubic cm\."):
                x, unit, used, kind, category = nums[0] * nums[1], "g", {"mass"}, Q, "science"
            elif is_(r"A test runs for # days\."):
                x, unit, used, kind, category = a * 24, "h", {"duration"}, Q, "science"
            else:
                raise Bad(s)
            continue
        if s.endswith("?"):
            need(at == len(sentences) - 1)
            if is_(r"How many THINGS does NAME have now\?") or s == "What is the number now?":
                need(kind == N and category == "maths")
                return str(x), used
            if s == "Is the number now even or odd?":
                need(kind == N and category == "maths")
                return ("odd" if str(x)[-1] in "13579" else "even"), used | {"parity"}
            if is_(r"Is the number now a multiple of #\?"):
                need(kind == N and category == "maths" and a >= 2)
                return ("yes" if Fraction(x, a).denominator == 1 else "no"), used | {"multiple"}
            if s == "What is the final value?":
                need(kind == N and category == "code")
                return str(x), used
            if s == "What is the final list?":
                need(kind == L)
                return str(x), used
            asked = re.fullmatch(r"How many ([a-z]+) is that\?", s)
            if asked:
                need(kind == Q)
                only(WORDS.get(asked[1], "none"), unit)
                return str(x), used
            raise Bad(s)
        if kind == N and category == "maths":
            if is_(r"NAME (finds|buys) # more\."):
                x, skill = x + a, "add"
            elif is_(r"NAME (gives away|loses) #\."):
                need(x >= a)
                x, skill = x - a, "subtract"
            elif is_(r"Then NAME has # times as many\."):
                need(a > 0)
                x, skill = sum([x] * a), "multiply"
            elif is_(r"NAME splits them evenly into # bags and keeps one bag\.") or is_(
                r"NAME shares them equally among # boxes and keeps one box\."
            ):
                need(a > 0)
                x, skill = whole(Fraction(x, a)), "share"
            elif is_(r"NAME packs them in rows of # and keeps the rest\.") or is_(
                r"NAME fills boxes of # and keeps what is left\."
            ):
                need(a > 1)
                x, skill = x - a * (x // a), "remainder"
            elif is_(r"Take the greatest common divisor with #\.") or is_(
                r"Take the largest number that divides both it and #\."
            ):
                need(a > 0 and x > 0)
                x, skill = max(d for d in range(1, a + 1) if x % d == 0 and a % d == 0), "gcd"
            elif is_(r"Take the least common multiple with #\.") or is_(
                r"Take the smallest number that both it and # divide\."
            ):
                need(a > 0 and x > 0)
                x, skill = x * a // gcd(x, a), "lcm"
            elif s in ("Add up the digits.", "Take the sum of the digits."):
                total = 0
                while x:
                    x, digit = divmod(x, 10)
                    total += digit
                x, skill = total, "digit_sum"
            elif is_(r"Keep the larger of it and #\.") or is_(r"If it is below (#), take \1 instead\."):
                x, skill = (a if x < a else x), "larger"
            else:
                raise Bad(s)
        elif kind == L:
            if s in ("Keep only the even values.", "Drop every odd value."):
                x, skill = [v for v in x if not v & 1], "keep_even"
            elif is_(r"Keep only the values above #\."):
                x, skill = [v for v in x if not v <= a], "keep_above"
            elif is_(r"Add # to every value\.") or is_(r"Raise every value by #\."):
                x, skill = [v + a for v in x], "add_each"
            elif s in ("Add up all values.", "Take the sum of the list."):
                x, kind, skill = sum(x), N, "list_sum"
            elif s in ("Take the largest value.", "Take the maximum of the list."):
                need(bool(x))
                x, kind, skill = sorted(x)[-1], N, "list_max"
            elif s in ("Take the smallest value.", "Take the minimum of the list."):
                need(bool(x))
                x, kind, skill = sorted(x)[0], N, "list_min"
            elif s in ("Count the values.", "Take the length of the list."):
                x, kind, skill = len(x), N, "count"
            elif is_(r"Take value number #\."):
                need(0 < a <= len(x))
                x, kind, skill = x[a - 1], N, "position"
            else:
                raise Bad(s)
        elif kind == N and category == "code":
            if s in ("Double the result.", "Take twice the result."):
                x, skill = x + x, "double"
            elif is_(r"Take the result modulo #\.") or is_(r"Divide the result by # and keep the remainder\."):
                need(a > 1)
                x, skill = x - a * (x // a), "modulo"
            else:
                raise Bad(s)
        else:
            if s in ("Convert the distance to metres.", "Express the distance in metres."):
                only("km", unit)
                x, unit, skill = x * 1000, "m", "km_to_m"
            elif s in ("Convert the mass to milligrams.", "Express the mass in milligrams."):
                only("g", unit)
                x, unit, skill = x * 1000, "mg", "g_to_mg"
            elif s in ("Convert the time to minutes.", "Express the time in minutes."):
                only("h", unit)
                x, unit, skill = x * 60, "min", "h_to_min"
            elif is_(r"Then it moves # metres further\.") or is_(r"It goes on for # metres\."):
                only("m", unit)
                x, skill = x + a, "travel_more"
            elif is_(r"Another # g are added\.") or is_(r"It gains # g\."):
                only("g", unit)
                x, skill = x + a, "add_mass"
            elif is_(r"It needs # kJ per km\.") or is_(r"Each km costs # kJ\."):
                only("km", unit)
                x, unit, skill = x * a, "kJ", "fuel"
            elif is_(r"Take one of # equal parts\.") or is_(r"Divide it into # equal parts and take one\."):
                need(a > 0)
                x, skill = whole(Fraction(x, a)), "part"
            elif is_(r"This happens # times in total\."):
                need(a > 0)
                x, skill = x * a, "repeat"
            else:
                raise Bad(s)
        used.add(skill)
    raise Bad("no question")
