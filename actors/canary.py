"""Canaries: secret answers, planted where an answer stands, that no prompt of a judge or a solver may hold.

`plant` gives a problem a secret as its answer; nobody writes such a text by chance. `refuse` stands where prompts leave
for a model, at the client of the endpoints and at the replica that answers questions: a prompt that holds a canary is
not sent. So it is one check whatever way an answer takes, and one that costs real problems nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from pipeline.records import Episode, Halt, Problem

_CANARY = re.compile(r"canary[0-9a-f]{24}")


class Leak(Halt):
    """A prompt would have shown an answer to somebody who must not see it."""


def secret(seed: object) -> str:
    return "canary" + hashlib.sha256(str(seed).encode()).hexdigest()[:24]


def plant(problem: Problem, seed: object) -> Problem:
    """The problem with a secret as its answer, and for one whose answer is a program in its tests too."""
    answer = secret(seed)
    checks = tuple(f'{{"stdin": "", "stdout": "{answer}"}}' for _ in problem.checks)
    return problem.model_copy(update={"answer": answer, "checks": checks})


def planted(episode: Episode, seed: object) -> Episode:
    """The episode as if it had submitted the secret: in its problem, and in the turn that handed it in."""
    assert episode.submitted is not None
    problem = plant(episode.submitted, seed)
    said = f"{problem.question} {problem.answer}"
    turns = tuple(t.model_copy(update={"text": said}) if t.action == "submit" else t for t in episode.turns)
    return episode.model_copy(update={"submitted": problem, "turns": turns})


def refuse(texts: Iterable[str]) -> None:
    """Raises Leak where one of these texts, on the way to a model, holds a canary."""
    for text in texts:
        if found := _CANARY.search(text):
            around = text[max(0, found.start() - 60) : found.start()].replace("\n", " ")
            raise Leak(f"a prompt holds the answer of its problem, after {around!r}; it was not sent")
