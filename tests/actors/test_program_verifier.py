from __future__ import annotations

import asyncio
import json

import pytest

from actors.execution import Executor
from actors.verifiers.base import Asked
from actors.verifiers.text.program import ProgramVerifier
from pipeline import config
from pipeline.records import Problem
from tests.actors.endpoint import drips, endpoint, says
from tests.actors.pools import sandbox

ANYTHING = Asked(None, (), ())
PROBLEM = Problem.make("How many primes are there below 20?", "8")
COUNT = """Counting them:
```python
def solve():
    return str(sum(all(n % d for d in range(2, n)) for n in range(2, 20)))
```"""
SYMBOLIC = "```python\nimport sympy\ndef solve():\n    return sympy.latex(sympy.primepi(20))\n```"
WRONG = "```python\ndef solve():\n    return 7\n```"


@pytest.fixture(scope="module")
def pool():
    pool, handle = sandbox()
    yield handle
    pool.close()


def verify(pool, behaviour, **section):
    async def main():
        async with endpoint(behaviour) as requests:
            settings = config.ProgramVerifierConfig(base_url=requests.url, **{"timeout_s": 20} | section)
            verifier = ProgramVerifier("p", settings, Executor(pool.run_batch.remote), None)
            return await verifier.vote(PROBLEM, "notes of the agent: 8", ANYTHING, 0), requests

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
        "```python\ndef solve():\n    raise ValueError('two answers')\n```",
        "```\ndef solve(): pass\n```",
    ],
)
def test_no_answer_is_no_vote(pool, reply):
    vote, _ = verify(pool, says(reply))
    assert vote.valid is None and vote.outcome.kind == "model_error"


def test_programs_that_differ_are_no_vote(pool):
    others = [f"```python\ndef solve():\n    return {n}\n```" for n in (5, 6, 7)]
    assert verify(pool, says(*others))[0].valid is None


def test_a_slow_endpoint_is_an_infrastructure_error(pool):
    vote, _ = verify(pool, drips, timeout_s=0.6, samples=1)
    assert vote.valid is None and vote.outcome.kind == "infra_error"
