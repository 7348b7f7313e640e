"""What a language beside Python is: what turns its source into a binary on this machine, and what attacks its walls.

Invariant: a language is a row of stages, each of them *one* program that reads one file, writes one file and starts no
other. So a compiler runs behind the walls of every run, which forbid new processes, and so does the binary. The
binary is static: it needs no file of the system, and can open none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


class Missing(Exception):
    """This machine cannot compile a language; the message says what to install."""


@dataclass(frozen=True)
class Stage:
    tool: str
    """The program's path, no symbolic link."""
    argv: tuple[str, ...]
    source: str
    """Name of the file that it reads, in scratch."""
    output: str
    """Name of the file that it writes, in scratch."""


@dataclass(frozen=True)
class Toolchain:
    stages: tuple[Stage, ...]
    readable: tuple[str, ...]
    """What the stages read: headers, libraries to link, the tools' own shared libraries."""
    loaders: tuple[str, ...]
    """What the kernel starts a tool with."""


@dataclass(frozen=True)
class Language:
    toolchain: Callable[[], Toolchain]
    """Looks for it on this machine. Raises Missing."""
    attacks: str
    """A program that prints `42`, and before it a line for each attack on its walls that succeeded."""


def spelled(path: str) -> str:
    """A path whose folders are no links, though its last part may be one: the name under which it is looked for."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(folder), name)
