"""What a domain is: everything that the pipeline asks of one, beside the data of its `defaults.yaml`.

Invariant: nothing outside a domain's package knows what is in it. Verifiers, models, corpus, benchmark, sizes, rates
and limits of a domain are data, laid under what the user wrote (`pipeline.config`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from actors import prompts
from actors.tool_calls import render
from pipeline.config import DomainConfig, Style
from pipeline.domains import hub
from pipeline.records import ANSWER_KINDS, AnswerKind, Failure, Problem
from pipeline.skills import replies, rubric

if TYPE_CHECKING:
    from actors.teacher import Teacher  # brings Ray, which looking at a domain does not need

Sound = tuple[Problem, tuple[str, ...]]
"""A problem and the skills that were active when it was submitted."""


@dataclass(frozen=True)
class Planted:
    """A sound problem, spoiled in a known way."""

    defect: str
    problem: Problem
    active: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """What makes a problem the same as another one."""

    meaning: str
    """Equal where the two ask the same."""
    skeleton: str
    """The meaning without its numbers."""


@dataclass(frozen=True)
class Attack:
    """What an agent that optimises could do: an episode as it writes it, and what it deserves."""

    kind: str
    """What it descends from in the first generation."""
    category: str
    offered: tuple[str, ...]
    """Ids of the skills."""
    question: str
    answer: str
    dropped: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    """Texts of the turns before the submission (and after the edit that drops skills)."""
    idle: tuple[int, ...] = ()
    """Turns that deserve no process reward above 0."""
    blameless: tuple[int, ...] = ()
    """Turns that deserve none below 0."""

    def texts(self) -> list[str]:
        """All that the agent writes: the edit, if there is one, the turns, the submission."""
        edits = ["## Draft\n" + render("edit", {"drop": list(self.dropped), "add": []})] if self.dropped else []
        submission = "## Finalize\n" + render("submit", {"question": self.question, "answer": self.answer})
        return [*edits, *self.turns, submission]


class Adversary(Protocol):
    """A domain's knowledge of how it could be exploited, and of the truth. It shares no code with the verifiers."""

    def first(self, rng: Random, each: int) -> list[Attack]:
        """The first generation: so many of each kind of exploit that was ever found."""
        ...

    def mutated(self, attack: Attack, rng: Random) -> Attack: ...

    def composed(self, one: Attack, other: Attack, rng: Random) -> Attack: ...

    def faults(self, attack: Attack, problem: Problem) -> frozenset[str]:
        """What is wrong with a problem that was accepted, as it would be exported."""
        ...

    def reach(self, question: str) -> float:
        """How often a capable solver gets the question right, guesses put aside."""
        ...

    def asks(self, question: str) -> str:
        """The same for copies, told by other means than `Domain.identity`."""
        ...


@dataclass(frozen=True)
class Prompts:
    """What models are told, by role. Texts with `{{places}}` are filled by who uses them (`actors.prompts`)."""

    questions: str
    """Asks a teacher for the skills behind questions with their answers: has the places form and text."""
    prose: str
    """Asks a teacher for the skills that a text explains or uses: the same."""
    proposer: str
    """What a proposer is told whose model directory has no prompt of its own."""
    solver: str
    """The same for a solver."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Everything that the domain says in files, by file name: solver_<kind of answer>, the judges' and the verifiers'
    prompts; empty where the domain has no such files."""
    rubric: str = rubric.PROMPT
    """Asks for the score of a skill: has the places skill and text."""
    rewriting: Mapping[str, str] = field(default_factory=dict)
    """Asks a teacher to write a problem from another one, by algorithm and operation (actors/rewriting/): places
    problem and, in depth, method. Empty: problems of the domain are not rewritten."""
    extractor: str = ""
    """Asks a model that has learned to extract, and needs no form: has the place text. Empty: as a teacher is asked."""

    def solvers(self) -> dict[AnswerKind, str]:
        """What a solver is told for each kind of answer."""
        return {kind: self.roles.get(f"solver_{kind}", self.solver) for kind in ANSWER_KINDS}

    def digests(self) -> dict[str, str]:
        """Of each prompt, what tells it from another text."""
        own = {"questions": self.questions, "prose": self.prose, "proposer": self.proposer, "solver": self.solver}
        return prompts.digests(dict(self.roles) or own)

    def extraction(self, kind: Literal["qa", "text"], learned: bool = False) -> str:
        """The template for a document of this kind, for a teacher or for who has `learned` from one."""
        if learned and self.extractor:
            return self.extractor
        return self.questions if kind == "qa" else self.prose

    def styles(self, shares: Mapping[Style, float]) -> dict[str, tuple[float, str]]:
        """Style of an expert trajectory -> its share, and what a teacher is told of it; none that the domain has no
        words for."""
        told = {style: self.roles.get(f"style_{style}", "") for style in shares}
        return {style: (shares[style], words) for style, words in told.items() if words}


