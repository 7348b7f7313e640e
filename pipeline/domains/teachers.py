"""The teachers that a config can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.teacher import OpenAITeacher, PoolTeacher, Teacher, Teachers
from pipeline.config import (
    MixtureTeacherConfig,
    ModelTeacherConfig,
    OpenAITeacherConfig,
    ScriptedTeacherConfig,
    TeacherConfig,
)
from pipeline.domains.base import Domain

Pools = Mapping[str, Any]
"""Field of a teacher that is a model in a pool of ours -> the handle of that pool."""


def make_teacher(settings: TeacherConfig, domain: Domain, pools: Pools) -> Teacher:
    """The teacher of a config section. Raises Failure where the domain has none of its own and is asked for it."""
    teacher: Teacher = settings.load()(settings, domain, pools)
    return teacher


def scripted(settings: ScriptedTeacherConfig, domain: Domain, pools: Pools) -> Teacher:
    return domain.teacher()


def openai(settings: OpenAITeacherConfig, domain: Domain, pools: Pools) -> Teacher:
    return OpenAITeacher(settings)


def pooled(settings: ModelTeacherConfig, domain: Domain, pools: Pools) -> Teacher:
    return PoolTeacher(pools["teacher"], settings.called, settings.sampling, settings.timeout_s)


def mixed(settings: MixtureTeacherConfig, domain: Domain, pools: Pools) -> Teacher:
    each = settings.each()
    own = {field: {"teacher": pools[field]} if field in pools else {} for field in each}
    made = [make_teacher(section, domain, own[field]) for field, (_, section) in each.items()]
    return Teachers(made, [weight for weight, _ in each.values()])
