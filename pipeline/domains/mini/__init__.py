"""The mini world: real parts, small everything. LANGUAGE.md is its language, README.md its figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from actors.verifiers.mini.controlled import Reading, read
from pipeline.domains.base import Adversary, Domain, Identity, Planted, Prompts, Sound
from pipeline.domains.mini import rewriting
from pipeline.domains.mini.adversary import MiniAdversary
from pipeline.domains.mini.combinations import is_heldout
from pipeline.domains.mini.defects import plant, sound_problems
from pipeline.domains.mini.domain import CATEGORIES
from pipeline.domains.mini.lessons import PROPOSER_SYSTEM, SOLVER_SYSTEM
from pipeline.domains.mini.meaning import identity, twins
from pipeline.domains.mini.teacher import ScriptedTeacher
from pipeline.records import AnswerKind
from pipeline.skills.extraction import QA_PROMPT, TEXT_PROMPT

if TYPE_CHECKING:
    from actors.teacher import Teacher  # brings Ray, which looking at a domain does not need

_HERE = Path(__file__).parent


class MiniDomain(Domain):
    categories = CATEGORIES
    prompts = Prompts(
        QA_PROMPT,
        TEXT_PROMPT,
        PROPOSER_SYSTEM,
        SOLVER_SYSTEM,
        rewriting=rewriting.PROMPTS,
        extractor="Skills of this text:\n{{text}}",
    )
    bundled: ClassVar[Mapping[str, Path]] = {
        "mini:proposer": _HERE / "models" / "proposer",
        "mini:solver": _HERE / "models" / "solver",
        "mini:corpus": _HERE / "corpus",
        "mini:heldout": _HERE / "heldout.jsonl",
        "mini:seeds": _HERE / "seeds.jsonl",
    }

    def answer_kind(self, question: str) -> AnswerKind:
        reading = read(question)
        return reading.answer_kind if isinstance(reading, Reading) else "math"

    def is_heldout(self, skills: Collection[str]) -> bool:
        return is_heldout(skills)

    def identity(self, question: str) -> Identity | None:
        return identity(question)

    def twins(self, question: str) -> Sequence[tuple[str, str]]:
        return twins(question)

    def teacher(self) -> Teacher:
        return ScriptedTeacher()

    def sound_problems(self, n: int, seed: int) -> list[Sound]:
        return sound_problems(n, seed)

    def adversary(self) -> Adversary:
        return MiniAdversary()

    def build(self, out: Path, seed: int, scale: float, threads: int, say: Callable[[str], None]) -> None:
        from pipeline.domains.mini.build import build  # brings torch

        build(out, seed=seed, scale=scale, threads=threads, say=say)

    def plant(self, sound: Sequence[Sound], seed: int) -> list[Planted]:
        return plant(sound, seed)