class Domain:
    """A domain overrides what it has; what is here holds for one that has nothing of the kind."""

    categories: tuple[str, ...]
    """Of skills and problems."""
    prompts: Prompts
    bundled: ClassVar[Mapping[str, Path]] = {}
    """Models, corpora and benchmarks that come with the domain, by the name that a config gives them."""

    def __init__(self, settings: DomainConfig):
        self.settings = settings

    @cached_property
    def shown(self) -> frozenset[tuple[str, str]]:
        """(id, intent) of the skills that the extraction prompts show, which some teachers hand back."""
        prompts = (self.prompts.questions, self.prompts.prose)
        return frozenset((s.id, s.intent) for prompt in prompts for s in replies.read(prompt, "the prompt").skills)

    def resolve(self, name: str) -> Path:
        """Where a model, corpus or benchmark of the config lies: a bundled one, or a path. Raises Failure for one that
        is not there."""
        if not name.strip():
            raise Failure(f"{name!r}: no path; expected a file or folder, or one of {', '.join(self.bundled)}")
        path = self.bundled.get(name, Path(name))
        try:
            found = path.exists()
        except OSError as e:
            raise Failure(f"{name}: {e.strerror}; expected a readable file or folder") from None
        if not found:
            bundled = f"; bundled are {', '.join(self.bundled)}" if self.bundled else ""
            raise Failure(f"{name}: no such file or folder{bundled}")
        return path

    def model(self, name: str, download: bool = True) -> Path:
        """Where a model of the config lies: as `resolve` finds it, or by its name on the Hub. One that is not in the
        Hub's cache is downloaded, or is a Failure without `download`. Raises Failure for one that is nowhere."""
        if not self.on_the_hub(name):
            return self.resolve(name).absolute()  # replicas have another working directory
        if (folder := hub.cached(name)) is not None:
            return folder
        if not download:
            raise Failure(f"{name}: not downloaded yet")
        return hub.download(name)

    def on_the_hub(self, name: str) -> bool:
        """Whether a model is meant by its name on the Hub: nothing lies here under that name."""
        return name not in self.bundled and hub.is_name(name) and not os.path.lexists(name)

    def answer_kind(self, question: str) -> AnswerKind:
        """The kind of answer that a question asks for, where its writer does not say it."""
        return "math"

    def is_heldout(self, skills: Collection[str]) -> bool:
        """Whether this set of skills is never offered, so that problems of it can measure what was learned."""
        return False

    def identity(self, question: str) -> Identity | None:
        """What a question means; None where the domain cannot tell, and its words decide (scoring/identity.py)."""
        return None

    def twins(self, question: str) -> Sequence[tuple[str, str]]:
        """The question with other numbers, some dozens of times, each with its answer. Empty where the domain cannot
        make any."""
        return []

    def teacher(self) -> Teacher:
        """The domain's own teacher. Raises Failure where it has none."""
        raise Failure("teacher.kind scripted: this domain has no teacher of its own; expected openai")

    def sound_problems(self, n: int, seed: int) -> list[Sound]:
        """n distinct problems that are sound by construction. Raises Failure where the domain cannot make any."""
        raise Failure(
            "audit-verifiers: this domain makes no problems that are known to be sound; expected --from FILE, a .jsonl "
            "file with question and answer a line"
        )

    def build(self, out: Path, seed: int, scale: float, threads: int, say: Callable[[str], None]) -> None:
        """Train the bundled models again, from scratch, into folder `out`; `scale` shortens it. Raises Failure where
        the domain bundles none."""
        raise Failure("this domain bundles no models")

    def adversary(self) -> Adversary:
        """Raises Failure where the domain knows no truth to hold the judges against."""
        raise Failure("audit-verifiers --adversary: this domain knows no truth about a problem; expected domain mini")

    def plant(self, sound: Sequence[Sound], seed: int) -> list[Planted]:
        """As many problems as `sound`, each one of them spoiled in a known way. Raises Failure where the domain knows
        no way."""
        raise Failure("committee.spot_checks: this domain knows no way to spoil a problem; expected 0")

    async def plant_by_model(
        self, sound: Sequence[Sound], teacher: Teacher, seed: int
    ) -> tuple[list[Planted], dict[str, int]]:
        """Problems that a model has spoiled, asked for one defect each, and by reason how many it has not. Raises
        Failure where the domain has no words to ask for that."""
        raise Failure("audit-verifiers --by-model: this domain asks no model to spoil problems; expected domain text")
