"""The executing verifier: a plain Python program written from the sentences of a problem, run in the sandbox.

Reader, program, flags and comparison are its own: the symbolic verifier shares none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.execution import Executor
from actors.verifiers.base import Asked, Solvers, abstention, call
from actors.verifiers.mini import compiler
from actors.verifiers.mini.grammar import Fault, Sentence, parse
from pipeline import config
from pipeline.records import Problem, Vote


class ExecutingVerifier:
    derived = True

    def __init__(self, name: str, section: config.ExecutingVerifierConfig, executor: Executor, solver: Solvers | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._executor = executor

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        sentences = parse(problem.question)
        if isinstance(sentences, Fault):
            return self._against(sentences.reason, sentences.flag)
        result = await self._executor.run(call(compiler.compile_program(sentences)))
        match result.value if result.ok else None:
            case {"answer": str(answer), "idle": [*idle]}:
                return self._judged(problem, sentences, asked, answer, idle)
            case {"unsolvable": str(reason)}:
                return self._against(reason, "unsolvable")
        return abstention(self.name, f"sandbox: {result.status} {result.reason}".strip(), "infra_error")

    def _against(self, reason: str, *flags: str) -> Vote:
        return Vote(verifier=self.name, valid=False, rationale=reason, flags=flags)

    def _judged(
        self, problem: Problem, sentences: Sequence[Sentence], asked: Asked, answer: str, idle: Sequence[int]
    ) -> Vote:
        used, category = compiler.skills_of(sentences, idle), compiler.category_of(sentences)
        astray = list(_astray(used, category, asked))
        idle_rules = [s.rule for i, s in enumerate(sentences) if i in idle or compiler.is_empty_product(s)]
        reasons, flags = [f"the program prints {answer}"], []
        if astray:
            flags.append("off_task")
        if idle_rules:
            flags.append("vacuous")
            reasons.append(f"idle: {', '.join(idle_rules)}")
        if not used:
            flags.append("trivial")
        kind = "choice" if compiler.is_worded(sentences) else "math"
        differs = (problem.answer, problem.answer_kind) != (answer, kind)
        if differs:
            reasons.append(f"handed in as {problem.answer_kind}: {problem.answer[:80]!r}")
        return Vote(
            verifier=self.name,
            valid=not differs and not flags,
            answer=answer,
            rationale="; ".join(reasons + astray),
            flags=tuple(flags),
            used_skills=tuple(sorted(used)),
            category=category,
            adherent=not astray,
        )


def _astray(used: set[str], category: str, asked: Asked) -> Iterator[str]:
    """In what the problem is not what was asked for."""
    if asked.category != category and compiler.is_category(asked.category):
        yield f"a problem of {category} where one of {asked.category} was asked for"
    if unused := set(asked.active) - used:
        yield f"kept and not used: {', '.join(sorted(unused))}"
    together = compiler.most_together(frozenset(asked.offered))
    if (taken := len(used.intersection(asked.offered))) < together:
        yield f"uses {taken} of the skills offered, {together} go together"
