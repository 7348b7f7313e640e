"""The registry of languages beside Python, each with what turns its source into a binary on this machine.

Invariant: a language is a row of stages, each of them *one* program that reads one file, writes one file and starts no
other. So a compiler runs behind the walls of every run, which forbid new processes, and so does the binary. The
binary is static: it needs no file of the system, and can open none.

A new language is one function here and one entry in `LANGUAGES`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_ASK_S = 20.0


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


def cpp() -> Toolchain:
    """C++20 by g++, asked which programs it would run and where it looks. Raises Missing."""
    driver = shutil.which("g++")
    if driver is None:
        raise Missing(_CPP_MISSING)
    linker = _program(_ask(driver, "-print-prog-name=ld").strip())
    plan = _ask(driver, "-###", *_CPP_FLAGS, "-x", "c++", "main.cpp", "-o", "main")
    commands = [shlex.split(line) for line in plan.splitlines() if line.startswith(" ")]
    outputs = {argv[argv.index("-o") + 1] for argv in commands if "-o" in argv}
    names = {path: "main" + os.path.splitext(path)[1] for path in outputs}  # g++ names what lies between at random
    if not commands or len(outputs) != len(commands):
        raise Missing(f"c++: {driver} does not say how it compiles; {_CPP_MISSING}")
    stages: list[Stage] = []
    for tool, *arguments in commands:
        if os.path.basename(tool) == "collect2":  # it would start the linker as a second process
            tool, arguments = linker, [word for word in arguments if not word.startswith("-fno-")]
        words = [names.get(word, word) for word in arguments]
        source = stages[-1].output if stages else "main.cpp"
        stages.append(Stage(_program(tool), (tool, *words), source, words[words.index("-o") + 1]))
    searched = _ask(driver, "-E", "-v", "-x", "c++", "/dev/null").partition("search starts here:\n")[2]
    includes = [line.strip() for line in searched.partition("End of search list")[0].splitlines() if line[:1] == " "]
    objects = [word for word in commands[-1] if word.endswith(".o") and word not in outputs]
    folders = {os.path.dirname(os.path.realpath(path)) for path in objects}
    libraries, loaders = _needed(stage.tool for stage in stages)
    here = (path for path in (*includes, *sorted(folders), *sorted(libraries)) if os.path.exists(path))
    return Toolchain(tuple(stages), tuple(dict.fromkeys(map(_spelled, here))), tuple(map(_spelled, loaders)))


_CPP_FLAGS = ("-std=gnu++20", "-O2", "-static", "-no-pie", "-fno-pie", "-fno-lto", "-fmax-errors=5")
_CPP_MISSING = (
    "c++: no compiler; install g++ where the sandbox runs (Debian, Ubuntu: apt install g++; Fedora: dnf install "
    "gcc-c++ glibc-static libstdc++-static)"
)

LANGUAGES: dict[str, Callable[[], Toolchain]] = {"c++": cpp}


@functools.cache
def toolchain(language: str) -> Toolchain:
    """Raises Missing."""
    return LANGUAGES[language]()


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


def _ask(*command: str) -> str:
    """What a trusted tool says, on either stream; empty if it fails."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": "/tmp"}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", cwd="/", env=environment, timeout=_ASK_S, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Missing(f"c++: {name or 'a linker'} is not installed; install binutils and g++ where the sandbox runs")
    return os.path.realpath(path)


def _needed(tools: Iterable[str]) -> tuple[set[str], set[str]]:
    """The shared libraries of programs, and their loaders."""
    libraries: set[str] = set()
    loaders: set[str] = set()
    for tool in tools:
        said = _ask("ldd", tool)
        libraries |= set(re.findall(r"=> (/\S+)", said))
        loaders |= set(re.findall(r"^\s*(/\S+) \(0x", said, re.MULTILINE))
    return libraries, loaders


def _spelled(path: str) -> str:
    """A path whose folders are no links, though its last part may be one: the name under which it is looked for."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(folder), name)
