"""A verifier, an objective, a domain and a language as somebody would add them: a file, and its entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.config import DomainConfig, ObjectiveConfig, VerifierConfig

Put = Callable[[str, str], Path]
"""(module, source) -> the file that now holds it, as if it lay in the module's package."""

VERIFIER = '''
from pipeline.records import Vote


class Echo:
    """Finds a problem valid that holds a word."""

    derived = True

    def __init__(self, name, section, executor, solver):
        self.name, self.timeout_s, self.word = name, section.timeout_s, section.word

    async def vote(self, problem, trace, active, attempt):
        return Vote(verifier=self.name, valid=self.word in problem.question, answer=problem.answer)
'''


class EchoConfig(VerifierConfig):
    implementation: ClassVar[str] = "actors.verifiers.text.echo:Echo"
    kind: Literal["echo"] = "echo"
    timeout_s: float = 5
    word: str


OBJECTIVE = '''
from trainers.objectives.base import Objective


class Even(Objective):
    """Every token counts by its trajectory's reward alone."""

    needs_reference = whole_step = False

    def __init__(self, config):
        self.scale = config.scale

    def _weights(self, step, logp_K, ref_K, totals, all_reduce):
        return self.scale * step.reward_S[step.seq_K]

    def diagnostics(self, step, logp_N, weight_N):
        return {}
'''


class EvenConfig(ObjectiveConfig):
    implementation: ClassVar[str] = "trainers.objectives.even:Even"
    name: Literal["even"] = "even"
    scale: float = 1.0


DOMAIN = """
from pipeline.domains.base import Domain, Prompts


class Riddles(Domain):
    categories = ("animals", "weather")
    prompts = Prompts("{{form}} {{text}}", "{{form}} {{text}}", "Ask a riddle.", "Solve it.")
"""

DEFAULTS = """
proposer: {path: models/riddler}
teacher: {kind: openai, base_url: "http://localhost:1/v1", model: m}
acquire: {corpus: [riddles.md]}
committee: {verifiers: [{kind: model}, {kind: model}], allow_same_model: true}
prober: {n: 6, k: 3, ladder: [{path: models/guesser}]}
solve: {base: {path: models/guesser}}
evaluate: {benchmark: riddles.jsonl}
mgpo: {steps: 7, groups: 5}
"""


def riddles_config(package: Path) -> type[DomainConfig]:
    class RiddlesConfig(DomainConfig):
        implementation: ClassVar[str] = "pipeline.domains.riddles:Riddles"
        defaults: ClassVar[Path] = package / "defaults.yaml"
        kind: Literal["riddles"] = "riddles"

    return RiddlesConfig


LANGUAGE = '''
from . import gcc
from .toolchains import Language

_FLAGS = ("-O1", "-static", "-no-pie", "-fno-pie", "-fno-lto")
_ATTACKS = """
#include <stdio.h>
#include <unistd.h>
int main(void) { if (fork() >= 0) puts("fork"); if (fopen("/etc/passwd", "r")) puts("read"); puts("42"); }
"""

PLAIN = Language(lambda: gcc.toolchain("c", "gcc", "main.c", _FLAGS, "c: no compiler; install gcc"), _ATTACKS)
'''
