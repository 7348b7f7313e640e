"""Teachers: a model behind an OpenAI-compatible endpoint, and the replica that lets any teacher play the proposer.

The replica consumes tasks and produces episodes for the caller and their rollouts for the sink, as the proposer's
replica does; only the turns come from a teacher's text, so it holds no engine and no weights. An episode waits for the
teacher and its sandbox session within its wall-clock limit.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from actors.chat import ChatFormat, Message
from actors.episode import KindOf, run_episode
from actors.openai_client import ChatClient
from actors.policies import TextPolicy
from actors.shipping import ship
from actors.tools import SandboxTools
from pipeline import config
from pipeline.records import Episode, Task


class Teacher(Protocol):
    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        """The teacher's next message. Raises Failure: infra_error if it cannot be reached."""
        ...


class OpenAITeacher:
    """Any OpenAI-compatible chat endpoint."""

    def __init__(self, settings: config.OpenAITeacherConfig):
        self._settings = settings
        self._client: ChatClient | None = None

    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        s = self._settings
        if self._client is None:  # made where it is used: a client does not travel between processes
            self._client = ChatClient.of(s, timeout_s=s.timeout_s, retries=s.retries)
        return await self._client.complete(messages, temperature=s.temperature, max_tokens=s.max_tokens, seed=seed)


class TeacherProposer:
    """Serve replica. `model_dir` is the student's: its tokenizer gives the rollouts their tokens."""

    def __init__(
        self,
        teacher: Teacher,
        model_dir: str,
        episode: config.EpisodeConfig,
        sandbox: Any,
        sink: Any,
        system_prompt: str,
        kind_of: KindOf,
    ):
        self._teacher = teacher
        self._chat = ChatFormat(model_dir)
        self._limits = episode.limits
        self._sandbox = sandbox
        self._sink = sink
        self._prompt, self._kind_of = system_prompt, kind_of

    async def episode(self, task: Task, attempt: int) -> Episode:
        """Play a task. The rollout has reached the sink when this returns, unless there is nothing to train on."""
        policy = TextPolicy(lambda messages: self._teacher.complete(messages, seed=task.seed), self._chat)
        tools = SandboxTools(self._sandbox)
        played, rollout = await run_episode(
            task, attempt, policy, tools, self._chat, self._prompt, self._limits, time.monotonic, self._kind_of
        )
        if played.outcome.kind in ("ok", "model_error"):
            await ship(self._sink, rollout)
        return played
