"""Verifiers: one file each, and one entry in `pipeline.config.committee.VERIFIERS`.

Holds what a verifier is (`base`), those of the mini world's controlled language (`mini`) and those of free text
(`text`). May import the answers, the executor and the sandbox's vocabulary; must never know the committee that asks
them.
"""

from __future__ import annotations

from typing import Any

from actors.execution import Executor
from actors.verifiers.base import Verifier
from pipeline import config


def make(section: config.VerifierConfig, index: int, executor: Executor, solver: Any | None) -> Verifier:
    """The verifier of a config section; `index` tells two of one kind apart."""
    verifier: Verifier = section.load()(f"{section.kind}-{index}", section, executor, solver)
    return verifier
