"""One form an answer: what has it, what has none, and that formulas with a value are that value."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.answers.canonical import canonical, canonical_answer
from actors.execution import Executor
from pipeline.records import Failure
from sandbox.api import Result


@pytest.mark.parametrize(
    "kind, form, written",
    [
        (
            "math",
            "1726",
            ["1726", "1726.0", "+1726", "1,726", "$1726$", r"\boxed{1726}", "3452/2", "x = 1726"],
        ),
        ("math", "123456000", ["1.23456e8", "123,456,000", "123456000"]),
        ("math", "0.5", ["0.50", "1/2", r"\frac{1}{2}", ".5", "2/4"]),
        ("math", "-0.5", ["-1/2", "-0.500"]),
        ("math", "1/3", ["1/3", "2/6", r"\frac{2}{6}"]),
        ("math", "0.3", ["0.3", "0.30000000000000004"]),
        ("math", "9999999999999.75", ["9999999999999.75"]),
        ("math", "1234567890123456.5", ["1234567890123456.50", "1234567890123456.5"]),
        ("math", "5 km", ["5 km", "5.0 km"]),
        ("math", "50%", ["50%", r"50\%"]),
        ("math", "[3, 5, 8]", ["[3,5,8]", "[3, 5, 8.0]"]),
        ("math", "{3, 5, 8}", ["{8, 5, 3}", "3, 5, 8", "{3, 5, 8, 8}"]),
        ("math", "no solution", ["no solution", "No solution.", r"\text{no solution}"]),
        ("choice", "B", ["B", "(b)", "Option B", "b."]),
        ("choice", "even", ["even", "Even."]),
        ("text", "a red fox", ["a red fox", "  a  red\nfox "]),
    ],
)
def test_what_is_the_same_has_one_form(kind, form, written):
    assert {canonical(kind, text) for text in written} == {form}


@pytest.mark.parametrize(
    "text",
    ["", "1726 is wrong", "1726 lakh", "17\u200b26", "1726\u2060", "12 apples", "3h", "3 5 8", "10 000", "(((("],
)  # fmt: skip
def test_what_has_two_readings_or_none_has_no_form(text):
    assert canonical("math", text) is None


@settings(max_examples=40, deadline=None)
@given(st.fractions(max_denominator=10**6), st.sampled_from(["{}", "${}$", r"\boxed{{{}}}", "x = {}"]))
def test_a_form_is_its_own_form_and_the_numbers_value(value, frame):
    form = canonical("math", frame.format(value))
    assert form is not None and canonical("math", form) == form
    assert canonical("math", str(value)) == form


def test_formulas_with_a_value_are_that_value_and_those_without_one_are_none(pool):
    async def forms(texts):
        run = Executor(pool.run_batch.remote)
        return await asyncio.gather(*(canonical_answer("math", text, run) for text in texts))

    texts = ["1726+0*x", "1726!/1725!", r"\frac{2}{4} + 1", r"2\sqrt{2}", "x^2+1", r"\frac{1}{0}", "1726+O(n)"]
    assert asyncio.run(forms(texts)) == ["1726", "1726", "1.5", r"2\sqrt{2}", "x^2+1", None, None]


def test_a_sandbox_that_fails_is_no_verdict_on_the_answer():
    async def run_batch(requests):
        return [Result("infra", "gone") for _ in requests]

    with pytest.raises(Failure, match="sandbox: gone") as raised:
        asyncio.run(canonical_answer("math", "x^2+1", Executor(run_batch)))
    assert raised.value.kind == "infra_error"
