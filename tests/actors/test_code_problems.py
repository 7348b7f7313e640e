"""Problems whose answer is a program, end to end: submitted with tests, judged by a committee of verifiers that write
programs of their own (real endpoint, real sandbox), probed by the same tests. Called functions and scripts alike."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from actors.chat import parse_turn
from actors.committee import Committee
from actors.prober import Prober
from pipeline import config
from pipeline.records import Problem
from tests.actors.endpoint import drips, endpoint, says
from tests.actors.pools import Boxes, solver_pool
from tests.mini import MINI, changed


def fenced(program):
    return f"Here it is:\n```python\n{program}\n```"


def replied(program, vote=1, flags=()):
    return json.dumps({"answer": program, "vote": vote, "rationale": "r", "flags": list(flags)})


CALLED = "Write a function second(values) that returns the second largest distinct value of a list, or None."
GOOD = "def second(values):\n    found = sorted(set(values))\n    return found[-2] if len(found) > 1 else None"
SLOW = (
    "def second(values):\n"
    "    below = [v for v in values if any(w > v for w in values)]\n"
    "    return max(below, default=None)"
)
NOT_DISTINCT = "def second(values):\n    return sorted(values)[-2] if len(values) > 1 else None"
BROKEN = "def second(values):\n    return sorted(set(values))[-2]"
CALLS = [
    json.dumps({"entry": "second", "args": [values], "expected": expected})
    for values, expected in (([3, 1, 2], 2), ([5, 5, 4], 4), ([7, 7], None), ([], None), ([-1, -2], -2))
]

PRINTED = "Read integers, one to a line, until the input ends. Print their sum, then their largest value."
SCRIPT = "import sys\nv = [int(line) for line in sys.stdin]\nprint(sum(v))\nprint(max(v))"
ALIKE = "total, top = 0, None\nimport sys\nfor line in sys.stdin:\n    x = int(line)\n    total += x\n    top = x if top is None or x > top else top\nprint(total)\nprint(top)"  # fmt: skip  # noqa: E501
LAZY = "import sys\nv = [int(line) for line in sys.stdin]\nprint(sum(v))\nprint(v[0])"
STDIO = [
    json.dumps({"stdin": "1\n2\n3\n", "stdout": "6\n3\n"}),
    json.dumps({"stdin": "-4\n-9\n", "stdout": "-13\n-4\n"}),
]


def called(answer=GOOD, checks=CALLS):
    return Problem.make(CALLED, answer, "code", checks)


def judge(pool, problem, programs, literal, replies):
    """A committee of three: two that write programs in different styles, one that answers in JSON."""

    async def main():
        async with AsyncExitStack() as stack:
            urls = [(await stack.enter_async_context(endpoint(b))).url for b in (programs, literal, replies)]
            section = changed(
                MINI.committee,
                verifiers=(
                    config.ProgramVerifierConfig(base_url=urls[0], model="a", timeout_s=20),
                    config.ProgramVerifierConfig(base_url=urls[1], model="b", timeout_s=20, style="sympy"),
                    config.ModelVerifierConfig(base_url=urls[2], model="c", timeout_s=20),
                ),
            )
            return await Committee(section, pool).judge(problem, None, ())

    return asyncio.run(main())


@pytest.mark.parametrize(
    "problem, first, second",
    [(called(), GOOD, SLOW), (Problem.make(PRINTED, SCRIPT, "code", STDIO), SCRIPT, ALIKE)],
    ids=["called", "script"],
)
def test_a_sound_problem_is_accepted_by_three_programs_of_their_own(pool, problem, first, second):
    verdict = judge(pool, problem, says(fenced(first)), says(fenced(second)), says(replied(second)))
    assert verdict.accepted and [v.valid for v in verdict.votes] == [True] * 3


def test_a_test_that_expects_the_wrong_result_is_found_by_every_program_but_the_authors(pool):
    wrong = json.dumps({"entry": "second", "args": [[9, 9, 8]], "expected": 9})
    problem = called(NOT_DISTINCT, [CALLS[0], CALLS[3], wrong])
    verdict = judge(pool, problem, says(fenced(GOOD)), says(fenced(SLOW)), says(replied(GOOD)))
    assert verdict.decision == "rejected" and [v.valid for v in verdict.votes] == [False] * 3


@pytest.mark.parametrize(
    "answer, checks, flag",
    [
        (BROKEN, CALLS, "unsolvable"),
        ("no program", CALLS, "unsolvable"),
        (GOOD, [], "trivial"),
        (GOOD, CALLS[:1] * 3, "trivial"),
        (GOOD, CALLS[2:4], "trivial"),
        (GOOD, [*CALLS, "f(1) == 1"], "underspecified"),
        (GOOD, CALLS * 501, "underspecified"),
    ],
    ids=["fails its tests", "prose", "no tests", "one test", "a constant passes", "garbage", "too many"],
)
def test_a_submission_that_its_own_tests_refute_is_rejected_whatever_models_say(pool, answer, checks, flag):
    lenient = "def second(values):\n    return None"
    verdict = judge(pool, called(answer, checks), says(fenced(lenient)), says(fenced(GOOD)), says(replied(GOOD)))
    assert verdict.decision == "rejected" and verdict.flags == (flag,)


def test_programs_that_break_off_or_disagree_with_each_other_are_no_vote(pool):
    others = [f"def second(values):\n    return {n}" for n in (1, 2, 3)]
    verdict = judge(pool, called(), says(fenced(BROKEN)), says(*map(fenced, others)), says(replied("I cannot.")))
    assert verdict.decision == "rejected" and [v.valid for v in verdict.votes] == [None] * 3  # V = 0, not left out


def test_a_hung_endpoint_costs_its_vote_and_not_the_problem(pool):
    async def main():
        async with endpoint(says(fenced(GOOD))) as good, endpoint(drips) as bad:
            sections = [
                config.ProgramVerifierConfig(base_url=u, model="m", timeout_s=t)
                for u, t in ((good.url, 20), (bad.url, 1))
            ]
            committee = changed(
                MINI.committee, verifiers=(sections[0], sections[0], sections[1]), allow_same_model=True
            )
            return await Committee(committee, pool).judge(called(), None, ())

    verdict = asyncio.run(main())
    assert verdict.accepted and verdict.votes[2].outcome.kind == "infra_error"


def test_the_committee_of_the_controlled_language_takes_no_programs(pool):
    verdict = asyncio.run(Committee(MINI.committee, pool, solver_pool(Boxes("51"))).judge(called(), None, ()))
    assert verdict.decision == "rejected" and verdict.flags == ("ambiguous",)


def test_the_prober_runs_the_tests_of_either_kind(pool):
    class Programs(Boxes):
        def __init__(self, *texts):
            self.completions, self.asked = list(texts), []

    def probe(problem, *texts):
        solvers = {"p": solver_pool(Programs(*texts))}
        prober = Prober(changed(MINI.prober, n=8, k=4, timeout_s=60), solvers, pool)
        return asyncio.run(prober.probe(problem, "p", 1))

    found = probe(called(), fenced(GOOD), fenced(NOT_DISTINCT), fenced(BROKEN), "no code", fenced(SLOW), r"\boxed{2}")
    assert (found.n, found.correct, found.unknown) == (8, 3, 0)  # the first two again make eight
    found = probe(Problem.make(PRINTED, SCRIPT, "code", STDIO), fenced(ALIKE), fenced(LAZY))
    assert (found.correct, found.unknown) == (4, 0)


def test_a_submission_brings_its_tests():
    call = {
        "name": "submit",
        "arguments": {
            "question": CALLED,
            "answer": GOOD,
            "answer_kind": "code",
            "checks": [json.loads(c) for c in CALLS],
        },
    }
    read = parse_turn(f"## Finalize\n<tool_call>\n{json.dumps(call)}\n</tool_call>")[2]
    assert read.arguments["checks"] == CALLS
