"""The adversary of the mini world: how attacks change and combine, and what is wrong with what gets through.

Invariant: a child is a function of its parents and the random generator.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from pipeline.domains.base import Attack
from pipeline.domains.mini import truth
from pipeline.domains.mini.attacks import FIRST, FORMS, STRANGE_NAMES, STRANGE_THINGS, answered, person
from pipeline.domains.mini.combinations import largest_feasible
from pipeline.domains.mini.defects import sentences_of
from pipeline.domains.mini.domain import NAMES, RULES, skills_in
from pipeline.domains.mini.generate import LARGEST, read
from pipeline.records import Failure, Problem


class MiniAdversary:
    def first(self, rng: Random, each: int) -> list[Attack]:
        return [replace(make(rng), kind=kind) for kind, make in FIRST.items() for _ in range(each)]

    def mutated(self, attack: Attack, rng: Random) -> Attack:
        changed = rng.choice(MUTATIONS)(attack, rng)
        return _child(attack, rng.choice(MUTATIONS)(changed, rng) if rng.random() < 0.3 else changed)

    def composed(self, one: Attack, other: Attack, rng: Random) -> Attack:
        """The problem of one, with what surrounds the other; or the steps of both, where they speak of the same."""
        if one.category == other.category and rng.random() < 0.5:
            first, second = sentences_of(one.question), sentences_of(other.question)
            cut, on = rng.randint(1, max(1, len(first) - 1)), rng.randint(1, max(1, len(second) - 1))
            return _child(one, answered(replace(one, question=" ".join([*first[:cut], *second[on:]]))))
        dropped = other.dropped if set(other.dropped) <= set(one.offered) else one.dropped
        return _child(
            other, replace(one, turns=other.turns, idle=other.idle, blameless=other.blameless, dropped=dropped)
        )

    def faults(self, attack: Attack, problem: Problem) -> frozenset[str]:
        return truth.faults(problem, attack.category, attack.offered)

    def reach(self, question: str) -> float:
        return truth.reach(question)

    def asks(self, question: str) -> str:
        return truth.asks(question)


def _child(parent: Attack, child: Attack) -> Attack:
    """An edit is without blame where the checks around it are those of its own problem."""
    same = (child.question, child.offered, child.dropped) == (parent.question, parent.offered, parent.dropped)
    return child if same else replace(child, blameless=())


# ---------------------------------------------------------------- changes


def _other_number(attack: Attack, rng: Random) -> Attack:
    numbers = list(re.finditer(r"\d+", attack.question))
    if not numbers:
        return attack
    m = rng.choice(numbers)
    new = rng.choice((0, 1, 2, int(m[0]) + 1, rng.randint(2, 20), rng.randint(100, 999), LARGEST))
    return answered(replace(attack, question=f"{attack.question[: m.start()]}{new}{attack.question[m.end() :]}"))


def _one_less(attack: Attack, rng: Random) -> Attack:
    sentences = sentences_of(attack.question)
    if len(sentences) <= 2:
        return attack
    del sentences[rng.randrange(1, len(sentences) - 1)]
    return answered(replace(attack, question=" ".join(sentences)))


def _one_more(attack: Attack, rng: Random) -> Attack:
    """A step more, of any category, with a number that may do nothing."""
    text = read(attack.question)
    rule = rng.choice([r for r in RULES if r.role == "step"])
    wording = rng.choice(rule.wordings)
    name = text.name if text and text.name else rng.choice(NAMES)
    step = wording.replace("{N}", name).replace("{a}", str(rng.choice((0, 1, 2, rng.randint(2, 60), LARGEST))))
    sentences = sentences_of(attack.question)
    sentences.insert(rng.randint(1, max(1, len(sentences) - 1)), step)
    return answered(replace(attack, question=" ".join(sentences)))


def _swapped(attack: Attack, rng: Random) -> Attack:
    sentences = sentences_of(attack.question)
    if len(sentences) < 4:
        return attack
    i = rng.randrange(1, len(sentences) - 2)
    sentences[i : i + 2] = sentences[i + 1], sentences[i]
    return answered(replace(attack, question=" ".join(sentences)))


def _renamed(attack: Attack, rng: Random) -> Attack:
    text = read(attack.question)
    if text is None or not text.name:
        return attack
    name, thing = rng.choice((person(rng), person(rng), (rng.choice(STRANGE_NAMES), rng.choice(STRANGE_THINGS))))
    question = re.sub(rf"\b{text.name}\b", name, attack.question)
    return replace(attack, question=re.sub(rf"\b{text.thing}\b", thing, question) if text.thing else question)


def _other_form(attack: Attack, rng: Random) -> Attack:
    if not re.fullmatch(r"\d+", attack.answer):
        return attack
    return replace(attack, answer=rng.choice(FORMS)(attack.answer))


def _other_offer(attack: Attack, rng: Random) -> Attack:
    """Another skill is offered beside, or none is kept, or one more is dropped."""
    way = rng.random()
    if way < 0.4:
        extra = rng.choice(skills_in(attack.category))
        return replace(attack, offered=tuple(sorted({*attack.offered, extra})))
    if way < 0.7:
        return replace(attack, dropped=attack.offered)
    fitting = rng.choice(largest_feasible(attack.offered) or [frozenset()])
    return replace(attack, dropped=tuple(s for s in attack.offered if s not in fitting))


def _other_question(attack: Attack, rng: Random) -> Attack:
    """An easier thing to ask of the same."""
    sentences = sentences_of(attack.question)
    asked = rng.choice(
        (
            "Is the number now even or odd?",
            f"Is the number now a multiple of {rng.randint(2, 9)}?",
            "What is the number now?",
            "What is the final value?",
            "What is the final list?",
        )
    )
    return answered(replace(attack, question=" ".join([*sentences[:-1], asked])))


def _fresh(attack: Attack, rng: Random) -> Attack:
    try:
        return replace(FIRST[attack.kind](rng), kind=attack.kind)
    except Failure:
        return attack


def _fitted(attack: Attack, rng: Random) -> Attack:
    """Just what the problem uses is offered: a writer that waits for the right task."""
    text = read(attack.question)
    if text is None or not text.skills:
        return attack
    return replace(attack, category=text.category, offered=tuple(sorted(text.skills)), dropped=())


MUTATIONS = (
    _other_number,
    _one_less,
    _one_more,
    _swapped,
    _renamed,
    _other_form,
    _other_offer,
    _other_question,
    _fresh,
    _fitted,
)
