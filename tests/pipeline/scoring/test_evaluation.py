"""Mean@k against a count by hand; what is right, what is wrong, and what nobody can tell."""

import asyncio
import math
import statistics

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.execution import Executor
from pipeline.records import Failure
from pipeline.scoring.evaluation import judge, score
from pipeline.scoring.problems import of_row
from sandbox.api import Result

outcome = st.sampled_from(["equal", "different", "unknown"])
problem = st.tuples(
    st.fixed_dictionaries({}, optional={"category": st.sampled_from("xyz"), "steps": st.integers(1, 3)}),
    st.lists(outcome, min_size=3, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(problem, min_size=1, max_size=20))
def test_the_score_is_what_counting_gives(problems):
    rows, outcomes = [r for r, _ in problems], [o for _, o in problems]
    told = [(r, o.count("equal") / (3 - o.count("unknown"))) for r, o in problems if o.count("unknown") < 3]
    assume(told)
    result = score(rows, outcomes)
    shares = [s for _, s in told]
    assert result["mean"] == pytest.approx(statistics.fmean(shares))
    spread = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
    low, high = result["interval"]
    assert low == pytest.approx(max(0, statistics.fmean(shares) - 1.96 * spread))
    assert high == pytest.approx(min(1, statistics.fmean(shares) + 1.96 * spread))
    assert result["unknown"] == sum(o.count("unknown") for o in outcomes)
    for field, key in (("category", "by_category"), ("steps", "by_steps")):
        groups = {}
        for row, share in told:
            if field in row:
                groups.setdefault(str(row[field]), []).append(share)
        assert result[key] == pytest.approx({name: statistics.fmean(v) for name, v in groups.items()})


def test_what_nobody_can_judge_is_neither_right_nor_wrong():
    result = score([{}, {}], [["equal", "unknown"], ["unknown", "unknown"]])
    assert (result["mean"], result["unknown"]) == (1.0, 3)
    with pytest.raises(Failure, match="none of the answers to 1 problems could be judged"):
        score([{}], [["unknown"]])


FAILS, READS_NOTHING = Result("infra", "no sandbox in this test"), Result("error", "cannot be parsed")


def judged(expected, completions, result=FAILS):
    """`result`: what the sandbox says of whatever it is asked."""

    async def sandbox(requests):
        return [result] * len(requests)

    problems = [of_row({"question": "q", "answer": answer}) for answer in expected]
    return asyncio.run(judge(problems, completions, Executor(sandbox)))


def test_a_completion_is_right_by_its_boxed_answer_alone():
    expected = ["12", "12", "12", "1/2", "even", "12", r"\sqrt{2}"]
    completions = [
        r"So it is \boxed{12}.", "The answer is 12.", r"\boxed{13}", r"\boxed{0.5}", r"\boxed{odd}",
        r"\boxed{12} no, \boxed{13}", r"\boxed{2^{1/2}}",
    ]  # fmt: skip
    assert judged(expected, completions) == [
        "equal", "different", "different", "equal", "different", "different", "unknown",
    ]  # fmt: skip
    assert judged([], []) == []


def test_an_answer_that_cannot_be_read_is_wrong_and_beats_no_wrong_one():
    """Else a solver would learn to say nothing definite."""
    expected = ["12", "even", r"\sqrt{2}", "12"]
    given = [r"\boxed{I cannot tell}", r"\boxed{even or odd}", r"\boxed{\sqrt[}", r"\boxed{13}"]
    assert judged(expected, given, READS_NOTHING) == ["different"] * 4
