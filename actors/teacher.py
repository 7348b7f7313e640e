"""Teachers: a model behind an OpenAI-compatible endpoint or in a pool of ours, several mixed by weight, and the replica
that lets any teacher play the proposer. A proposer behind an endpoint is one that nobody learns from.

The replica consumes tasks and produces episodes for the caller and their rollouts for the sink, as the proposer's
replica does; only the turns come from a teacher's text, so it holds no engine and no weights. An episode waits for the
teacher and its sandbox session within its wall-clock limit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from actors.calls import within
from actors.chat import ChatFormat, Message
from actors.chat_templates import PlainText, chat_format
from actors.episode import KindOf, run_episode, turn_seed
from actors.guidance import TURN
from actors.openai_client import ChatClient
from actors.policies import Cut, TextPolicy
from actors.shipping import ship
from actors.tools import SandboxTools
from pipeline import config
from pipeline.records import Episode, Failure, Task


class Teacher(Protocol):
    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        """The teacher's next message. Raises Failure: infra_error if it cannot be reached."""
        ...


class OpenAITeacher:
    """Any OpenAI-compatible chat endpoint. Each turn of a conversation has a seed of its own: with one for all of them
    a weak model says the same again."""

    def __init__(self, settings: config.OpenAITeacherConfig):
        self._settings = settings
        self._client: ChatClient | None = None

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        return await self._ask(messages, seed, None)

    async def turn(self, messages: list[Message], seed: int = 0) -> str:
        """Its next turn in an episode."""
        return await self._ask(messages, seed, TURN if self._settings.guided else None)

    async def _ask(self, messages: list[Message], seed: int, regex: str | None) -> str:
        s = self._settings
        if self._client is None:  # made where it is used: a client does not travel between processes
            self._client = ChatClient.of(s, timeout_s=s.timeout_s, retries=s.retries)
        turn = sum(message["role"] == "assistant" for message in messages)
        seed = turn_seed(seed, 0, turn)
        return await self._client.complete(
            messages, temperature=s.temperature, max_tokens=s.max_tokens, seed=seed, regex=regex
        )


class PoolTeacher:
    """A model in a pool of the run's own engines (`Solver` replicas)."""

    def __init__(self, handle: Any, called: str, sampling: config.SamplingConfig, timeout_s: float):
        self._handle, self._called, self._sampling, self._timeout_s = handle, called, sampling, timeout_s

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        turn = sum(message["role"] == "assistant" for message in messages)
        asked = self._handle.reply.remote(messages, self._sampling, turn_seed(seed, 0, turn))
        text, cut = await within(asked, self._called, self._timeout_s)
        if cut:
            raise Failure(f"the reply was cut off at {self._sampling.max_tokens} tokens or the context", "model_error")
        if not text.strip():
            raise Failure("the reply holds no text", "model_error")
        return text


@dataclass(frozen=True)
class Teachers:
    """Several, mixed by weight. Who answers follows from a seed alone, so that it is the same on every run."""

    each: Sequence[Teacher]
    weights: Sequence[float]

    def pick(self, seed: int) -> Teacher:
        """Whose a document or an episode with this seed is."""
        return self.each[pick(self.weights, seed)]

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        """Of a call that belongs to neither."""
        return await self.pick(seed).complete(messages, seed)


def of(teacher: Teacher, seed: int) -> Teacher:
    """Whose a document or an episode with this seed is."""
    return teacher.pick(seed) if isinstance(teacher, Teachers) else teacher


def pick(weights: Sequence[float], seed: int) -> int:
    """The number of the one that a seed falls to; over seeds, each comes in proportion to its weight."""
    (n,) = Random(f"teacher {seed}").choices(range(len(weights)), weights)
    return n


class EndpointPolicy:
    """A proposer behind an endpoint, sampled as the run samples its proposer."""

    def __init__(self, endpoint: config.EndpointConfig, sampling: config.SamplingConfig):
        self._endpoint, self._sampling = endpoint, sampling
        self._client: ChatClient | None = None

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        reply = await self.turn(messages, seed)
        if isinstance(reply, Cut):
            raise Failure(f"the reply was cut off at {self._sampling.max_tokens} tokens", "model_error")
        return reply

    async def turn(self, messages: list[Message], seed: int = 0) -> str:
        """Its next turn in an episode; one that was cut off is a turn as far as it goes, as of an engine."""
        e, s = self._endpoint, self._sampling
        turn = sum(message["role"] == "assistant" for message in messages)
        if self._client is None:
            self._client = ChatClient.of(e, timeout_s=e.timeout_s, retries=e.retries)
        reply = await self._client.reply(
            messages,
            temperature=s.temperature,
            max_tokens=s.max_tokens,
            seed=turn_seed(seed, 0, turn),
            top_p=s.top_p,
        )
        if not reply.text.strip():
            raise Failure("the reply holds no text", "model_error")
        return Cut(reply.text) if reply.finish_reason == "length" else reply.text


class TeacherProposer:
    """Serve replica. `model_dir` is the student's, whose tokenizer gives the rollouts their tokens; None where nobody
    learns from them. `styles`: what a teacher is told of the style of its episode, style -> (share, words); the student
    does not read it."""

    def __init__(
        self,
        teacher: Teacher,
        model_dir: str | None,
        episode: config.EpisodeConfig,
        sandbox: Any,
        sink: Any,
        system_prompt: str,
        kind_of: KindOf,
        styles: Mapping[str, tuple[float, str]] | None = None,
    ):
        self._teacher, self._styles = teacher, styles or {}
        self._chat: ChatFormat = PlainText() if model_dir is None else chat_format(model_dir)
        self._limits = episode.limits
        self._sandbox = sandbox
        self._sink = sink
        self._prompt, self._kind_of = system_prompt, kind_of

    async def episode(self, task: Task, attempt: int) -> Episode:
        """Play a task. The rollout has reached the sink when this returns, unless there is nothing to train on."""
        teacher = of(self._teacher, task.seed)
        say = teacher.turn if isinstance(teacher, OpenAITeacher | EndpointPolicy) else teacher.complete
        words = in_style(self._styles, task.seed)
        policy = TextPolicy(lambda messages: say(told(messages, words), seed=task.seed), self._chat)
        tools = SandboxTools(self._sandbox)
        played, rollout = await run_episode(
            task, attempt, policy, tools, self._chat, self._prompt, self._limits, time.monotonic, self._kind_of
        )
        if played.outcome.kind in ("ok", "model_error"):
            await ship(self._sink, rollout)
        return played


def in_style(styles: Mapping[str, tuple[float, str]], seed: int) -> str:
    """What is said of the style of the episode with this seed; empty where styles are left to the teacher."""
    shares = [share for share, _ in styles.values()]
    if not any(shares):
        return ""
    (words,) = Random(f"style {seed}").choices([words for _, words in styles.values()], shares)
    return words


def told(messages: list[Message], words: str) -> list[Message]:
    """The conversation with `words` at the end of its system message."""
    if not words:
        return messages
    first, *others = messages
    return [{**first, "content": f"{first['content']}\n\n{words}"}, *others]
