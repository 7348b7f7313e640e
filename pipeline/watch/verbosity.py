"""How much a command says on stderr. The command line sets it once, before anything is started.

quiet: errors alone · normal: what each stage does · verbose: also what Ray and its processes log.
"""

from __future__ import annotations

import enum


class Verbosity(enum.IntEnum):
    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_chosen = Verbosity.NORMAL


def choose(verbosity: Verbosity) -> None:
    global _chosen
    _chosen = verbosity


def quiet() -> bool:
    return _chosen == Verbosity.QUIET


def verbose() -> bool:
    return _chosen == Verbosity.VERBOSE
