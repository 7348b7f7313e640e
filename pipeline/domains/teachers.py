"""Which teacher a config names."""

from __future__ import annotations

from actors.teacher import OpenAITeacher, Teacher
from pipeline import config
from pipeline.domains.mini.teacher import ScriptedTeacher


def make_teacher(settings: config.ScriptedTeacher | config.OpenAITeacher) -> Teacher:
    if isinstance(settings, config.ScriptedTeacher):
        return ScriptedTeacher()
    return OpenAITeacher(settings)
