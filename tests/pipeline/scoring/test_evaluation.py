"""Mean@k against a count by hand; what is right, what is wrong, and what nobody can tell."""

import asyncio
import math
import statistics
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.execution import Executor
from pipeline.records import Failure
from pipeline.scoring.evaluation import judge, paired, score
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
    assert [s for s in result["items"] if s is not None] == pytest.approx(shares)
    assert [s is None for s in result["items"]] == [o.count("unknown") == 3 for _, o in problems]
    assert result["unknown"] == sum(o.count("unknown") for o in outcomes)
    for field, key in (("category", "by_category"), ("steps", "by_steps")):
        groups = {}
        for row, share in told:
            if field in row:
                groups.setdefault(str(row[field]), []).append(share)
        assert result[key] == pytest.approx({name: statistics.fmean(v) for name, v in groups.items()})


share = st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(share, share), max_size=40))
def test_the_paired_gain_is_the_t_interval_of_the_differences(pairs):
    from scipy.stats import t  # of the test environment; the pipeline does without

    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    told = [(a, b) for a, b in pairs if a is not None and b is not None]
    differences = [b - a for a, b in told]
    assert (found["items"], found["better"], found["worse"]) == (
        len(told), sum(b > a for a, b in told), sum(b < a for a, b in told)
    )  # fmt: skip
    if len(told) < 2:
        assert found["interval"] is None
        return
    middle = statistics.fmean(differences)
    half = t.ppf(0.975, len(told) - 1) * statistics.stdev(differences) / math.sqrt(len(told))
    assert found["gain"] == pytest.approx(middle, abs=1e-12)
    assert found["interval"] == pytest.approx([middle - half, middle + half], abs=1e-3)


@pytest.mark.parametrize("n, gain", [(30, 0.0), (240, 0.05)])
def test_the_paired_interval_holds_the_truth_and_is_narrower_than_two_apart(n, gain):
    """Problems of very different difficulty, four answers each: 95 of 100 intervals hold the gain that was put in."""
    rng, held, narrower, rounds = Random(n), 0, 0, 300
    for _ in range(rounds):
        hard = [rng.uniform(0, 1 - gain) for _ in range(n)]
        before, after = ([sum(rng.random() < p + more for _ in range(4)) / 4 for p in hard] for more in (0.0, gain))
        low, high = paired(before, after)["interval"]
        held += low <= gain <= high
        apart = 1.96 * math.hypot(statistics.stdev(before), statistics.stdev(after)) / math.sqrt(n)
        narrower += (high - low) / 2 < apart
    assert held / rounds > 0.91
    assert narrower / rounds > 0.99


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
