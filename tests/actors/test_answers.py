# ruff: noqa: E501 - a pair to a line
"""Answers compared: without evaluating anything, and with formulas in the real sandbox.

The pairs are ours. Where a peer's checker judges otherwise stands in test_answers_and_a_peer.py.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.answers import compare, compare_many
from actors.answers.notation import is_formula
from actors.answers.replies import extract_boxed
from actors.execution import Executor
from sandbox.api import Result

VALUES = [
    # numbers
    ("42", "42", "equal"), ("42", "42.0", "equal"), ("42", "+42", "equal"), ("42", " 42. ", "equal"), ("7", "007", "equal"),
    ("42", "43", "different"), ("42", "-42", "different"), ("-3", "−3", "equal"),
    ("1234", "1,234", "equal"), ("1234567", "1,234,567", "equal"), ("1000", "1{,}000", "equal"), ("12000", r"12\,000", "equal"), ("12000", "12 000", "equal"), ("1000", "1_000", "equal"), ("12", "1 2", "different"),
    ("1/2", "0.5", "equal"), ("1/2", r"\frac{1}{2}", "equal"), ("1/2", r"\dfrac12", "equal"), ("-1/2", r"-\frac{1}{2}", "equal"),
    ("11/2", "5.5", "equal"), ("1/2", "2/4", "equal"), ("1/2", "1/3", "different"), ("3/2", "1 1/2", "equal"),
    ("3/2", r"1\frac{1}{2}", "equal"), ("3.5", "3½", "equal"), ("1/0", "1", "unknown"), ("two", "2", "equal"), ("Zero", "0", "equal"), ("twenty one", "21", "unknown"),
    ("120000", "1.2e5", "equal"), ("120000", r"1.2 \times 10^{5}", "equal"), ("0.00012", "1.2*10^-4", "equal"),
    ("1/3", "0.333333", "equal"), ("1/3", "0.3333", "different"), ("2/3", "0.666667", "equal"), ("2/3", "0.66666", "different"),
    ("3.14159265", "3.14159", "equal"), ("3.14", "3.14159", "different"), ("2/3", "0.666666", "equal"), ("100000", "99999.9", "different"), ("10", "9.99999", "different"),
    ("0.3", "0.30000000000000004", "equal"), ("3", "2.9999999999999996", "equal"), ("3", "3.0000000001", "different"), ("0.000000001", "0.000000002", "different"),
    ("5", "$5$", "equal"), ("5", r"\(5\)", "equal"), ("5", r"$\boxed{5}$", "equal"), ("5", "**5**", "equal"), ("٣", "3", "unknown"),
    # money, percent, units, labels, names
    ("5", "$5", "equal"), ("5", r"\$5.00", "equal"), ("5", "5 dollars", "equal"),
    ("50%", "0.5", "equal"), ("50%", "50", "equal"), ("50%", r"50\%", "equal"), ("50%", "0.05", "different"), ("50%", "5%", "different"),
    ("5 km", "5000 m", "equal"), ("5 km", "5", "equal"), ("5 km", "5 m", "different"), ("5 km", "5 kg", "different"),
    ("72 km/h", "20 m/s", "equal"), ("100 cm^2", "0.01 m^2", "equal"), ("9.8 m/s^2", r"9.8\ \text{m/s}^2", "equal"),
    ("90 min", "1.5 hours", "equal"), ("2 kJ", "2000 J", "equal"), (r"5\text{ cm}", "5 cm", "equal"), (r"90^\circ", "90 degrees", "equal"),
    ("12 apples", "12", "equal"), ("12 apples", "12 apple", "equal"), ("12 apples", "12 pears", "unknown"), ("12 apples", "13 pears", "different"),
    ("5 million", "5", "different"), ("5 million", "5000000", "equal"), ("1.5 thousand km", "1500 km", "equal"), ("2 thirds", "2", "unknown"), ("5 squared", "5", "unknown"),
    ("5", "5 approximately", "unknown"), ("5", "5 or so", "unknown"), ("5 nm", "5 cm", "different"), ("5 furlongs", "5 cm", "unknown"), ("5 apples", "5 kg", "unknown"), ("5 apples", "5%", "unknown"),
    ("5 cm2", "5 cm^2", "equal"), ("1/2 cup", "0.5 cups", "equal"),
    ("x = 5", "5", "equal"), ("x = 5", "x=5", "equal"), ("x = 5", "y = 5", "different"), ("A = {1, 2}", "B = {1, 2}", "different"), ("P = (1, 2)", "(1, 2)", "equal"), ("(x, y) = (1, 2)", "(1,2)", "equal"), ("(x, y) = (1, 2)", "(y,x) = (1,2)", "different"), ("x = 5", "x = 6", "different"),
    # lists, tuples, sets, intervals, matrices
    ("[3, 5, 8]", "[3,5,8]", "equal"), ("[3, 5, 8]", "(3, 5, 8)", "equal"), ("[3, 5, 8]", "3, 5, 8", "equal"),
    ("[3, 5, 8]", "[3, 8, 5]", "different"), ("[3, 5, 8]", "8, 3, 5", "different"), ("[3, 5]", "[3, 5, 5]", "different"),
    ("[]", "[ ]", "equal"), ("[]", "[0]", "different"), ("[3]", "3", "different"), ("{3}", "3", "equal"), ("{3}", "4", "different"),
    ("{1, 2}", "{2, 1}", "equal"), ("{1, 2}", r"\{2,1\}", "equal"), ("{1, 2}", "2 and 1", "equal"), ("{1, 2}", "1, 2, 2", "equal"),
    ("{1, 2}", "{1, 3}", "different"), ("{1, 2}", "(1, 2)", "equal"), ("{1, 2}", "(2, 1)", "unknown"), ("{1/2, 3}", "{0.5, 3}", "equal"),
    (r"\pm 3", "{-3, 3}", "equal"), (r"\pm 3", "x = 3 or x = -3", "equal"), (r"\pm 3", "3", "different"),
    ("(1, 2)", "(1, 2)", "equal"), ("(1, 2)", "[1, 2]", "unknown"), ("(1, 2]", "(1, 2)", "different"), ("(1, 2]", "(1,2.0]", "equal"),
    ("[1, 2]", "[1, 3]", "different"), ("1, 234", "1234", "different"), ("(1, 234)", "(1,234)", "unknown"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]", "equal"), (r"\begin{bmatrix}1&2\end{bmatrix}", "[[2,1]]", "different"),
    # words and what is no answer
    ("even", "Even.", "equal"), ("even", r"\text{even}", "equal"), ("even", "odd", "different"), ("yes", "no", "different"), ("even", "12", "different"),
    ("no solution", "No solution", "equal"), ("no solution", "none", "unknown"), ("no solution", "5", "different"), ("none", "0", "unknown"), ("infinitely many", "5", "unknown"), (r"\text{(A)}", "A", "equal"), ("5\u200b", "5", "equal"),
    ("5", "", "unknown"), ("", "", "unknown"), ("5", "9" * 3000, "unknown"), ("__import__('os')", "5", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize("a, b, outcome", VALUES, ids=lambda v: str(v)[:30])
def test_values_both_ways(a, b, outcome):
    assert compare("math", a, b) == outcome
    assert compare("math", b, a) == outcome


@pytest.mark.parametrize(
    "a, b, outcome",
    [("B", "(b)", "equal"), ("B", "Option B.", "equal"), ("B", "C", "different"), ("yes", "Yes!", "equal"), ("yes", "true", "equal"), ("no", "True", "different"),
     ("B", "B) Paris", "equal"), ("B", "C. London", "different"), ("B", "12", "unknown"), ("even", "12", "different"), ("even", "The number is even", "unknown"),
     ("A", "", "unknown"), ("even", "Even", "equal")],
)  # fmt: skip
def test_choices(a, b, outcome):
    assert compare("choice", a, b) == outcome


@pytest.mark.parametrize(
    "a, b, outcome",
    [
        ("The cat", "cat.", "equal"),
        ("Paris", "London", "different"),
        ("Paris, France", "Paris", "unknown"),
        ("x", "", "unknown"),
        ("C", "C++", "different"),
        ("-5 degrees", "5 degrees", "different"),
        ("5 > 3", "5 < 3", "different"),
        ("1,000", "1000", "equal"),
        ("well-known", "Well known", "equal"),
    ],
)
def test_prose(a, b, outcome):
    assert compare("text", a, b) == outcome


def test_programs_are_not_compared_as_text():
    assert compare("code", "print(1)", "print(2)") == "unknown"


@given(
    st.fractions(max_denominator=10**6),
    st.sampled_from(["{n}/{d}", r"\frac{{{n}}}{{{d}}}", "x = {n}/{d}", "{n}/{d} km", "({n})/{d}"]),
)
def test_a_fraction_equals_itself_in_any_writing_and_no_neighbour(f, form):
    written = form.format(n=abs(f.numerator), d=f.denominator)
    if "km" not in form and "(" not in form and f < 0:
        written = written.replace("x = ", "x = -") if "=" in form else f"-{written}"
    else:
        f = abs(f)
    if "(" in form and "frac" not in form:
        return  # a formula, not a value
    assert compare("math", str(f), written) == "equal"
    assert compare("math", str(f + Fraction(1, 7)), written) == "different"


def writings(value: Fraction) -> list[str]:
    """Ways to write a number of at most four decimals, all of them exact."""
    n, sign = abs(value), "-" if value < 0 else ""
    decimal = f"{float(n):.4f}"
    found = [f"{sign}{decimal}", rf"${sign}{decimal}$", f"x = {sign}{decimal}", f"{sign}{n.numerator}/{n.denominator}"]
    found += [rf"{sign}\frac{{{n.numerator}}}{{{n.denominator}}}", f"{sign}{float(n):,.4f} km", f"{sign}{decimal}e0"]
    found += [f"{sign}{float(n) / 1000:.7f} thousand", f"{sign}{float(n) * 1000:.1f} m", rf"\text{{{sign}{decimal}}}"]
    whole, part = divmod(n, 1)
    if whole and part:
        found += [f"{sign}{whole} {part.numerator}/{part.denominator}"]
    return found


FOUR_PLACES = st.integers(-(10**7), 10**7).map(lambda n: Fraction(n, 10**4))


@given(FOUR_PLACES, st.one_of(st.just(Fraction(0)), FOUR_PLACES), st.randoms())
def test_two_exact_writings_are_equal_if_and_only_if_the_numbers_are(value, distance, rng):
    other = value + distance
    a, b = rng.choice(writings(value)), rng.choice(writings(other))
    in_metres = [text.endswith(" m") for text in (a, b)]
    if in_metres[0] != in_metres[1] and not (a.endswith("m") and b.endswith("m")):
        return  # metres against a bare number: the question would say
    assert compare("math", a, b) == ("equal" if distance == 0 else "different"), (a, b)


@given(st.lists(st.integers(-999, 999), max_size=9), st.randoms())
def test_lists_are_ordered_and_sets_are_not(values, rng):
    shuffled = values[:]
    rng.shuffle(shuffled)
    expected = "equal" if shuffled == values else "different"
    assert compare("math", str(values), str(shuffled)) == expected
    braces = ["{" + ", ".join(map(str, v)) + "}" for v in (values, shuffled)]
    assert compare("math", *braces) == "equal"


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_judged_without_harm_and_symmetrically(a, b):
    for kind in ("math", "choice", "text", "code"):
        assert compare(kind, a, b) == compare(kind, b, a)


@pytest.mark.parametrize(
    "text, found",
    [
        (r"so \boxed{51}", "51"), (r"\boxed{1} then \boxed{2}", "2"), (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"), (r"\boxed{3} and \boxed{4", "3"), ("51", None), (r"\boxed{", None), (r"\fbox{x} \boxed {7}", "7"),
        (r"\boxed{9}" + " " * 30_000, None),
    ],
)  # fmt: skip
def test_the_last_balanced_box_holds_the_answer(text, found):
    assert extract_boxed(text) == found


# ---------------------------------------------------------------- formulas, in the sandbox

FORMULAS = [
    ("sqrt(2)/2", "1/sqrt(2)", "equal"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", "equal"), (r"\sqrt{2}", "sqrt(2)", "equal"),
    ("(x+1)^2", "x^2 + 2x + 1", "equal"), ("2x + 1", r"1+2\cdot x", "equal"), ("x + 1", "x + 2", "different"), ("x + 1", "y + 1", "different"),
    ("pi/2", r"\frac{\pi}{2}", "equal"), ("pi/2", "1.570796", "equal"), ("pi/2", "1.57", "different"),
    (r"\sin^2 x + \cos^2 x", "1", "equal"), ("e^(i*pi)", "-1", "equal"), ("3 + 4i", "4i + 3", "equal"), ("2^10", "1024", "equal"), ("10!", "3628800", "equal"),
    ("x^2 = 4", "4 = x^2", "equal"), ("y = 2x + 3", "2x - y + 3 = 0", "equal"), ("x = sqrt(2)", "sqrt(2)", "equal"),
    (r"x \geq 3", r"3 \leq x", "equal"), ("x > 3", r"x \geq 3", "different"),
    (r"(-\infty, 3]", "(-oo, 3]", "equal"), (r"[0, \sqrt{2})", r"[0, 2^{1/2})", "equal"), (r"[0, \sqrt{2})", r"[0, \sqrt{2}]", "different"),
    (r"\{\sqrt{2}, 1\}", r"\{1, \sqrt{2}\}", "equal"), (r"\{\sqrt{2}, 1\}", r"\{1, \sqrt{3}\}", "different"),
    (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)", "equal"), ("1<x<2", "(1, 2)", "equal"),
    (r"1 \pm \sqrt{2}", r"\{1+\sqrt{2}, 1-\sqrt{2}\}", "equal"), (r"\begin{pmatrix}\sqrt{4}&1\\0&1\end{pmatrix}", "[[2,1],[0,1]]", "equal"),
    (r"\begin{pmatrix}\sqrt{4}&1\end{pmatrix}", r"\begin{bmatrix}2&1\end{bmatrix}", "equal"),
    (r"\begin{pmatrix}\sqrt{2}&1\end{pmatrix}", r"\begin{pmatrix}2&1\end{pmatrix}", "different"), ("about sqrt(5)", "sqrt(5)", "unknown"),
    # what two readers read in two ways: letters of two kinds of case, i, products of letters, degrees, words of maths
    (r"\frac{1+i}{2}", "(1+i)/2", "equal"), (r"e^{i\pi}", "-1", "equal"), (r"\sum_{i=1}^{3} i", "6", "equal"), (r"\frac{N}{2}", "N/2", "equal"), ("E/2", "e/2", "different"), ("n + N", "2n", "unknown"),
    ("(a+b)^2", "a^2+2ab+b^2", "equal"), ("ab", "ba", "equal"), (r"\cos 60^\circ", "1/2", "equal"), ("5 mod 3", "15", "unknown"), ("2j", "2i", "unknown"), ("0x10", "16", "equal"), ("1.2.3", "0.36", "unknown"),
    ("f'(x)", "f(x)", "unknown"), ("x²", "x^2", "equal"), ("√4", "2", "equal"), ("π", "pi", "equal"), (r"[0, sqrt(2))", r"[0, \sqrt{2})", "equal"), (r"\varnothing", r"\emptyset", "equal"),
    (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "-2", "equal"), (r"\text{none}", r"\text{no solution}", "unknown"),
    # infinite, tiny, huge, decimal
    ("2.5*sqrt(2)", "oo", "different"), ("infinity", r"\infty", "equal"), ("inf", "3", "different"), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", "different"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}", "different"),
    (r"\sqrt{2}", "1.41421", "equal"), (r"\sqrt{2}", "1.41422", "different"), (r"\frac{3}{5}x", "0.6x", "equal"), ("0.333333x", r"\frac{x}{3}", "unknown"), ("10**10**10", "3", "unknown"),
    # claims and sets: different only by an example
    ("2x > 6", "x > 3", "equal"), ("2x > 6", "x > 4", "different"), ("x < 4", "y < 4", "different"), (r"x \neq 2", r"x \neq 3", "different"), ("x^2 = 9", "x = 3", "different"), ("2 = 3", "3", "unknown"),
    ("(x-1)^2+y^2=4", "x^2-2x+y^2=3", "equal"), ("x^2/4+y^2/3=1", "x^2/16+y^2/12=1", "different"), (r"m \geq \sqrt{2}", r"m \in [\sqrt{2}, +\infty)", "equal"), (r"1 < x < 2", r"1 < x < 3", "different"),
    ("x=1,y=2", "y=2,x=1", "equal"), ("x=1,y=2", "x=2,y=2", "different"), ("x=1,y=2", r"\{\}", "different"), ("1 = 1", "x = 5", "unknown"), ("f(x) = 2x", "f(x) = 3x", "different"), ("f(x) = 2x", "2x", "equal"), ("1 < 2", "x > 3", "different"),
    (r"\mathbb{R}\setminus\{2\}", r"(-\infty,2)\cup(2,\infty)", "equal"), (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1)\cup(3,\infty)", "different"), (r"(0,\sqrt{2})", r"[0,\sqrt{2}]", "unknown"),
    # two values, read in two ways: a parser must not decide
    ("(2, 3)", "[2, 3]", "unknown"), ("{1, 2}", "(2, 1)", "unknown"), ("12 apples", "12 pears", "unknown"),
    ("ln(x^2)", "2 ln(x)", "unknown"), (r"\foo{", "5", "unknown"), ("9**9**9**9**9", "5", "unknown"),
    # hostile: it runs code where it is parsed, and gains nothing
    ("__import__('builtins').exit()", "5", "unknown"), ("[c for c in ().__class__.__base__.__subclasses__()]", "5", "unknown"),
    ("exec('while 1: pass')", "5", "unknown"),
]  # fmt: skip


def many(pool, pairs):
    async def main():
        return await compare_many([("math", a, b) for a, b in pairs], Executor(pool.run_batch.remote))

    return asyncio.run(main())


def test_formulas_both_ways(pool):
    both = many(pool, [(a, b) for a, b, _ in FORMULAS] + [(b, a) for a, b, _ in FORMULAS])
    outcomes, backwards = both[: len(FORMULAS)], both[len(FORMULAS) :]
    wrong = [
        (row, there, back)
        for row, there, back in zip(FORMULAS, outcomes, backwards, strict=True)
        if (there, back) != (row[2], row[2])
    ]
    assert not wrong, wrong


def test_a_sandbox_that_fails_decides_nothing():
    async def run_batch(requests):
        return [Result("timeout")] * len(requests)

    async def main():
        return await compare_many([("math", "sqrt(2)", "2^(1/2)"), ("math", "5", "5.0")], Executor(run_batch))

    assert asyncio.run(main()) == ["unknown", "equal"]


def test_a_forged_verdict_is_not_believed():
    """A run may send back what it likes; only the two words count, and only from the run that decides."""

    async def run_batch(requests):
        return [Result("ok", value="equal, surely" if r.entry == "decide" else ["Integer", "1"]) for r in requests]

    async def main():
        return await compare_many([("math", "sqrt(2)", "sqrt(3)")], Executor(run_batch))

    assert asyncio.run(main()) == ["unknown"]


def test_no_run_that_parses_an_answer_sees_the_other_one():
    seen = []

    async def run_batch(requests):
        seen.extend(requests)
        return [Result("ok", value=["Integer", "1"]) for _ in requests]

    async def main():
        await compare_many([("math", "sqrt(2222)", "sqrt(3333)")], Executor(run_batch))

    asyncio.run(main())
    parsing = [r for r in seen if r.entry == "parse"]
    assert len(parsing) == 2 and all(("2222" in r.args[0]) != ("3333" in r.args[0]) for r in parsing)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("(1, 2]", True), ("]1, 2[", True), (r"\left[ 1, 2 \right)", True), (r"\left\{ x = 1 \right.", True),
        (r"\{1, 2\}", True), ("[20", False), ("12]", False), ("2(x + 1", False), ("about 3", False),
    ],
)  # fmt: skip
def test_a_formula_has_as_many_brackets_opened_as_closed(text, formula):
    assert is_formula(text) is formula
