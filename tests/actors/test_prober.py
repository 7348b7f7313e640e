from __future__ import annotations

import asyncio

import pytest

from actors.passk import pass_at_k
from actors.prober import Prober
from pipeline.records import Failure, Problem
from sandbox.api import Result
from tests.actors.pools import Boxes, handle, solver_pool
from tests.mini import MINI, changed

PROBLEM = Problem.make("Mia has 34 stones. Mia finds 17 more. How many stones does Mia have now?", "51")
CONFIG = changed(MINI.prober, n=8, first=None, k=4, timeout_s=0.5)


class Sandbox:
    """Decides nothing: every formula stays unknown."""

    async def run_batch(self, requests):
        return [Result("timeout")] * len(requests)


def probe(solver, problem=PROBLEM, prober="small", seed=7, config=CONFIG):
    solvers = {"small": solver_pool(solver)}
    return asyncio.run(Prober(config, solvers, handle(Sandbox(), "run_batch")).probe(problem, prober, seed))


def test_a_probe_counts_right_answers_and_estimates_pass_at_k():
    found = probe(Boxes("51", "50", "51.0", None))
    assert (found.n, found.correct, found.unknown, found.k, found.prober) == (8, 4, 0, 4, "small")
    assert found.pass_at_k == pytest.approx(pass_at_k(8, 4, 4))
    assert found.low < found.pass_at_k < found.high


def test_the_solver_sees_the_statement_only_n_times_with_the_given_seed():
    boxes = Boxes("51")
    probe(boxes)
    assert boxes.asked == [(PROBLEM.question, 8, 7)]


def test_a_completion_without_a_box_is_wrong_and_one_that_cannot_be_judged_is_unknown():
    found = probe(Boxes("51", None, "51 sqrt(1)", "51"))
    assert (found.correct, found.unknown) == (4, 2)
    assert found.pass_at_k == pytest.approx(pass_at_k(6, 4, 4))


def test_too_few_judged_samples_are_a_failure_not_a_zero():
    with pytest.raises(Failure, match="pass@4 needs 4"):
        probe(Boxes("sqrt(51)", "sqrt(51)", "sqrt(51)", "51"))


def test_an_unknown_rung_is_named():
    with pytest.raises(Failure, match="'large' is not on the ladder; expected one of small"):
        probe(Boxes("51"), prober="large")


def test_a_solver_that_does_not_answer_is_an_infrastructure_failure():
    class Hung(Boxes):
        async def answers(self, *args):
            await asyncio.sleep(60)

    with pytest.raises(Failure, match=r"no answer within 0\.5 s") as e:
        probe(Hung())
    assert e.value.kind == "infra_error"


def test_many_problems_at_once_are_each_their_own():
    problems = [Problem.make(f"{PROBLEM.question} {i}", str(i)) for i in range(5)]

    async def main():
        prober = Prober(CONFIG, {"small": solver_pool(Boxes("3"))}, handle(Sandbox(), "run_batch"))
        probes = await asyncio.gather(*(prober.probe(p, "small", i) for i, p in enumerate(problems)))
        return probes, await prober.stats()

    probes, stats = asyncio.run(main())
    assert [p.problem_id for p in probes] == [p.id for p in problems]
    assert [p.correct for p in probes] == [0, 0, 0, 8, 0]
    assert stats == {"problems": 5, "samples": 40, "spared": 0, "correct": 8, "unknown": 0}


EARLY = changed(MINI.prober, n=16, first=8, k=4, easy=0.6)


def test_a_problem_that_the_first_samples_show_to_be_easy_costs_no_more_samples():
    boxes = Boxes("51")
    found = probe(boxes, config=EARLY)
    assert [n for _, n, _ in boxes.asked] == [8]
    assert (found.n, found.correct, found.spared, found.rate) == (8, 8, 8, 1.0)
    assert found.tokens == 8 * 2 and found.tokens_spared == 16  # "thinking" and the box
    assert found.pass_at_k == 1.0


@pytest.mark.parametrize("answers", [("50",), ("51", "50"), ("51",) * 7 + ("50",)], ids=["none", "half", "7 of 8"])
def test_any_other_problem_gets_all_samples_the_unsolved_above_all(answers):
    boxes = Boxes(*answers)
    found = probe(boxes, config=EARLY)
    (_, first, seed), (_, rest, other) = boxes.asked
    assert (first, rest, found.n, found.spared) == (8, 8, 16, 0)
    assert seed == 7 and other != seed  # the same seed would draw the same samples again
    assert found.correct == 2 * sum(a == "51" for a in answers) * 8 // len(answers)


def test_what_cannot_be_judged_shows_nothing_to_be_easy():
    found = probe(Boxes(*["51"] * 6, *["51 sqrt(1)"] * 2), config=EARLY)
    assert (found.n, found.correct, found.unknown) == (16, 12, 4)


def test_a_probe_ends_early_only_with_as_many_judged_samples_as_the_estimate_needs():
    """15 of 16 right and one that cannot be judged: 16 more, not a failure for want of a 16th."""
    wide = changed(MINI.prober, n=32, first=16, k=16, easy=0.6)
    found = probe(Boxes(*["51"] * 15, "51 sqrt(1)"), config=wide)
    assert (found.n, found.correct, found.unknown) == (32, 30, 2)


@pytest.mark.parametrize("enough, n", [(1, 8), (8, 8), (9, 16)])
def test_a_probe_ends_early_only_where_the_first_samples_are_more_than_a_guess_explains(enough, n):
    solvers = {"small": solver_pool(Boxes("51"))}
    prober = Prober(EARLY, solvers, handle(Sandbox(), "run_batch"))
    assert asyncio.run(prober.probe(PROBLEM, "small", 7, enough)).n == n


def test_a_whole_probe_may_take_as_long_as_the_calls_it_makes():
    assert (EARLY.at_first, EARLY.longest_s) == (8, 2 * EARLY.timeout_s)
    for first in (None, 16, 99):
        assert changed(EARLY, first=first).longest_s == EARLY.timeout_s


def test_the_first_right_answer_is_kept_as_a_worked_solution():
    assert probe(Boxes("50", "51.0", "51")).solution == "thinking\n\\boxed{51.0}"
    assert probe(Boxes("50", None)).solution is None

    class Later(Boxes):
        """Right only when it is asked again."""

        async def answers(self, question, n, sampling, seed, kind="math"):
            given = await super().answers(question, n, sampling, seed, kind)
            return given if len(self.asked) > 1 else ["no answer"] * n

    assert probe(Later("51"), config=EARLY).solution == "thinking\n\\boxed{51}"
