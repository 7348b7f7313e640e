"""Admission of skills to the library: each script is run once, where programs run, before an agent is offered it.

Invariant: a script that does not run, or defines nothing, is reported with the reason; its skill stays, without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.sandbox_pool import PACKAGES
from actors.scripts import names
from pipeline.config import SandboxConfig
from pipeline.records import Skill
from sandbox import Limits, Request, SandboxUnavailable, Slot


@dataclass(frozen=True)
class Admission:
    skills: tuple[Skill, ...]
    refused: dict[str, str]
    """Skill id -> why its script was left out."""
    untried: str = ""
    """Why no script could be run here, if none could."""


def admit(skills: Iterable[Skill], settings: SandboxConfig) -> Admission:
    """The skills with the scripts that run. Waits for the sandbox, at most `wall_s` a script."""
    skills = tuple(skills)
    if not any(skill.script for skill in skills):
        return Admission(skills, {})
    limits = Limits(wall_s=settings.wall_s, cpu_s=settings.cpu_s, memory_mb=settings.memory_mb)
    refused: dict[str, str] = {}
    try:
        with Slot(settings.minimum, limits, packages=PACKAGES) as slot:
            for skill in skills:
                if skill.script and (why := _fault(slot, skill.script)):
                    refused[skill.id] = why
    except SandboxUnavailable as e:
        return Admission(skills, {}, str(e))
    kept = (skill.model_copy(update={"script": None}) if skill.id in refused else skill for skill in skills)
    return Admission(tuple(kept), refused)


def _fault(slot: Slot, script: str) -> str:
    result = slot.run(Request(script))
    if not result.ok:
        return f"{result.status}: {result.reason}"
    found = names(script)
    return "" if found and found.defined else "it defines nothing"
