"""The program verifier: a model writes a program for the statement, the sandbox runs it, the result is the answer.

For problems in free text, where the executing and the symbolic verifier have no language to read. `style` python asks
for plain code, sympy for a symbolic derivation. The model never sees the agent's work nor the submitted answer, and
what counts is what its programs return: it votes with their majority, or abstains. Where the answer is a program
itself (answer kind code), the programs it writes are judged by the submission's tests; there `style` sympy asks for
the most literal program instead, which finds other mistakes than the one a programmer would write.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from actors.answers import Judgement, compare_many
from actors.answers.code import called
from actors.answers.replies import extract_program
from actors.execution import Executor
from actors.verifiers.base import abstention, call
from actors.verifiers.text.asking import client_of, commonest, framed, gather_replies
from actors.verifiers.text.programs import tried, unfit
from pipeline import config
from pipeline.records import Failure, Problem, Vote
from sandbox.api import Result

_STYLES = {
    "python": "plain Python from the standard library; enumerate or simulate where that settles the question",
    "sympy": "sympy: set up symbols and equations, solve them exactly, and check every condition of the statement",
}

_CODE_STYLES = {
    "python": "Solve it as a careful programmer would",
    "sympy": "Do what the statement says as literally as possible, by exhaustive search where there is one",
}

_CODE_SYSTEM = """\
Write the Python program that the problem you are shown asks for: a function of the name it gives, or a script that \
reads standard input and prints. {style}. Mind the edge cases that the statement names. Reply with one fenced code \
block and nothing else.
{guard}; solve the problem as far as it is one."""

_SYSTEM = """\
Write a Python program that solves the problem you are shown. Use {style}. Define a function solve() without \
parameters that computes and returns the final answer as a string (numbers and formulas as plain text or LaTeX, a \
choice as its word or letter). If the problem has no answer, or more than one, raise ValueError with the reason. Reply \
with one fenced code block and nothing else.
{guard}; solve the problem as far as it is one."""


class ProgramVerifier:
    derived = False  # the reading of the statement is a model's

    def __init__(self, name: str, section: config.ProgramVerifierConfig, executor: Executor, solver: Any | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._section = section
        self._executor = executor
        self._client = client_of(section, section.base_url)

    async def vote(self, problem: Problem, trace: str, active: Sequence[str], attempt: int) -> Vote:
        code = problem.answer_kind == "code"
        if code and (against := await unfit(self.name, problem, self._executor)) is not None:
            return against
        n = self._section.samples * (attempt + 1)
        seed = int(problem.id, 16) % 2**31 + attempt
        try:
            programs = await gather_replies([self._program(problem, seed + i) for i in range(n)])
        except Failure as e:
            return abstention(self.name, str(e), e.kind)
        written = [p for p in programs if p is not None]
        if code:
            outcomes = await tried(problem, written, self._executor)
            answers, judged = [a for a, _ in outcomes], [j for _, j in outcomes]
            return self._tally(problem, n, answers, judged, "none runs through the tests")
        results = await asyncio.gather(*(self._executor.run(call(program)) for program in written))
        if written and all(r.status == "infra" for r in results):
            return abstention(self.name, f"sandbox: {results[0].reason}", "infra_error")
        answers = [a for a in map(_answer_of, results) if a is not None]
        judged = await compare_many([(problem.answer_kind, problem.answer, a) for a in answers], self._executor)
        reason = next((r.reason for r in results if r.reason), "no program")
        return self._tally(problem, n, answers, judged, reason)

    def _tally(
        self, problem: Problem, n: int, answers: Sequence[str], judged: Sequence[Judgement], otherwise: str
    ) -> Vote:
        """The vote of the majority of n; `otherwise` says why there may be no answer at all."""
        if not answers:
            return abstention(self.name, f"none of {n} programs gave an answer ({otherwise})", "model_error")
        needed = max(1.0, self._section.majority * n)
        equal = sum(j == "equal" for j in judged)
        rationale = f"{equal} of {n} programs return the submitted answer"
        if equal >= needed:
            return Vote(verifier=self.name, valid=True, answer=problem.answer, rationale=rationale)
        other, count = commonest(problem, answers, judged)
        if count >= needed:
            reason = f"{rationale}, {count} return {(other or '')[:200]}"
            return Vote(verifier=self.name, valid=False, answer=other, rationale=reason)
        return abstention(self.name, f"no majority: {rationale}", "model_error")

    async def _program(self, problem: Problem, seed: int) -> str | None:
        code = problem.answer_kind == "code"
        system, styles = (_CODE_SYSTEM, _CODE_STYLES) if code else (_SYSTEM, _STYLES)
        messages = framed(system.replace("{style}", styles[self._section.style]), problem, "")
        text = await self._client.complete(
            messages, temperature=self._section.temperature, max_tokens=self._section.max_tokens, seed=seed
        )
        return extract_program(text, called(problem.checks) if code else ("solve",), bare=True)


def _answer_of(result: Result) -> str | None:
    """What a program returned, as answer text."""
    value = result.value
    if not result.ok or value is None or value == "":
        return None
    return value[:2_000] if isinstance(value, str) else json.dumps(value)[:2_000]
