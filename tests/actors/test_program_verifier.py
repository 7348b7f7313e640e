from __future__ import annotations

import asyncio
import json

import pytest

from actors.execution import Executor
from actors.verifiers.base import Asked
from actors.verifiers.text.findings import Finding
from actors.verifiers.text.program import ProgramVerifier
from pipeline import config
from pipeline.records import Problem
from tests.actors.endpoint import drips, endpoint, response, says, sends

ASKED = Asked("maths", ("primes",), ("primes",))
PROBLEM = Problem.make("How many primes are there below 20?", "8")
COUNT = """Counting them:
```python
def solve():
    return str(sum(all(n % d for d in range(2, n)) for n in range(2, 20)))
```"""
SYMBOLIC = "```python\nimport sympy\ndef solve():\n    return sympy.latex(sympy.primepi(20))\n```"
WRONG = "```python\ndef solve():\n    return 7\n```"


def verify(pool, behaviour, problem=PROBLEM, **section):
    async def main():
        async with endpoint(behaviour) as requests:
            settings = config.ProgramVerifierConfig(base_url=requests.url, model="m", **{"timeout_s": 20} | section)
            verifier = ProgramVerifier("p", settings, Executor(pool.run_batch.remote), None)
            return await verifier.vote(problem, "notes of the agent: 8", ASKED, 0), requests

    return asyncio.run(main())


@pytest.mark.parametrize("style, program", [("python", COUNT), ("sympy", SYMBOLIC)])
def test_programs_that_agree_with_the_submission_vote_valid(pool, style, program):
    vote, requests = verify(pool, says(program), style=style)
    assert (vote.valid, vote.answer) == (True, "8") and len(requests) == 3
    shown = requests[0]["messages"]
    assert PROBLEM.question in shown[1]["content"] and "notes of the agent" not in json.dumps(shown)
    assert ("sympy" in shown[0]["content"]) is (style == "sympy")


def test_programs_that_agree_on_another_answer_vote_against(pool):
    vote, _ = verify(pool, says(WRONG))
    assert (vote.valid, vote.answer) == (False, "7")


@pytest.mark.parametrize(
    "reply",
    [
        "no code",
        "```\nnot python\n```",
        "```python\ndef solve():\n    return int('two answers?')\n```",
        "```python\ndef solve():\n    a, b = [1, 2, 3]\n```",
        "```python\ndef solve():\n    return 8 // 0\n```",
        "```\ndef solve(): pass\n```",
    ],
)
def test_no_answer_is_no_vote(pool, reply):
    vote, _ = verify(pool, says(reply))
    assert vote.valid is None and vote.outcome.kind == "model_error"


def test_programs_that_differ_are_no_vote(pool):
    others = [f"```python\ndef solve():\n    return {n}\n```" for n in (5, 6, 7)]
    assert verify(pool, says(*others))[0].valid is None


SQUARE = Problem.make("Name an integer whose square is 49.", "7")


def solving(body):
    return says(f"```python\ndef solve():\n    {body}\n```")


@pytest.mark.parametrize(
    "body, flag",
    [
        ('return ["-7", "7"]', "ambiguous"),
        ("return [n for n in range(-50, 50) if n * n == 49]", "ambiguous"),
        ("return {-7, 7}", "ambiguous"),
        ('return {"answers": [-7, 7]}', "ambiguous"),
        ("raise ValueError('two answers: 7 and -7')", "ambiguous"),
        ("raise ValueError('ambiguous: the sign is open')", "ambiguous"),
        ("return []", "unsolvable"),
        ("raise ValueError('no integer solution')", "unsolvable"),
        ("raise ValueError('unsolvable: it contradicts itself')", "unsolvable"),
        ("raise ValueError('underspecified: which square?')", "underspecified"),
        ("raise ValueError('a fact is missing')", "underspecified"),
    ],
)
def test_a_majority_that_finds_no_or_several_answers_votes_against_with_its_flag(pool, body, flag):
    vote, _ = verify(pool, solving(body), SQUARE)
    assert (vote.valid, vote.flags, vote.answer) == (False, (flag,), None)


def test_programs_that_find_several_or_none_are_a_majority_together():
    found = [Finding(flag="ambiguous", said="two"), Finding(flag="unsolvable", said="none"), Finding(answer="7")]
    verifier = ProgramVerifier("p", config.ProgramVerifierConfig(base_url="http://x/v1", model="m"), None, None)
    vote = verifier._tally(SQUARE, 3, found, ["equal"], "")
    assert vote.valid is False and set(vote.flags) <= {"ambiguous", "unsolvable"} and len(vote.flags) == 1
    assert verifier._tally(SQUARE, 3, found[1:], ["equal"], "").valid is None


@pytest.mark.parametrize(
    "question, answer, body, valid",
    [
        ("Which integers have the square 49?", "-7, 7", 'return ["-7, 7"]', True),
        ("Which integers have the square 49?", "-7, 7", "return [-7, 7]", True),  # meant as one answer, which it is
        ("Which primes lie below 8?", "[2, 3, 5, 7]", "return [[2, 3, 5, 7]]", True),
        ("What is 7/14?", "1/2", 'return ["1/2", "0.5"]', True),  # one answer, twice
        ("What is 7/14?", "1/2", "from fractions import Fraction\n    return [Fraction(7, 14)]", True),
        ("What is the root of 8?", "2\\sqrt{2}", "import sympy\n    return [sympy.sqrt(8)]", True),
        ("What is the root of 8?", "2\\sqrt{2}", "import sympy\n    return [sympy.sqrt(8), 2 * sympy.sqrt(2)]", True),
        ("What is 7/14?", "1/2", r'return ["\frac{1}{2}"]', True),  # which Python reads as a form feed
        ("Is 91 prime?", "no", "return [91 in (2, 3)]", True),
        ("What is 2 + 2?", "5", "return [4]", False),
        ("Which integers have the square 49?", "7", "return [-7, 7]", False),
    ],
)
def test_what_a_program_returns_is_read_as_it_is_meant(pool, question, answer, body, valid):
    assert verify(pool, solving(body), Problem.make(question, answer), samples=1)[0].valid is valid


def test_a_program_that_prints_its_answer_has_one(pool):
    assert verify(pool, says("```python\nprint('so:')\nprint(3 + 5)\n```"), samples=1)[0].valid is True


def test_an_endpoint_that_refuses_is_nothing_that_the_problem_could_help(pool):
    vote, _ = verify(pool, sends(response(b'{"error": {"message": "no such model: m"}}', "404 Not Found")))
    assert vote.outcome.kind == "infra_error" and "no such model: m" in vote.outcome.reason


def test_a_slow_endpoint_is_an_infrastructure_error(pool):
    vote, _ = verify(pool, drips, timeout_s=0.6, samples=1)
    assert vote.valid is None and vote.outcome.kind == "infra_error"
