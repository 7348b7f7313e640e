"""The teachers that a config can name."""

from __future__ import annotations

from actors.teacher import OpenAITeacher, Teacher
from pipeline.config import OpenAITeacherConfig, ScriptedTeacherConfig, TeacherConfig
from pipeline.domains.base import Domain


def make_teacher(settings: TeacherConfig, domain: Domain) -> Teacher:
    """The teacher of a config section. Raises Failure where the domain has none of its own and is asked for it."""
    teacher: Teacher = settings.load()(settings, domain)
    return teacher


def scripted(settings: ScriptedTeacherConfig, domain: Domain) -> Teacher:
    return domain.teacher()


def openai(settings: OpenAITeacherConfig, domain: Domain) -> Teacher:
    return OpenAITeacher(settings)
