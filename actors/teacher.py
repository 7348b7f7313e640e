"""Teachers: a model behind an OpenAI-compatible endpoint, and the replica that lets any teacher play the proposer. A
proposer behind an endpoint is one that nobody learns from.

The replica consumes tasks and produces episodes for the caller and their rollouts for the sink, as the proposer's
replica does; only the turns come from a teacher's text, so it holds no engine and no weights. An episode waits for the
teacher and its sandbox session within its wall-clock limit.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from actors.chat import ChatFormat, Message
from actors.chat_templates import PlainText, chat_format
from actors.episode import KindOf, run_episode, turn_seed
from actors.guidance import TURN
from actors.openai_client import ChatClient
from actors.policies import TextPolicy
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


class EndpointPolicy:
    """A proposer behind an endpoint, sampled as the run samples its proposer."""

    def __init__(self, endpoint: config.EndpointConfig, sampling: config.SamplingConfig):
        self._endpoint, self._sampling = endpoint, sampling
        self._client: ChatClient | None = None

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
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
        return reply.text


class TeacherProposer:
    """Serve replica. `model_dir` is the student's, whose tokenizer gives the rollouts their tokens; None where nobody
    learns from them."""

    def __init__(
        self,
        teacher: Teacher,
        model_dir: str | None,
        episode: config.EpisodeConfig,
        sandbox: Any,
        sink: Any,
        system_prompt: str,
        kind_of: KindOf,
    ):
        self._teacher = teacher
        self._chat: ChatFormat = PlainText() if model_dir is None else chat_format(model_dir)
        self._limits = episode.limits
        self._sandbox = sandbox
        self._sink = sink
        self._prompt, self._kind_of = system_prompt, kind_of

    async def episode(self, task: Task, attempt: int) -> Episode:
        """Play a task. The rollout has reached the sink when this returns, unless there is nothing to train on."""
        say = self._teacher.turn if isinstance(self._teacher, OpenAITeacher) else self._teacher.complete
        policy = TextPolicy(lambda messages: say(messages, seed=task.seed), self._chat)
        tools = SandboxTools(self._sandbox)
        played, rollout = await run_episode(
            task, attempt, policy, tools, self._chat, self._prompt, self._limits, time.monotonic, self._kind_of
        )
        if played.outcome.kind in ("ok", "model_error"):
            await ship(self._sink, rollout)
        return played
