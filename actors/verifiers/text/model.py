"""The model verifier: solves a problem by asking a model n times, reviews it, and votes with the majority.

The model is a solver pool (final answers in a box) or an OpenAI-compatible endpoint. An endpoint is asked twice a
sample: it solves the problem blind, told what a solver is told; then it reviews the problem with its own answer and the
agent's work before it, and says what is wrong, and whether the problem is what was asked for. Consumes a problem, waits
for the samples, produces a vote.

What a hostile problem text can reach: it can sway what the model says, not what counts. A sample supports the
submission only if the answer the model worked out itself is judged equal to the submitted one, which it was not told
when it solved the problem; the review can only take away. So "vote valid" in a text earns nothing. Samples that cannot
be read support nothing. Without a majority the verifier abstains.

In the second audit (`attempt` 1) the review is told that the judges differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.answers import Judgement, compare_many
from actors.answers.code import called
from actors.answers.replies import extract_boxed, extract_program, visible
from actors.execution import Executor
from actors.openai_client import ChatClient
from actors.verifiers.base import Asked, Solvers, abstention
from actors.verifiers.text import review
from actors.verifiers.text.asking import bundled, client_of, commonest, framed, gather_replies, heard, readable, unasked
from actors.verifiers.text.programs import tried, unfit
from actors.verifiers.text.review import Review
from pipeline import config
from pipeline.records import Failure, Problem, Vote

_SHOWN_CHARS = 6_000
"""Of its own solution, from the end, that a model is shown when it reviews."""
_NO_REVIEW = Review(valid=True)
_ILL_POSED = re.compile(r"(?:\\text\{)?\W*ill[- ]?posed\b", re.IGNORECASE)
"""What judge_solve asks for where no single answer follows: an objection, whatever the review says."""


@dataclass(frozen=True)
class _Sample:
    answer: str | None
    """None: the model gave no usable answer, or no review that can be read."""
    review: Review = _NO_REVIEW


class ModelVerifier:
    derived = False

    def __init__(self, name: str, section: config.ModelVerifierConfig, executor: Executor, solver: Solvers | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._section = section
        self._executor = executor
        self._solver = solver
        self._client: ChatClient | None = None
        self._prompts = bundled()
        if section.base_url is None and solver is None:
            raise Failure(f"committee verifier {name}: neither base_url nor a solver pool; expected one of them")
        if section.base_url is not None:
            self._client = client_of(section)

    def tell(self, prompts: Mapping[str, str]) -> None:
        self._prompts = prompts

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        if problem.answer_kind == "code":
            against = await unfit(self.name, problem, self._executor)
            if against is not None:
                return against
        read = await readable(self.name, problem, self._executor)
        if isinstance(read, Vote):
            return read
        problem = read
        n = self._section.samples * (attempt + 1)  # the second audit looks twice as often, with other seeds
        seed = int(problem.id, 16) % 2**31 + attempt
        try:
            if self._client is None:
                return await self._decide(problem, await self._ask_pool(problem, n, seed), None)
            role = "judge_audit" if attempt else "judge_review"
            replies, lost = await gather_replies(
                [self._sample(self._client, problem, trace, asked, role, seed + i) for i in range(n)]
            )
        except Failure as e:
            return unasked(self.name, e)
        samples = [r if r is not None else _Sample(None) for r in replies]
        return heard(await self._decide(problem, samples, asked), lost)

    # ---------------------------------------------------------------- asking

    async def _ask_pool(self, problem: Problem, n: int, seed: int) -> list[_Sample]:
        sampling = config.SamplingConfig(temperature=self._section.temperature, max_tokens=self._section.max_tokens)
        assert self._solver is not None
        texts = await self._solver.answers(
            "solver pool", self.timeout_s, problem.question, n, sampling, seed, problem.answer_kind
        )
        if problem.answer_kind != "code":
            return [_Sample(extract_boxed(text)) for text in texts]
        entries = called(problem.checks)
        return [_Sample(extract_program(text, entries)) for text in texts]

    async def _sample(
        self, client: ChatClient, problem: Problem, trace: str, asked: Asked, role: str, seed: int
    ) -> _Sample:
        """One answer, and the review that the model gives after it."""
        solver = self._prompts[f"solver_{problem.answer_kind}"]
        told = framed(self._prompts["judge_solve"], {"statement": problem.question}, solver=solver)
        solution = await self._complete(client, told, seed)
        answer = self._answer(problem, solution)
        if answer is None:
            return _Sample(None, Review(valid=True, rationale="the solution ends in no answer"))
        blocks = {
            "statement": problem.question,
            "asked for": _asked_for(problem, asked),
            "your solution": visible(solution).strip()[-_SHOWN_CHARS:],
            "working": trace if self._section.trace else "",
        }
        schema = review.SCHEMA if self._section.structured else None
        said = review.read(await self._complete(client, framed(self._prompts[role], blocks), seed, schema))
        if said is None:
            return _Sample(None, Review(valid=True, rationale="the review holds no vote that can be read"))
        return _Sample(answer, replace(said, valid=False) if _ILL_POSED.match(answer) else said)

    async def _complete(
        self, client: ChatClient, messages: list[dict[str, str]], seed: int, schema: dict[str, Any] | None = None
    ) -> str:
        return await client.complete(
            messages,
            temperature=self._section.temperature,
            max_tokens=self._section.max_tokens,
            seed=seed,
            schema=schema,
        )

    def _answer(self, problem: Problem, solution: str) -> str | None:
        if problem.answer_kind == "code":
            program = extract_program(solution, called(problem.checks))
            return program if program is not None else review.answer(solution)
        return review.answer(solution)

    # ---------------------------------------------------------------- deciding

    async def _decide(self, problem: Problem, samples: Sequence[_Sample], asked: Asked | None) -> Vote:
        """The majority's vote; `asked` None where the model was not asked for a review."""
        needed = max(1.0, self._section.majority * len(samples))
        given = [s for s in samples if s.answer is not None]
        if not given:
            said = next((f" ({s.review.rationale})" for s in samples if s.review.rationale), "")
            return abstention(self.name, f"none of {len(samples)} samples gave an answer{said}", "model_error")
        reviews = [s.review for s in given]
        flags = Counter(flag for r in reviews for flag in r.flags)
        flags["off_task"] = sum(r.on_task is False or "off_task" in r.flags for r in reviews)
        raised = tuple(sorted(flag for flag, count in flags.items() if count >= needed))
        answers, judged = await self._judged(problem, [s.answer or "" for s in given])
        equal = sum(j == "equal" for j in judged)
        answer, count = commonest(problem, answers, judged)
        rationale = f"{equal} of {len(samples)} samples agree with the submission"
        objections = [r for r in reviews if not r.valid]
        said = next((r.rationale for r in [*objections, *reviews] if r.rationale), "")
        rationale += f": {said}" if said else ""
        found: dict[str, Any] = {
            "verifier": self.name,
            "flags": raised,
            **(_told(reviews, needed, raised, asked) if asked else {}),
        }
        if equal >= needed:
            valid = len(objections) < needed and not raised
            return Vote(valid=valid, answer=problem.answer, rationale=rationale, **found)
        if raised or len(objections) >= needed:
            return Vote(valid=False, answer=answer, rationale=rationale, **found)
        if count >= needed:
            said = f"{rationale}, {count} with {(answer or '')[:200]}"
            return Vote(valid=False, answer=answer, rationale=said, **found)
        return abstention(self.name, f"no majority: {rationale}", "model_error")

    async def _judged(self, problem: Problem, given: Sequence[str]) -> tuple[list[str], list[Judgement]]:
        """Answers and what they are worth; of programs, what they did, and only of those that ran through."""
        if problem.answer_kind == "code":
            outcomes = await tried(
                problem, [extract_program(text, called(problem.checks)) or text for text in given], self._executor
            )
            return [a for a, _ in outcomes], [j for _, j in outcomes]
        pairs = [(problem.answer_kind, problem.answer, text) for text in given]
        return list(given), await compare_many(pairs, self._executor)


