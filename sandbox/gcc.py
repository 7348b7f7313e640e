"""Toolchains of GCC: a driver is asked which programs it would run, and where it looks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable

from .toolchains import Missing, Stage, Toolchain, spelled

_ASK_S = 20.0


def toolchain(name: str, driver: str, source: str, flags: tuple[str, ...], missing: str) -> Toolchain:
    """Of the language that `driver` calls `name`; `source` is the file that it compiles. Raises Missing, which says
    `missing` where there is no driver."""
    compiler = shutil.which(driver)
    if compiler is None:
        raise Missing(missing)
    linker = _program(name, _ask(compiler, "-print-prog-name=ld").strip())
    plan = _ask(compiler, "-###", *flags, "-x", name, source, "-o", "main")
    commands = [shlex.split(line) for line in plan.splitlines() if line.startswith(" ")]
    outputs = {argv[argv.index("-o") + 1] for argv in commands if "-o" in argv}
    names = {path: "main" + os.path.splitext(path)[1] for path in outputs}  # GCC names what lies between at random
    if not commands or len(outputs) != len(commands):
        raise Missing(f"{name}: {compiler} does not say how it compiles; {missing}")
    stages: list[Stage] = []
    for tool, *arguments in commands:
        if os.path.basename(tool) == "collect2":  # it would start the linker as a second process
            tool, arguments = linker, [word for word in arguments if not word.startswith("-fno-")]
        words = [names.get(word, word) for word in arguments]
        read = stages[-1].output if stages else source
        stages.append(Stage(_program(name, tool), (tool, *words), read, words[words.index("-o") + 1]))
    searched = _ask(compiler, "-E", "-v", "-x", name, "/dev/null").partition("search starts here:\n")[2]
    includes = [line.strip() for line in searched.partition("End of search list")[0].splitlines() if line[:1] == " "]
    linked = [path for word in commands[-1] if word not in outputs for path in _linked(compiler, word)]
    libraries, loaders = _needed(stage.tool for stage in stages)
    here = (path for path in (*includes, *linked, *sorted(libraries)) if os.path.exists(path))
    return Toolchain(tuple(stages), tuple(dict.fromkeys(map(spelled, here))), tuple(map(spelled, loaders)))


def _linked(compiler: str, word: str) -> list[str]:
    """The files that the linker reads for one of its arguments."""
    if not word.startswith("-l"):
        return [word] if os.path.isabs(word) and os.path.isfile(word) else []
    archive = _ask(compiler, f"-print-file-name=lib{word[2:]}.a").strip()
    if not os.path.isfile(archive):
        return []
    with open(archive, "rb") as file:
        script = b"" if file.read(8) == b"!<arch>\n" else file.read(4096)  # it may name other archives
    return [archive, *re.findall(r"/\S+\.a\b", script.decode(errors="replace"))]


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


def _program(language: str, name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{language}: {name or 'a linker'} is not installed; install binutils where the sandbox runs")
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
