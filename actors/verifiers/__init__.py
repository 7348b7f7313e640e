"""Verifiers: one file each, and one entry in `pipeline.config.committee.VERIFIERS`.

Holds what a verifier is (`base`), those of the mini world's controlled language (`mini`), those of free text (`text`)
and a control that believes the writer (`author`). May import the answers, the executor and the sandbox's vocabulary;
must never know the committee that asks them.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.execution import Executor
from actors.verifiers.base import Solvers, Told, Verifier
from pipeline import config


def make(
    section: config.VerifierConfig,
    index: int | str,
    executor: Executor,
    solver: Solvers | None,
    prompts: Mapping[str, str] | None = None,
) -> Verifier:
    """The verifier of a config section; `index` tells two of one kind apart. `prompts`: what the domain tells
    the models of those that ask one."""
    verifier: Verifier = section.load()(f"{section.kind}-{index}", section, executor, solver)
    if prompts and isinstance(verifier, Told):
        verifier.tell(prompts)
    return verifier