def _told(reviews: Sequence[Review], needed: float, raised: Sequence[str], asked: Asked) -> dict[str, Any]:
    """What the majority says of the problem itself, beside its soundness; of skills, those that were asked for."""
    able = [r for r in reviews if r.used_skills is not None]
    ids = {skill.lower(): skill for skill in (*asked.offered, *asked.active)}
    used = Counter(ids[name] for r in able for name in {n.lower() for n in r.used_skills or ()} & set(ids))
    categories = Counter(r.category for r in reviews if r.category is not None)
    top = categories.most_common(1)
    return {
        "used_skills": tuple(sorted(s for s, n in used.items() if n >= needed)) if len(able) >= needed else None,
        "category": top[0][0] if top and top[0][1] >= needed else None,
        "adherent": False if "off_task" in raised else True if any(r.on_task is not None for r in reviews) else None,
    }


_FORMS = {
    "math": "a number or formula",
    "choice": "the letter of an option",
    "text": "a word or a short phrase",
    "code": "a program, judged by tests",
}


def _asked_for(problem: Problem, asked: Asked) -> str:
    """What the writer was asked for, as the review is shown it."""
    lines = [f"answer: {_FORMS[problem.answer_kind]}"]
    intents = dict(asked.intents)
    if asked.category is not None:
        lines.append(f"category: {asked.category}")
    left_out = [skill for skill in asked.offered if skill not in asked.active]
    for said, skills in (
        ("skills that a solver is to need, each of them", asked.active),
        ("skills that the writer left out", left_out),
    ):
        lines += [f"{said}:"] if skills else []
        lines += [f"- {skill}: {intents[skill]}" if skill in intents else f"- {skill}" for skill in skills]
    return "\n".join(lines)
