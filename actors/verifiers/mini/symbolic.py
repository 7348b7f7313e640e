"""The symbolic verifier: the clauses of a problem, worked out with exact sympy values and dimensions in the sandbox.

Its reader, its derivation, its flags and its comparison are its own: the executing verifier shares none of them, so an
error in one shows as a disagreement. An answer is right if it is the derived one, character by character.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.execution import Executor
from actors.verifiers.base import Asked, Solvers, abstention, call
from actors.verifiers.mini.controlled import CATEGORIES, Reading, Unread, leaks, read
from pipeline import config
from pipeline.records import Problem, Vote

_PROGRAM = (Path(__file__).parent / "symbolic_program.py").read_text(encoding="utf-8")


class SymbolicVerifier:
    derived = True

    def __init__(self, name: str, section: config.SymbolicVerifierConfig, executor: Executor, solver: Solvers | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._executor = executor

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        reading = read(problem.question)
        if isinstance(reading, Unread):
            flags = [reading.flag, *(["leaks_answer"] if leaks(problem.question, problem.answer) else [])]
            return Vote(verifier=self.name, valid=False, rationale=reading.reason, flags=tuple(flags))
        clauses = [(c.rule, c.numbers, c.unit) for c in reading.clauses]
        result = await self._executor.run(call(_PROGRAM, (clauses, asked.offered)))
        if not result.ok or not isinstance(result.value, dict):
            return abstention(self.name, f"sandbox: {result.status} {result.reason}".strip(), "infra_error")
        return self._conclude(problem, reading, asked, result.value)

    def _conclude(self, problem: Problem, reading: Reading, asked: Asked, found: dict[str, Any]) -> Vote:
        if "answer" not in found:
            rationale = f"unsolvable: {found['unsolvable']}"
            return Vote(verifier=self.name, valid=False, rationale=rationale, flags=("unsolvable",))
        used = reading.skills(but=found["idle"])
        flags = _flags(reading, used, asked, found)
        right = problem.answer == found["answer"] and problem.answer_kind == reading.answer_kind
        submitted = "" if right else f", submitted was {problem.answer[:80]!r} ({problem.answer_kind})"
        return Vote(
            verifier=self.name,
            valid=right and not flags,
            answer=found["answer"],
            rationale="; ".join([f"found {found['answer']}{submitted}", *flags.values()]),
            flags=tuple(flags),
            used_skills=tuple(sorted(used)),
            category=reading.category,
            adherent="off_task" not in flags,
        )


def _flags(reading: Reading, used: frozenset[str], asked: Asked, found: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a problem that has an answer -> why."""
    flags = {}
    if not used:
        flags["trivial"] = "nothing that it does matters to the answer"
    idle = [reading.clauses[i].rule for i in found["idle"]]
    if idle:
        flags["vacuous"] = f"the answer is the same without {', '.join(idle)}"
    missing = sorted(set(asked.active) - used)
    if asked.category in CATEGORIES.values() and asked.category != reading.category:
        flags["off_task"] = f"it is of category {reading.category}, asked for was {asked.category}"
    elif missing:
        flags["off_task"] = f"does not use {', '.join(missing)}"
    elif len(used & set(asked.offered)) < found["most"]:
        flags["off_task"] = f"{found['most']} of the skills offered go together: {', '.join(asked.offered)}"
    return flags
