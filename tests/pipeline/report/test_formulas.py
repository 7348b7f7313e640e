"""Formulas are typeset, and nothing that stands in one gets out of it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.formulas import typeset, typeset_answer
from tests.pipeline.report.test_report import Page

ALLOWED = {
    "math", "span", "wbr", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup",
    "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mphantom", "mpadded",
}  # fmt: skip
NAMES = {
    "class", "tabindex", "stretchy", "fence", "separator", "accent", "movablelimits", "displaystyle", "form",
    "mathvariant", "scriptlevel", "linethickness", "columnalign", "width", "lspace", "rspace", "minsize", "maxsize",
}  # fmt: skip


def page(html):
    return Page(f"<p>{html}</p>")


@pytest.mark.parametrize("marks", ["${}$", "$${}$$", r"\({}\)", r"\[{}\]"])
def test_a_formula_between_any_marks_is_mathml(marks):
    html = typeset("Let " + marks.format(r"\frac{1}{2} < x^2") + " hold.")
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in html
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in html and "&lt;</mo>" in html
    assert html.startswith("Let <") and html.endswith("> hold.") and "$" not in html and "frac{" not in html


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and then $7.", "From $5-$7 a piece", "a $ b $ c", r"\$5 and \$x", "$", "$$", "$ $", "$5",
        "US$5 or US$9 for <two>", "no marks: x^2", "$a\nb$", r"\(unclosed", "$" + "x" * 1001 + "$",
    ],
)  # fmt: skip
def test_what_is_no_formula_stays_as_it_is(text):
    import html

    assert typeset(text) == html.escape(text)


@pytest.mark.parametrize(
    "latex", [r"\frac{1", r"\unheard{x}", "x^{2^", "{", r"\left(x", "^", "x__2", "&", "a" * 999 + "}"]
)
def test_what_cannot_be_read_is_shown_as_written(latex):
    shown = page(typeset(f"so ${latex}$ it is")).text
    assert shown in (f"so ${latex}$ it is", f"so {latex} it is") or "math" in page(typeset(f"${latex}$")).tags


HOSTILE = [
    r"\text{</math><script>alert(1)</script>}", r"\text{&lt;script&gt;alert(1)&lt;/script&gt;}",
    r"\href{javascript:alert(1)}{x}", r"\style{position:fixed;top:0}{x}", r"\class{opening}{x}", r"\id{f0v1}{x}",
    "<img src=x onerror=alert(2)>", r"\mathrm{\"><svg/onload=alert(1)>}", r"\color{red;background:url(//x)}x",
    r"\hspace{9000em}x", r"\rule{9000em}{1em}", r"\genfrac{(}{)}{900em}{}{a}{b}", r"\mathop{<iframe src=//x>}",
    r"\begin{array}{c\" onmouseover=\"alert(1)}x\end{array}", r"\unicode{x3C}script>", r"\char60 script",
]  # fmt: skip


@pytest.mark.parametrize("latex", HOSTILE)
@pytest.mark.parametrize("marks", ["${}$", r"\[{}\]"])
def test_nothing_hostile_gets_out_of_a_formula(latex, marks):
    html = typeset(marks.format(latex))
    found = page(html)
    assert set(found.tags[1:]) <= ALLOWED
    assert {name for _, name, _ in found.attributes} <= NAMES
    assert {v for _, name, v in found.attributes if name == "class"} <= {"block", "wide", "boxed"}
    assert not re.search(r"\d{2}e[mx]\"", html)


@pytest.mark.parametrize(
    "latex", [r"\newcommand{\a}{\b\b}\newcommand{\b}{\c\c}\a", r"\def\a{\a\a}\a", "x^{" * 300 + "}" * 300]
)
def test_what_grows_without_end_ends(latex):
    assert len(typeset(f"${latex}$")) < 100_000


def test_of_very_many_formulas_the_first_are_typeset_and_none_is_lost():
    html = typeset("$x$ " * 500)
    assert html.count("<math>") == 200 and html.count("$x$") == 300


def test_an_answer_may_be_a_formula_without_marks():
    assert "<mfrac>" in typeset_answer(r"\frac{1}{2}") and "<msqrt>" in typeset_answer(r"$\sqrt{2}$")
    assert typeset_answer("a < b") == "a &lt; b" and typeset_answer("42") == "42"
    assert 'class="boxed"' in typeset_answer(r"\boxed{42}")


def test_a_long_formula_may_break_and_a_long_piece_scrolls():
    html = typeset("$" + "+".join(["x"] * 40) + "$")
    assert html.count("<math>") == 40 == html.count("<wbr />") + 1 and "wide" not in html
    assert html.count('<mo form="infix">+</mo>') == 39
    assert 'class="wide" tabindex="0"' in typeset(r"$\text{" + "a word " * 10 + "}$")


PARTS = [
    r"\frac", r"\text", r"\left(", r"\right)", r"\begin{matrix}", r"\end{matrix}", r"\href", r"\style", r"\mathbb", "{",
    "}", "^", "_", "&", r"\\", "x", "1", "<script>", "&lt;", '"', "on=", "'", " ",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=16).map("".join))
def test_whatever_is_written_the_page_holds_only_what_is_allowed(latex):
    found = page(typeset(f"a ${latex}$ b"))
    assert set(found.tags[1:]) <= ALLOWED and {name for _, name, _ in found.attributes} <= NAMES
