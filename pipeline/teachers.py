"""Which teacher a config names."""

from __future__ import annotations

from typing import Protocol

from actors.chat import Message
from actors.teacher import OpenAITeacher
from pipeline import config
from pipeline.mini.teacher import ScriptedTeacher


class Teacher(Protocol):
    async def complete(self, messages: list[Message], seed: int = 0) -> str:
        """The teacher's next message. Raises Failure: infra_error if it cannot be reached."""
        ...


def make_teacher(settings: config.ScriptedTeacher | config.OpenAITeacher) -> Teacher:
    if isinstance(settings, config.ScriptedTeacher):
        return ScriptedTeacher()
    return OpenAITeacher(settings)
