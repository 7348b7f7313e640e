"""Admission of skills to the library: each script is run where programs run, on its self-test, before an agent is
offered it. The self-test is what the docstrings of the script hold in doctest's form.

Invariant: a skill whose script does not run, defines nothing, fails its self-test, or lacks one where that is asked, is
refused with the reason and with what the program said; where nothing can be run, that is said, and nobody is refused.
"""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from actors.sandbox_pool import PACKAGES
from actors.scripts import names
from pipeline.config import SandboxConfig
from pipeline.records import Skill
from sandbox import Limits, Request, Result, SandboxUnavailable, Slot

SelfTest = Literal["required", "optional"]
_SAID = 600
"""Characters of a program's output that a reason quotes."""
_HARNESS = """

def _run_self_test(documents):
    import doctest, io
    failed = []
    for name, text in documents:
        said = io.StringIO()
        test = doctest.DocTestParser().get_doctest(text, dict(globals()), name, None, 0)
        doctest.DocTestRunner(verbose=False).run(test, out=said.write)
        if said.getvalue():
            failed.append([name, said.getvalue()])
    return failed
"""


@dataclass(frozen=True)
class Admission:
    skills: tuple[Skill, ...]
    refused: dict[str, str]
    """Skill id -> why, with the output."""
    untried: str = ""
    """Why no script could be run here, if none could."""


def admit(skills: Iterable[Skill], settings: SandboxConfig, self_test: SelfTest = "required") -> Admission:
    """The skills without those whose scripts are refused. Waits for the sandbox, at most `wall_s` a script."""
    skills = tuple(skills)
    found = try_scripts({skill.id: skill.script for skill in skills if skill.script}, settings)
    if isinstance(found, str):
        return Admission(skills, {}, found)
    refused = {id: why for id, tried in found.items() if (why := tried.refusal(self_test))}
    return Admission(tuple(skill for skill in skills if skill.id not in refused), refused)


@dataclass(frozen=True)
class Tried:
    """What became of a script."""

    fault: str
    """Why it did not come to its end, or that it defines nothing; empty if neither."""
    failed: str
    """What its self-test says; empty where all is as it says, or it has none."""
    tests: bool
    """Whether it has a self-test."""
    printed: str
    """What it says when it is loaded."""

    def refusal(self, self_test: SelfTest) -> str:
        if self.fault or self.failed:
            return self.fault or f"its self-test fails: {self.failed}"
        if self.tests or self_test == "optional":
            return ""
        return "it has no self-test; expected an example in a docstring (>>> a call, and what it gives a line below)"


def try_scripts(scripts: dict[str, str], settings: SandboxConfig) -> dict[str, Tried] | str:
    """Each script, run; or why none can be run here."""
    if not scripts:
        return {}
    limits = Limits(wall_s=settings.wall_s, cpu_s=settings.cpu_s, memory_mb=settings.memory_mb)
    try:
        with Slot(settings.minimum, limits, packages=PACKAGES) as slot:
            return {id: _tried(slot, script) for id, script in scripts.items()}
    except SandboxUnavailable as e:
        return str(e)


def _tried(slot: Slot, script: str) -> Tried:
    tests = list(self_tests(script))
    result = slot.run(Request(f"{script}\n{_HARNESS}", entry="_run_self_test", args=(tests,)))
    if not result.ok:
        loaded = slot.run(Request(script)) if tests else result
        if not loaded.ok:
            return Tried(_output(loaded), "", bool(tests), "")
        return Tried("", _output(result), True, loaded.stdout)
    found = names(script)
    fault = "" if found and found.defined else "it defines nothing"
    failed = result.value if isinstance(result.value, list) else [["", "it ended before its self-test"]]
    return Tried(fault, _quoted("\n".join(str(said) for _, said in failed)), bool(tests), result.stdout)


def self_tests(script: str) -> Iterator[tuple[str, str]]:
    """(name, docstring) of what a script defines, and of itself, where the docstring holds an example."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node) or ""
            try:
                examples = doctest.DocTestParser().get_examples(text)
            except ValueError:  # written wrongly, which running it says
                yield getattr(node, "name", "script"), text
                continue
            if examples:
                yield getattr(node, "name", "script"), text


def _output(result: Result) -> str:
    said = _quoted(result.stdout or result.stderr)
    return f"{result.status}: {result.reason}" + (f"; it said: {said}" if said else "")


def _quoted(text: str) -> str:
    """On one line."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip("* \t")]
    joined = " / ".join(lines)
    return joined if len(joined) <= _SAID else f"{joined[:_SAID]}…"
