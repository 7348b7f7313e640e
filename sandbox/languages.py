"""The registry of languages beside Python. A new language is one file, as `cpp` is, and one entry in `LANGUAGES`."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from .cpp import CPP
from .toolchains import Language, Missing, Stage, Toolchain

LANGUAGES: dict[str, Language] = {"c++": CPP}


@functools.cache
def toolchain(language: str) -> Toolchain:
    """Raises Missing."""
    return LANGUAGES[language].toolchain()


def found() -> dict[str, Toolchain]:
    """The languages that this machine has the tools for."""
    have = {}
    for language in LANGUAGES:
        with contextlib.suppress(Missing):
            have[language] = toolchain(language)
    return have


def received(said: dict[str, Any]) -> dict[str, Toolchain]:
    """Toolchains as JSON has them."""
    return {
        name: Toolchain(tuple(Stage(**stage) for stage in chain["stages"]), chain["readable"], chain["loaders"])
        for name, chain in said.items()
    }
