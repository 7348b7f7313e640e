"""The program verifier: a model writes a program for the statement, the sandbox runs it, the result is the answer.

For problems in free text, where the executing and the symbolic verifier have no language to read. `style` python asks
for plain code, sympy for a symbolic derivation. The model never sees the agent's work nor the submitted answer, and
what counts is what its programs return, which is every answer that the statement allows: it votes with their majority.
A majority that finds no answer, several, or a fact missing votes against the problem, and flags it. Without a majority
it abstains. Where the answer is a program itself (answer kind code), the programs it writes are judged by the
submission's tests; there `style` sympy asks for the most literal program instead, which finds other mistakes than the
one a programmer would write.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from actors.answers import Judgement, compare_many
from actors.answers.code import called
from actors.answers.replies import extract_program
from actors.execution import Executor
from actors.verifiers.base import Asked, Solvers, abstention
from actors.verifiers.text import findings
from actors.verifiers.text.asking import bundled, client_of, commonest, framed, gather_replies, heard, readable, unasked
from actors.verifiers.text.findings import Finding
from actors.verifiers.text.programs import tried, unfit
from pipeline import config
from pipeline.records import Failure, Problem, Vote


class ProgramVerifier:
    derived = False  # the reading of the statement is a model's

    def __init__(self, name: str, section: config.ProgramVerifierConfig, executor: Executor, solver: Solvers | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._section = section
        self._executor = executor
        self._client = client_of(section)
        self._prompts = bundled()

    def tell(self, prompts: Mapping[str, str]) -> None:
        self._prompts = prompts

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        code = problem.answer_kind == "code"
        if code and (against := await unfit(self.name, problem, self._executor)) is not None:
            return against
        read = await readable(self.name, problem, self._executor)
        if isinstance(read, Vote):
            return read
        problem = read
        n = self._section.samples * (attempt + 1)
        seed = int(problem.id, 16) % 2**31 + attempt
        try:
            programs, lost = await gather_replies([self._program(problem, seed + i) for i in range(n)])
        except Failure as e:
            return unasked(self.name, e)
        written = [p for p in programs if p is not None]
        if code:
            outcomes = await tried(problem, written, self._executor)
            found = [Finding(answer=a) for a, _ in outcomes]
            judged = [j for _, j in outcomes]
            return heard(self._tally(problem, n, found, judged, "none runs through the tests"), lost)
        results = await asyncio.gather(*(self._executor.run(findings.request(program)) for program in written))
        if written and all(r.status == "infra" for r in results):
            return abstention(self.name, f"sandbox: {results[0].reason}", "infra_error")
        lost += sum(r.status == "infra" for r in results)
        found = await asyncio.gather(*(findings.read(r, problem, self._executor) for r in results))
        answers = [f.answer for f in found if f.answer is not None]
        judged = await compare_many([(problem.answer_kind, problem.answer, a) for a in answers], self._executor)
        otherwise = next((f.said for f in found if f.said), "no program")
        return heard(self._tally(problem, n, found, judged, otherwise), lost)

    def _tally(
        self, problem: Problem, n: int, found: Sequence[Finding], judged: Sequence[Judgement], otherwise: str
    ) -> Vote:
        """The vote of the majority of n; `judged` has the answers among the findings, in order, and `otherwise` says
        why there may be no finding at all."""
        answers = [f.answer for f in found if f.answer is not None]
        faults = Counter(f.flag for f in found if f.flag is not None)
        if not answers and not faults:
            return abstention(self.name, f"none of {n} programs gave an answer ({otherwise})", "model_error")
        needed = max(1.0, self._section.majority * n)
        equal = sum(j == "equal" for j in judged)
        rationale = f"{equal} of {n} programs return the submitted answer"
        if equal >= needed:
            return Vote(verifier=self.name, valid=True, answer=problem.answer, rationale=rationale)
        if faults.total() >= needed:
            flag = faults.most_common(1)[0][0]
            said = next(f.said for f in found if f.flag == flag)
            reason = f"{rationale}, {faults.total()} find none or several: {said}"
            return Vote(verifier=self.name, valid=False, rationale=reason, flags=(flag,))
        other, count = commonest(problem, answers, judged)
        if count >= needed:
            reason = f"{rationale}, {count} return {(other or '')[:200]}"
            return Vote(verifier=self.name, valid=False, answer=other, rationale=reason)
        return abstention(self.name, f"no majority: {rationale}", "model_error")

    async def _program(self, problem: Problem, seed: int) -> str | None:
        code = problem.answer_kind == "code"
        role = f"program_code_{self._section.style}" if code else f"program_{self._section.style}"
        text = await self._client.complete(
            framed(self._prompts[role], {"statement": problem.question}),
            temperature=self._section.temperature,
            max_tokens=self._section.max_tokens,
            seed=seed,
        )
        return extract_program(text, called(problem.checks) if code else ("solve",), bare=True)
