"""The replica of a policy that answers questions: prober, model verifier, the solver in training, evaluation.

Consumes questions; produces completions as text, and for training also their rollouts, sent to the sink. It waits for
its engine only, or for an endpoint that answers in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.canary import refuse
from actors.chat import Message, solver_messages
from actors.episode import turn_seed
from actors.openai_client import ChatClient, Reply
from actors.replica import PolicyReplica
from actors.sample import Sample
from pipeline import config
from pipeline.records import ACTIONS, COGNITIVE_STAGES, AnswerKind, Failure, Rollout

Answered = tuple[str, bool]
"""A completion, and whether it was cut off at the limit of tokens."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer. With `episode_id` and `attempt` its rollout is found in the sink."""

    episode_id: str
    attempt: int
    text: str
    tokens: int
    truncated: bool


class Solver(PolicyReplica):
    async def __init__(  # type: ignore[misc]  # Serve awaits a constructor
        self,
        model_dir: str,
        engine: config.EngineConfig,
        seed: int,
        prompts: Mapping[AnswerKind, str],
        weights: Any | None = None,
        sink: Any | None = None,
    ):
        """`prompts`: what it is told, by the kind of answer that is asked for."""
        super().__init__(model_dir, engine, seed, weights, sink)
        self._prompts = prompts
        await self._start()

    async def answers(
        self, question: str, n: int, sampling: config.SamplingConfig, seed: int, kind: AnswerKind = "math"
    ) -> list[str]:
        """`n` independent completions."""
        return [text for text, _ in await self.counted_answers(question, n, sampling, seed, kind)]

    async def counted_answers(
        self, question: str, n: int, sampling: config.SamplingConfig, seed: int, kind: AnswerKind = "math"
    ) -> list[tuple[str, int]]:
        """`n` independent completions, each with the number of its tokens."""
        await self._catch_up()
        samples = await self._complete(self._encode(question, kind), n, sampling, seed)
        return [(s.text, len(s.token_ids)) for s in samples]

    async def answers_many(
        self,
        questions: Sequence[str],
        n: int,
        sampling: config.SamplingConfig,
        seed: int,
        kinds: Sequence[AnswerKind] | None = None,
    ) -> list[list[Answered]]:
        """`n` completions of each question, all at once in the engine. One call, however many questions."""
        await self._catch_up()
        prompts = [self._encode(q, kind) for q, kind in zip(questions, kinds or _maths(questions), strict=True)]
        jobs = [self._complete(p, n, sampling, turn_seed(seed, n, i)) for i, p in enumerate(prompts)]
        return [[(s.text, s.truncated) for s in samples] for samples in await asyncio.gather(*jobs)]

    async def sample(
        self,
        group_id: str,
        question: str,
        n: int,
        sampling: config.SamplingConfig,
        seed: int,
        attempt: int = 1,
        kind: AnswerKind = "math",
    ) -> list[Completion]:
        """A group of completions to train on: `{group_id}/{i}`, one action each. Their rollouts have reached the sink
        when this returns."""
        await self._catch_up()
        prompt = self._encode(question, kind)
        samples = await self._complete(prompt, n, sampling, seed)
        ids = [f"{group_id}/{i}" for i in range(n)]
        await asyncio.gather(
            *(self._ship(_rollout(i, attempt, group_id, prompt, s)) for i, s in zip(ids, samples, strict=True))
        )
        return [
            Completion(i, attempt, s.text, len(s.token_ids), s.truncated) for i, s in zip(ids, samples, strict=True)
        ]

    async def reply(self, messages: Sequence[Message], sampling: config.SamplingConfig, seed: int) -> tuple[str, bool]:
        """The next message of any conversation, and whether it was cut off."""
        await self._catch_up()
        refuse([message["content"] for message in messages])
        (sample,) = await self._complete(self._engine.chat.encode_messages(messages), 1, sampling, seed)
        return sample.text, sample.truncated

    def _encode(self, question: str, kind: AnswerKind) -> list[int]:
        refuse([question])
        return self._engine.chat.encode_messages(solver_messages(question, self._prompts[kind]))

    async def _complete(self, prompt: list[int], n: int, sampling: config.SamplingConfig, seed: int) -> list[Sample]:
        try:
            return await self._engine.generate(prompt, sampling, seed, n)
        except Failure as e:
            if e.kind == "infra_error":
                await self.check_health()
            raise


class EndpointSolver:
    """Serve replica: a model behind an endpoint answers questions. It is not trained. A reply that was cut off is an
    answer as far as it goes; one without text is an empty one."""

    def __init__(self, endpoint: config.EndpointConfig, prompts: Mapping[AnswerKind, str]):
        self._client = ChatClient.of(endpoint, timeout_s=endpoint.timeout_s, retries=endpoint.retries)
        self._prompts = prompts

    async def answers(
        self, question: str, n: int, sampling: config.SamplingConfig, seed: int, kind: AnswerKind = "math"
    ) -> list[str]:
        """`n` independent completions, each with a seed of its own."""
        return [text for text, _ in await self.counted_answers(question, n, sampling, seed, kind)]

    async def counted_answers(
        self, question: str, n: int, sampling: config.SamplingConfig, seed: int, kind: AnswerKind = "math"
    ) -> list[tuple[str, int]]:
        """The same, each with the number of its tokens, as far as the endpoint tells."""
        return [(reply.text, reply.reply_tokens) for reply in await self._replies(question, n, sampling, seed, kind)]

    async def _replies(
        self, question: str, n: int, sampling: config.SamplingConfig, seed: int, kind: AnswerKind
    ) -> list[Reply]:
        messages, s = solver_messages(question, self._prompts[kind]), sampling
        jobs = [
            self._client.reply(
                messages, temperature=s.temperature, max_tokens=s.max_tokens, seed=turn_seed(seed, n, i), top_p=s.top_p
            )
            for i in range(n)
        ]
        return await asyncio.gather(*jobs)

    async def answers_many(
        self,
        questions: Sequence[str],
        n: int,
        sampling: config.SamplingConfig,
        seed: int,
        kinds: Sequence[AnswerKind] | None = None,
    ) -> list[list[Answered]]:
        """`n` completions of each question. One call, however many questions."""
        asked = enumerate(zip(questions, kinds or _maths(questions), strict=True))
        jobs = [self._replies(q, n, sampling, turn_seed(seed, n, i), kind) for i, (q, kind) in asked]
        return [[(r.text, r.finish_reason == "length") for r in replies] for replies in await asyncio.gather(*jobs)]


def _rollout(episode_id: str, attempt: int, group_id: str, prompt: list[int], sample: Sample) -> Rollout:
    """One turn, finalize and submit. Rewards are 0 here."""
    before, sampled = len(prompt), len(sample.token_ids)
    return Rollout(
        episode_id=episode_id,
        attempt=attempt,
        group_id=group_id,
        token_ids=(*prompt, *sample.token_ids),
        loss_mask=(0,) * before + (1,) * sampled,
        logprobs=(0.0,) * before + tuple(sample.logprobs),
        versions=(-1,) * before + tuple(sample.versions),
        action_index=(-1,) * before + (0,) * sampled,
        action_stage=(COGNITIVE_STAGES.index("finalize"),),
        action_kind=(ACTIONS.index("submit"),),
        process_rewards=(0.0,),
        terminal_reward=0.0,
    )


def _maths(questions: Sequence[str]) -> list[AnswerKind]:
    """The kind of questions that do not say theirs."""
    return ["math"] * len(questions)
