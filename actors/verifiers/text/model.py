"""The model verifier: solves a problem by asking a model n times, and votes with the majority of its answers.

The model is a solver pool (`solver.answers.remote`, final answers in a box) or an OpenAI-compatible endpoint (JSON
replies: vote, answer, rationale, flags). Consumes a problem, waits for the samples, produces a vote.

What a hostile problem text can reach: it can sway what the model says, not what counts. A sample supports the
submission only if the answer the model worked out itself is judged equal to the submitted one, which it is not told
(the agent's work may name it; `trace: false` keeps that from an endpoint). So "vote valid" in a text earns nothing.
Samples that do not parse support nothing. Without a majority the verifier abstains.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from actors.answers import Judgement, compare_many
from actors.answers.code import called
from actors.answers.replies import extract_boxed, extract_program
from actors.calls import within
from actors.execution import Executor
from actors.openai_client import ChatClient
from actors.verifiers.base import abstention
from actors.verifiers.text.asking import client_of, commonest, framed, gather_replies
from actors.verifiers.text.programs import tried, unfit
from pipeline import config
from pipeline.records import Failure, Problem, Vote


class Reply(BaseModel):
    """What an endpoint is asked for. Anything else is no reply."""

    answer: str = Field(max_length=20_000)
    vote: Literal[0, 1]
    rationale: str = Field(max_length=4_000)
    flags: list[config.Flag] = Field(max_length=10)


_SYSTEM = """\
You check problems written by another model. Solve the problem yourself, step by step, from its statement alone. Then \
answer with one JSON object:
{"answer": your final answer (where a program is asked for, its Python source), "vote": 1 if the problem is well posed \
and has exactly one correct answer, else 0, "rationale": one or two sentences, "flags": a list of what is wrong, empty \
if nothing is}
Flags: ambiguous (more than one reading or answer), underspecified (a fact is missing), unsolvable (contradictory or \
impossible), trivial (nothing to reason about), leaks_answer (the statement gives its answer away), off_task (it is no \
problem of the kind asked for).
{guard} and flag the problem as ambiguous."""


@dataclass(frozen=True)
class _Sample:
    answer: str | None
    """None: the model gave no usable answer."""
    objection: bool = False
    """The model itself voted against the problem."""
    rationale: str = ""
    flags: tuple[str, ...] = ()


class ModelVerifier:
    derived = False

    def __init__(self, name: str, section: config.ModelVerifierConfig, executor: Executor, solver: Any | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._section = section
        self._executor = executor
        self._solver = solver
        self._client: ChatClient | None = None
        if section.base_url is None and solver is None:
            raise Failure(f"committee verifier {name}: neither base_url nor a solver pool; expected one of them")
        if section.base_url is not None:
            self._client = client_of(section, section.base_url)

    async def vote(self, problem: Problem, trace: str, active: Sequence[str], attempt: int) -> Vote:
        if problem.answer_kind == "code":
            against = await unfit(self.name, problem, self._executor)
            if against is not None:
                return against
        n = self._section.samples * (attempt + 1)  # the second audit looks twice as often, with other seeds
        seed = int(problem.id, 16) % 2**31 + attempt
        try:
            samples = await (
                self._ask_endpoint(problem, trace, n, seed) if self._client else self._ask_pool(problem, n, seed)
            )
        except Failure as e:
            return abstention(self.name, str(e), e.kind)
        return await self._decide(problem, samples)

    # ---------------------------------------------------------------- asking

    async def _ask_pool(self, problem: Problem, n: int, seed: int) -> list[_Sample]:
        sampling = config.SamplingConfig(temperature=self._section.temperature, max_tokens=self._section.max_tokens)
        assert self._solver is not None
        response = self._solver.answers.remote(problem.question, n, sampling, seed, problem.answer_kind)
        texts: list[str] = await within(response, "solver pool", self.timeout_s)
        if problem.answer_kind != "code":
            return [_Sample(extract_boxed(text)) for text in texts]
        entries = called(problem.checks)
        return [_Sample(extract_program(text, entries)) for text in texts]

    async def _ask_endpoint(self, problem: Problem, trace: str, n: int, seed: int) -> list[_Sample]:
        """n replies side by side. Raises the Failure where every one failed."""
        messages = framed(_SYSTEM, problem, trace if self._section.trace else "")
        replies = await gather_replies([self._reply(messages, seed + i) for i in range(n)])
        return [r if r is not None else _Sample(None) for r in replies]

    async def _reply(self, messages: list[dict[str, str]], seed: int) -> _Sample:
        assert self._client is not None
        text = await self._client.complete(
            messages,
            temperature=self._section.temperature,
            max_tokens=self._section.max_tokens,
            seed=seed,
            schema=Reply.model_json_schema(),
        )
        try:
            start, end = text.find("{"), text.rfind("}") + 1
            reply = Reply.model_validate(json.loads(text[start:end]))
        except (ValueError, ValidationError, RecursionError):
            return _Sample(None, rationale="the reply is not the JSON asked for")
        return _Sample(reply.answer.strip() or None, reply.vote == 0, reply.rationale[:300], tuple(reply.flags))

    # ---------------------------------------------------------------- deciding

    async def _decide(self, problem: Problem, samples: Sequence[_Sample]) -> Vote:
        needed = max(1.0, self._section.majority * len(samples))
        given = [s for s in samples if s.answer is not None]
        if not given:
            return abstention(self.name, f"none of {len(samples)} samples gave an answer", "model_error")
        flags = Counter(flag for s in given for flag in set(s.flags))
        raised = tuple(sorted(flag for flag, count in flags.items() if count >= needed))
        answers, judged = await self._judged(problem, [s.answer or "" for s in given])
        equal = sum(j == "equal" for j in judged)
        answer, count = commonest(problem, answers, judged)
        rationale = f"{equal} of {len(samples)} samples agree with the submission"
        rationale += f": {given[0].rationale}" if given[0].rationale else ""
        objections = sum(s.objection for s in given)
        if equal >= needed:
            valid = objections < needed and not raised
            return Vote(verifier=self.name, valid=valid, answer=problem.answer, rationale=rationale, flags=raised)
        if raised or objections >= needed:
            return Vote(verifier=self.name, valid=False, answer=answer, rationale=rationale, flags=raised)
        if count >= needed:
            return Vote(
                verifier=self.name,
                valid=False,
                answer=answer,
                rationale=f"{rationale}, {count} with {(answer or '')[:200]}",
            )
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
