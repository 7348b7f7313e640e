# ruff: noqa: E501 - a pair to a line
"""Answers as people and models write them: each kind from a small grammar, with what it equals and what it does not.

The oracle of each kind is its own: Python's int() for bases, Fraction for ratios and repeating decimals, a table of SI
dimensions for units, membership of points for inequalities.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.answers import compare, compare_many
from actors.execution import Executor

WRAPPINGS: list[Callable[[str], str]] = [
    lambda t: t, lambda t: f"${t}$", lambda t: f"$${t}$$", lambda t: rf"\({t}\)", lambda t: rf"\[{t}\]", lambda t: rf"\boxed{{{t}}}",
    lambda t: rf"$\boxed{{{t}}}$", lambda t: f"**{t}**", lambda t: f"  {t}\n", lambda t: f"\u200b{t}",
]  # fmt: skip
ANSWERS = [
    "42", "-7", "1/2", "3.25", "10 000", "1 1/2", "0 0 1", "1:2:3", "12:30", "59 days, 17:53:00", "10110_2", "0x1d", "5 km", "25°C", "€5",
    "50%", "x = 5", "(1, 2]", "[3, 5, 8]", "{1, 2}", "1, 2", r"\pm 3", r"0.1\overline{6}", "x⁴", "a₁+1", "e", "i", "d", "B", "(B)", "yes", "J7",
    "right up up left", "B → A", "Wednesday", '["a", "b c"]', '{"a": [1, 2], "b": null}', "-152*y**5 - 2907*y**4", r"\frac{\sqrt{2}}{2}",
    "x<-1 or x>3", r"(-\infty,-1)\cup(3,\infty)", r"(3,\frac{\pi}{2})", "The sun is a star", "1 2\n3 4", "a b\nc d", "#..#\n.##.",
]  # fmt: skip


@pytest.fixture(scope="module")
def judged(pool):
    def many(pairs):
        async def main():
            return await compare_many(pairs, Executor(pool.run_batch.remote))

        return asyncio.run(main())

    return many


def both_ways(judged, rows):
    """`rows`: (kind, a, b, wanted)."""
    pairs = [row[:3] for row in rows]
    found = zip(judged(pairs), judged([(kind, b, a) for kind, a, b in pairs]), strict=True)
    wrong = [(row, outcome) for row, outcome in zip(rows, found, strict=True) if outcome != (row[3], row[3])]
    assert not wrong, "\n".join(map(str, wrong))


# ---------------------------------------------------------------- wrapping


@pytest.mark.parametrize("kind", ["math", "text", "choice"])
def test_an_answer_is_itself_in_every_wrapping(kind):
    for answer in ANSWERS:
        for wrapped in (wrap(answer) for wrap in WRAPPINGS):
            assert compare(kind, answer, wrapped) == compare(kind, wrapped, answer) == "equal", (answer, wrapped)


@given(
    st.sampled_from(["math", "text", "choice"]),
    st.text("ab12 ,.()<>/^_=-", min_size=1, max_size=12),
    st.sampled_from(WRAPPINGS),
)
def test_so_is_any_text(kind, text, wrap):
    if text.strip():
        assert compare(kind, text, wrap(text)) == "equal"


@settings(max_examples=300)
@given(
    st.sampled_from(["math", "text", "choice"]), st.sampled_from(ANSWERS), st.sampled_from(ANSWERS), st.sampled_from(WRAPPINGS), st.sampled_from(WRAPPINGS)
)  # fmt: skip
def test_no_outcome_depends_on_the_wrapping_or_on_the_order(kind, a, b, around_a, around_b):
    plain = compare(kind, a, b)
    assert compare(kind, around_a(a), around_b(b)) == plain == compare(kind, around_b(b), around_a(a))


# ---------------------------------------------------------------- numbers

BASES = st.integers(2, 16)


def in_base(n: int, base: int) -> str:
    digits = ""
    while n:
        n, digit = divmod(n, base)
        digits = "0123456789ABCDEF"[digit] + digits
    return digits or "0"


@given(st.integers(0, 10**6), st.integers(0, 10**6), BASES, BASES, st.randoms())
def test_a_numeral_is_worth_what_its_base_makes_of_it(m, n, b, c, rng):
    def written(number, base):
        digits = in_base(number, base)
        lowered = str(base).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
        return rng.choice(
            [
                f"{digits}_{{{base}}}",
                f"{digits}_{base}",
                digits + lowered,
                f"{digits} (base {base})",
                f"${digits}_{{{base}}}$",
            ]
        )

    wanted = "equal" if m == n else "different"
    assert compare("math", written(m, b), written(n, c)) == wanted
    assert compare("math", written(m, b), str(n)) in {wanted, "unknown"}
    assert compare("math", written(m, b), str(m)) == "equal"
    same_digits = int(in_base(m, b), 16), int(in_base(m, b), 16)  # the same digits, in any two bases that have them
    if b != c and all(int(d, 16) < c for d in in_base(m, b)):
        worth = int(in_base(m, b), b) == int(in_base(m, b), c)
        assert compare("math", f"{in_base(m, b)}_{b}", f"{in_base(m, b)}_{c}") == ("equal" if worth else "different"), (
            same_digits
        )


def test_what_is_no_numeral_is_not_read():
    for text in ("12_2", "9_8", "1_1", "12_40", "0xg1", "0b12", "x_2", "1.5_3"):
        assert compare("math", text, "1") == compare("math", text, "12") == "unknown", text


RATIO = st.lists(st.integers(1, 40), min_size=2, max_size=4)


@given(RATIO, RATIO, st.integers(1, 5), st.sampled_from([":", " : ", r"\colon "]))
def test_a_ratio_is_its_members_up_to_a_factor(a, b, factor, sign):
    wanted = (
        "equal"
        if len(a) == len(b) and [Fraction(x, a[0]) for x in a] == [Fraction(x, b[0]) for x in b]
        else "different"
    )
    found = compare("math", ":".join(map(str, a)), sign.join(map(str, b)))
    assert found == wanted or (found == "unknown" and len(a) < 4)  # 2:30 may be a time
    assert compare("math", ":".join(map(str, a)), ":".join(str(x * factor) for x in a)) in ("equal", "unknown")
    assert compare("math", ":".join(map(str, a)), str(a[0])) in {
        "equal" if len(a) == 2 and a[1] == 1 else "different",
        "unknown",
    }


NUMBERS = st.lists(st.sampled_from(["0", "1", "2", "12", "7", "0.5", "1/2"]), min_size=2, max_size=6)


@given(NUMBERS, NUMBERS, st.sampled_from([" ", ", ", "  ", r"\ "]))
def test_numbers_side_by_side_are_a_sequence(a, b, blank):
    if (len(a) == 2 and "/" in a[1]) or (len(b) == 2 and "/" in b[1]):
        return  # a mixed fraction
    wanted = "equal" if [Fraction(x) for x in a] == [Fraction(x) for x in b] else "different"
    assert compare("math", " ".join(a), blank.join(b)) == wanted
    assert compare("math", f"[{' '.join(a)}]", f"${blank.join(b)}$") == wanted
    product = Fraction(1)
    for x in a:
        product *= Fraction(x)
    assert compare("math", " ".join(a), str(product)) == "different"


@given(
    st.integers(1000, 10**9),
    st.sampled_from([",", r",\!", "{,}", r"\,", "\u202f", " ", r"\ ", "~"]),
    st.sampled_from(["", ".5"]),
)
def test_marks_of_thousands(n, mark, rest):
    written = f"{n:,}".replace(",", mark) + rest
    assert compare("math", written, f"{n}{rest}") == "equal"
    assert compare("math", written, f"{n + 1}{rest}") == "different"
    assert compare("math", rf"\${written}", f"{n}{rest}") == "equal"


@given(st.integers(0, 99), st.text("0123456789", max_size=3), st.text("0123456789", min_size=1, max_size=3))
def test_a_repeating_decimal_is_its_limit(whole, head, period):
    limit = Fraction(whole) + (Fraction(int(head or 0)) + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(
        head
    )
    for written in (rf"{whole}.{head}\overline{{{period}}}", f"{whole}.{head}" + "".join(d + "\u0305" for d in period)):
        assert compare("math", written, f"{limit.numerator}/{limit.denominator}") == "equal"
        assert compare("math", written, f"{limit.numerator + 1}/{limit.denominator}") == "different"
        if int(period) and len(f"{whole}{head}{period}") < 6:
            assert compare("math", written, f"{whole}.{head}{period}") == "different"


# ---------------------------------------------------------------- units

SI = {
    "N": "kg m s^-2", "J": "kg m^2 s^-2", "W": "kg m^2 s^-3", "Pa": "kg m^-1 s^-2", "V": "kg m^2 s^-3 A^-1", "C": "A s", "Hz": "s^-1",
    "F": "kg^-1 m^-2 s^4 A^2", "Ω": "kg m^2 s^-3 A^-2", "T": "kg s^-2 A^-1", "Wb": "kg m^2 s^-2 A^-1", "H": "kg m^2 s^-2 A^-2",
}  # fmt: skip


def test_derived_units_are_their_base_units_and_no_others():
    for a, base in SI.items():
        for b in SI:
            assert compare("math", f"3 {a}", f"3 {b}") == ("equal" if a == b else "different"), (a, b)
        assert compare("math", f"3 {a}", f"3 {base}") == "equal"
        assert compare("math", f"3 {a}", f"3000 m{a}") == compare("math", f"3000 {a}", f"3 k{a}") == "equal"
        assert compare("math", f"3 {a}", f"3 {base} m") == "different"


UNITS = [
    ("1 L", "1000 cm^3", "equal"), ("1 L", "1 dm³", "equal"), ("1 mL", "1 cm^3", "equal"), ("1 L", "1000 cm^2", "different"), ("1 kWh", "3.6 MJ", "equal"), ("1 kWh", "3.6 kJ", "different"),
    ("5 N/m^2", "5 Pa", "equal"), ("9.8 N/kg", r"9.8\ \text{m/s}^2", "equal"), ("4.2 J/(g K)", "4200 J/(kg·K)", "equal"), ("4.2 J/g K", "4.2 J/(g K)", "unknown"), ("3 m/s/s", "3 m/s^2", "equal"),
    ("25°C", r"25^\circ\text{C}", "equal"), ("25°C", r"25^{\circ}C", "equal"), ("25 ℃", "25 degrees Celsius", "equal"), ("25°C", "298.15 K", "equal"), ("25°C", "77°F", "equal"), ("25°C", "25 K", "unknown"), ("25°C", "26°C", "different"), ("25°C", "25", "equal"),
    ("25°C", "25 C", "different"), ("0°C", "-273.15 K", "different"),
    ("60 mph", "60 miles per hour", "equal"), ("60 mph", "60 km/h", "different"), ("60 mph", "96.56064 km/h", "equal"),
    ("€5", "5", "equal"), ("€5", "5 euros", "equal"), ("€5", "$5", "different"), ("£5", "€5", "different"), ("$5", "5 km", "different"), ("€5.50", "€5.5", "equal"), ("-$5", "-5", "equal"), ("$5", "$6", "different"),
    # a letter right after a number may be a factor
    ("3h", "3", "unknown"), ("3h", "3 h", "equal"), ("3h", "4h", "different"), ("5*m", "5", "different"), (r"5\cdot m", "5", "different"), ("5 m", "5", "equal"),
    (r"5\sqrt{2}\text{ cm}", r"5\sqrt{2}", "equal"), (r"5\sqrt{2}\text{ cm}", r"\sqrt{50}\text{ cm}", "equal"), (r"5\sqrt{2}\text{ cm}", r"5\sqrt{2}\text{ kg}", "different"), (r"5\sqrt{2} d", r"5\sqrt{2}", "different"),
]  # fmt: skip

# ---------------------------------------------------------------- formulas, relations, tuples, letters, labels

FORMULAS = [
    ("x⁴", "x^4", "equal"), ("x⁴", "x^5", "different"), ("x⁻¹", "1/x", "equal"), ("x¹²", "x^{12}", "equal"), ("10⁴", "10000", "equal"), ("2x²", "2x^2", "equal"), ("a₁+1", "a_1+1", "equal"), ("a₁+1", "a_{1}+1", "equal"), ("a₁+1", "a_2+1", "different"), ("a_{12}", "a_12", "equal"), ("a_1 2", "2a_1", "unknown"),
    (r"\overline{AB}", "AB", "unknown"), (r"\bar{x}", "x", "unknown"), (r"\vec{v}", "v", "unknown"), (r"\hat{x}", "x", "unknown"), ("x'", "x", "unknown"), (r"5\,\text{or so}", "5", "unknown"), ("1 to 3", "3 to 1", "unknown"), (r"\sqrt{2} 3", r"\sqrt{2}", "different"), ("2 3x", "6x", "unknown"),
    (r"\sqrt{2} : 2", r"\frac{\sqrt{2}}{2}", "unknown"), (r"x \mod 3", "x", "unknown"), (r"\frac{x}{2} h", r"\frac{x}{2}", "different"), (r"\sqrt{5}\%", r"\sqrt{5}", "unknown"), (r"12!\ldots", "12!", "unknown"),
    ("e", "2.718281828", "equal"), ("e", "2.71", "different"), ("e", r"\exp(1)", "equal"), ("e", "5", "different"), ("e", "f", "different"), ("e", "E", "different"), ("e!", "e", "different"), ("i", r"\sqrt{-1}", "equal"), ("i", "-i", "different"), ("i", "1", "different"), ("d", "D", "equal"), ("d", "5", "different"), ("A", "B", "different"),
    (r"\textbf{(D)}\ 12", "12", "equal"), (r"\textbf{(D)}\ 12", "13", "different"), (r"\textbf{(D)}\ 12", "D", "equal"), (r"\textbf{(D)}\ 12", "C", "different"), (r"\text{(D) }\sqrt{2}", r"\sqrt{2}", "equal"), (r"\text{(D) }\sqrt{2}", r"\sqrt{3}", "different"), ("(D) 12", "(C) 12", "unknown"), ("(D) 12", "(C) 13", "different"), ("(A) - 1", "-1", "different"),
    (r"(3,\frac{\pi}{2})", r"(3,\frac{2\pi}{3})", "different"), (r"(3,\frac{\pi}{2})", r"(3,\frac{2\pi}{4})", "equal"), (r"(3,\frac{\pi}{2})", r"(4,\frac{\pi}{2})", "different"), (r"(1,\sqrt2,3)", r"(1,\sqrt3,3)", "different"), (r"(1,\sqrt2,3)", r"(1,2^{1/2},3)", "equal"), (r"(1,\sqrt2,3)", r"(1,\sqrt2)", "different"),
    (r"(3, \sqrt{2})", r"\emptyset", "unknown"), ("[x+1, x]", "[x, x+1]", "different"), ("x+1, x", "x, x+1", "equal"), ("x+1, x", "x+1, y", "different"), (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}", "equal"), (r"1 \pm \sqrt{2}", r"1 \pm \sqrt{3}", "different"), (r"[1, 2, \sqrt{9}]", "[1, 2, 3]", "equal"),
    ("10110_2", "22", "equal"), ("10110_2", "10110", "unknown"), ("3:4", "3/4", "equal"), ("3:4", "0.75", "equal"), ("1:2:3", "1/2/3", "unknown"), ("4:2:1", "2", "different"), ("12:30", "12:30:00", "unknown"), ("12:30", "12:31", "different"), ("2:30 pm", "14:30", "equal"), ("2:30 pm", "2:30", "unknown"), ("2:30 pm", "2:30 am", "different"), ("1:30:00", "90 minutes", "equal"), ("1:30:00", "91 minutes", "different"), ("59 days, 17:53:00", "59 days 17:53:00", "equal"), ("59 days, 17:53:00", "58 days, 17:53:00", "different"), ("10:20", "20:40", "unknown"),
    ("3 4", "12", "different"), ("3 4", "3*4", "unknown"), ("1 -2", "-1", "equal"), ("1 -2 3", "1 -2 4", "different"), ("[[1 2] [3 4]]", "[[1, 2], [3, 4]]", "equal"), ("1 2\n3 4", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "equal"), ("1 2\n3 4", "1 2\n3 5", "different"), ("1 2\n3 4", "1 3\n2 4", "different"), ("10 000", "10, 0", "equal"), ("1 1/2", "3/2", "equal"), ("1 1/2", "1/2", "different"),
    ("-152*y**5 - 2907*y**4", "$-152*y**5 - 2907*y**4$", "equal"), ("-152*y**5 - 2907*y**4", "$-152y^5 - 2907y^4$", "equal"), ("x**2", "$x**3$", "different"),
]  # fmt: skip


@pytest.fixture(scope="module")
def relations():
    """(text of inequalities, text of intervals, whether they are the same numbers), by testing points."""
    rng, rows = Random(3), []
    for _ in range(14):
        low, high = sorted(rng.sample(range(-5, 6), 2))
        strict = rng.random() < 0.5
        joint = rng.choice([" or ", r" \text{ or } ", ", "])
        less, more = ("<", ">") if strict else (r"\le ", rng.choice([r"\ge ", ">="]))
        claim = f"x{less}{low}{joint}x{more}{high}"
        if rng.random() < 0.4:
            claim = f"{2 * low}{more}2x{joint}x-{high}{more}0" if high >= 0 else claim
        drift, opened = rng.choice([(0, strict), (0, strict), (1, strict), (0, not strict)])
        left, right = (")", "(") if opened else ("]", "[")
        sets = rf"(-\infty,{low}{left}\cup{right}{high + drift},\infty)"
        rows.append((claim, sets, (drift, opened) == (0, strict)))
    return rows


def test_inequalities_and_intervals(judged, relations):
    rows = [("math", a, b, "equal" if same else "different") for a, b, same in relations]
    rows += [
        ("math", a, b, outcome) for a, b, outcome in [
            ("x>1 and x<3", "(1,3)", "equal"), ("x>1, x<3", "(1,3)", "equal"), ("1<x<3", "x>1, x<3", "equal"), ("x<-1 or x>3", "x>3 or x<-1", "equal"), ("x<-1 or x>3", "x<-1 or x>4", "different"),
            ("x^2>4", "x<-2 or x>2", "equal"), ("x^2>4", "x>2", "different"), ("x<-1 or x>3", "y<-1 or y>3", "different"), ("x>1, x>3", "x>3", "unknown"), ("x<-1 or x>3", "-1<x<3", "different"), (r"x<-1 \lor x>3", "x<-1 or x>3", "equal"),
        ]
    ]  # fmt: skip
    both_ways(judged, rows)


def test_units_and_formulas(judged):
    both_ways(judged, [("math", *row) for row in UNITS + FORMULAS])


def test_the_cases_in_which_nothing_is_evaluated_need_no_sandbox():
    assert compare("math", "(1, 2)", "(1, 3)") == "different" and compare("math", r"\sqrt{2}", r"\sqrt{3}") == "unknown"


# ---------------------------------------------------------------- words

TEXTS = [
    ("Wednesday", "Monday", "different"), ("Friday", "friday.", "equal"), ("right up up left", "right up left up", "different"), ("right up up left", "right up up", "different"), ("right up up left", "Right, up, up, left", "equal"), ("J7", "J8", "different"), ("J7", "j7", "equal"), ("J7", "J 7", "unknown"),
    ("B → A", r"$B \to A$", "equal"), ("B → A", "A → B", "different"), ("B → A", "B -> A", "equal"), ("B → A", "A ← B", "different"),
    ('["a", "b"]', "['a', 'b']", "equal"), ('["a", "b"]', "[a, b]", "equal"), ('["a", "b"]', '["b", "a"]', "different"), ('["a, b"]', '["a", "b"]', "different"), ('["a"]', "[]", "different"), ('["a", "b"]', '[ "A","b" ]', "equal"),
    ('{"a": 1, "b": [2, null]}', '{"b":[2,null],"a":1}', "equal"), ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}', "different"), ('{"a": 1}', '{"a": 1.0}', "equal"), ('{"a": "1"}', '{"a": "2"}', "different"), ('[["a"], ["b"]]', '[["a", "b"]]', "different"), ('{"a": 1, "a": 2}', '{"a": 2}', "different"),
    ("a b\nc d", "a b\nc d ", "equal"), ("a b\nc d", "a b\nc e", "different"), ("a b\nc d", "a b c d", "unknown"), ("a b\nc d", r"$a b \\ c d$", "equal"), ("1 2\n3 4", "1 3\n2 4", "different"), ("1 2\n3 4", "1 2 3\n4", "unknown"), ("#..#\n.##.", "#..#\n.#.#", "different"),
    ('"hello"', "hello", "equal"), ("“hello”", "hello", "equal"), ("hello", "hallo", "different"), (r"\text{hello}", "hello", "equal"), ("new_york", r"new\_york", "equal"), ("the cat", "cat", "equal"), ("12/25", "25/12", "different"), ("1/2", "2/4", "different"), ("Paris", "Paris, France", "unknown"), ("Albert Einstein", "Einstein", "unknown"),
    ("The sun is a star", "A star is the sun", "unknown"), ("not red", "red", "unknown"), ("Move disk 1 to peg 2", "Move disk 1 to peg 3", "different"), ("in, of, to", "of, in, to", "different"), ("red", "red or blue", "unknown"), ("C", "C++", "different"), ("-5", "5", "different"), ("1,000", "1000", "equal"), ("3.14", "3,14", "different"), ("a.b", "a b", "different"), ("", "a", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize("a, b, outcome", TEXTS, ids=lambda v: str(v)[:30])
def test_texts_both_ways(a, b, outcome):
    assert compare("text", a, b) == compare("text", b, a) == outcome


WORDS = st.lists(st.sampled_from(["up", "down", "left", "right", "red", "Ann", "J7", "x1"]), min_size=1, max_size=5)


@given(WORDS, WORDS, st.sampled_from([" ", ", ", "  ", " \n"]), st.sampled_from([str, str.upper, str.title]))
def test_sequences_of_words_are_equal_only_if_the_words_are(a, b, blank, case):
    wanted = {"equal"} if [w.lower() for w in a] == [w.lower() for w in b] else {"different", "unknown"}
    assert compare("text", " ".join(a), case(blank.join(b))) in wanted
    if all(w.islower() for w in a) and wanted != {"equal"}:
        assert compare("text", " ".join(a), " ".join(b)) == "different"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc, :[]{}\"'x", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_json_is_equal_in_any_layout_and_only_then(a, b):
    for text in (json.dumps(a, indent=1), json.dumps(a, separators=(",", ":")), f"```{json.dumps(a)}```"):
        assert compare("text", json.dumps(a), text) == "equal"
    if compare("text", json.dumps(a), json.dumps(b)) == "equal":

        def folded(value):
            if isinstance(value, list):
                return [folded(v) for v in value]
            if isinstance(value, dict):
                return {k: folded(v) for k, v in value.items()}
            return " ".join(str("null" if value is None else value).casefold().split())

        assert folded(a) == folded(b)


def test_the_shared_cases(judged):
    """Small inputs that were judged wrongly once."""
    rows = map(json.loads, Path(__file__).with_name("answers_as_written.jsonl").read_text().splitlines())
    both_ways(judged, [(row["kind"], row["expected"], row["given"], row["want"]) for row in rows])
