"""Rewriting in the mini world: what a model does for free text, the language's own operations do here.

Invariant: a problem that is written here is sound and keeps the side of the held-out split that its seed is on; what
the language cannot say is no problem (`NONE`). Answers of rewritten problems are known; those of evolved ones are
worked out in the head, as the scripted teacher works out what it does not check, and so are often wrong.

The language has no unknowns, so a backward question is told backwards: it begins with the answer and undoes the steps.
Only what can be undone in it (`INVERSE`) has one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from actors.rewriting.wizardmath import DEPTH
from pipeline.domains.mini.combinations import is_heldout
from pipeline.domains.mini.domain import BY_ID, CATEGORIES, NAMES, RULES, THINGS
from pipeline.domains.mini.generate import LARGEST, STEPS, Sentence, Text, combinations_of, draft, evaluate, fill, read
from pipeline.records import Failure

OPENING = "Rewrite by "
PROMPTS: Mapping[str, str] = {
    **{f"metamath_{name}": f"{OPENING}{name}\n{{{{problem}}}}" for name in ("rephrase", "self_verification", "fobar")},
    **{f"wizardmath_{name}": f"{OPENING}{name}\n{{{{problem}}}}" for name in ("breadth", "downward")},
    "wizardmath_depth": f"{OPENING}depth\n{{{{method}}}}\n{{{{problem}}}}",
}
"""By role, as those of free text are."""
INVERSE = {"add": "subtract", "subtract": "add", "multiply": "share", "share": "multiply"}
_FILTERS = ("larger", "keep_even", "keep_above")
_TRIES = 40

Head = Callable[[Text, Random], str]
"""An answer that is worked out in the head."""


def reply(prompt: str, seed: int, head: Head) -> str:
    """The answer to a prompt of `PROMPTS`. Raises Failure for a problem that is not of the language."""
    name, _, rest = prompt.removeprefix(OPENING).partition("\n")
    method, _, shown = rest.rpartition("\n")
    operation = next((op for op, told in DEPTH.items() if told == method), name)
    text, rng = read(json.loads(shown)["question"]), Random(f"rewrite {operation} {seed} {shown}")
    if text is None or text.fault:
        raise Failure("the scripted teacher was asked to rewrite a problem that is not of the mini world's language")
    if operation in _REWRITES:
        new = _REWRITES[operation](text, rng)
        return _said(new, new.answer) if new else "NONE"
    new = _evolved(operation, text, rng)
    return _said(new, head(new, rng)) if new else "NONE"


def _said(text: Text, answer: str) -> str:
    said = {"question": text.question, "answer": answer, "answer_kind": text.answer_kind}
    return json.dumps(said)


# ---------------------------------------------------------------- MetaMath


def _rephrased(text: Text, rng: Random) -> Text:
    """Other wordings, where a sentence has some, another name and other things."""

    def other(s: Sentence) -> Sentence:
        wordings = [i for i in range(len(s.rule.wordings)) if i != s.wording]
        return Sentence(s.rule, rng.choice(wordings or [s.wording]), s.args)

    name, thing = (rng.choice([n for n in names if n != mine]) for names, mine in (
        (NAMES, text.name), (THINGS, text.thing)))  # fmt: skip
    return evaluate(name, thing, [other(s) for s in text.sentences])


def _backward(text: Text, rng: Random) -> Text | None:
    """The number at the start is asked for."""
    steps = _undone(text, 1)
    return None if steps is None else _told(text, steps, rng)


def _masked(text: Text, rng: Random) -> Text | None:
    """The number of a step is asked for: what follows is undone, then the value before it."""
    places = [i for i, s in enumerate(text.sentences) if s.rule.id in ("add", "multiply")]
    rng.shuffle(places)
    for place in places:
        steps, before = _undone(text, place + 1), text.values[place - 1]
        if steps is None or not isinstance(before, int):
            continue
        last = Sentence(BY_ID[INVERSE[text.sentences[place].rule.id]], 0, (before,))
        if (new := _told(text, [*steps, last], rng)) is not None:
            return new
    return None


def _undone(text: Text, first: int) -> list[Sentence] | None:
    """The steps from `first` on, undone from the last one back; None where one cannot be."""
    steps = text.sentences[first:-1]
    if text.sentences[0].rule.id != "things" or not all(s.rule.id in INVERSE for s in steps):
        return None
    return [Sentence(BY_ID[INVERSE[s.rule.id]], 0, s.args) for s in reversed(steps)]


def _told(text: Text, steps: Sequence[Sentence], rng: Random) -> Text | None:
    """A problem that begins with the answer."""
    end = text.values[-1]
    if not steps or not isinstance(end, int) or end > LARGEST:
        return None
    worded = [Sentence(s.rule, rng.randrange(len(s.rule.wordings)), s.args) for s in steps]
    asks = next(r for r in RULES if r.role == "question" and r.category == "maths" and not r.skill)
    opening, question = Sentence(BY_ID["things"], 0, (end,)), Sentence(asks, 0, ())
    return _kept(text, evaluate(text.name, text.thing, [opening, *worded, question]))


_REWRITES: Mapping[str, Callable[[Text, Random], Text | None]] = {
    "rephrase": _rephrased, "fobar": _backward, "self_verification": _masked,
}  # fmt: skip


# ---------------------------------------------------------------- WizardMath


def _evolved(operation: str, text: Text, rng: Random) -> Text | None:
    """The first of some tries that is a problem."""
    if operation == "breadth":
        return _beside(text, rng)
    level = 2 if operation == "complicate" else 1
    for _ in range(_TRIES):
        shape = _SHAPES[operation](list(text.sentences), rng)
        new = fill(shape, rng, level, text.name, text.thing) if shape and len(shape) - 2 <= STEPS else None
        if new is not None and _kept(text, new) is not None:
            return new
    return None


def _kept(text: Text, new: Text) -> Text | None:
    """The new one, where it is a sound problem of the same side that differs from the old one."""
    numbers = (int(n) for n in re.findall(r"\d+", new.question)) if not new.fault else ()
    sound = not new.fault and new.has_substance and all(n <= LARGEST for n in numbers)
    same = is_heldout(new.skills) == is_heldout(text.skills)
    return new if sound and same and new.question != text.question else None


Shape = list[Sentence]


def _step(rng: Random, category: str, among: Sequence[str] = ()) -> Sentence:
    """Without its numbers, which are drawn when the whole is filled in."""
    rules = [r for r in RULES if r.role == "step" and r.category == category and (not among or r.id in among)]
    rule = rng.choice(rules or [r for r in RULES if r.role == "step" and r.category == category])
    return Sentence(rule, rng.randrange(len(rule.wordings)), ())


def _longer(shape: Shape, rng: Random) -> Shape:
    shape.insert(rng.randint(1, len(shape) - 1), _step(rng, shape[0].rule.category))
    return shape


def _conditioned(shape: Shape, rng: Random) -> Shape:
    shape.insert(rng.randint(1, len(shape) - 1), _step(rng, shape[0].rule.category, _FILTERS))
    return shape


def _deeper(shape: Shape, rng: Random) -> Shape:
    """Something else is asked, of the same value or of one step further."""
    category = shape[0].rule.category
    questions = [r for r in RULES if r.role == "question" and r.category == category]
    asked = rng.choice(questions)
    further = [_step(rng, category)] if rng.random() < 0.5 else []
    return [*shape[:-1], *further, Sentence(asked, rng.randrange(len(asked.wordings)), ())]


def _other_step(shape: Shape, rng: Random) -> Shape | None:
    if len(shape) < 3:
        return None
    shape[rng.randrange(1, len(shape) - 1)] = _step(rng, shape[0].rule.category)
    return shape


def _richer(shape: Shape, rng: Random) -> Shape:
    return [Sentence(s.rule, s.wording, ()) for s in shape]


def _shorter(shape: Shape, rng: Random) -> Shape | None:
    if len(shape) < 4:
        return None
    del shape[rng.randrange(1, len(shape) - 1)]
    return shape


_SHAPES: Mapping[str, Callable[[Shape, Random], Shape | None]] = {
    "constrain": _conditioned, "deepen": _deeper, "concretize": _other_step, "reason": _longer,
    "complicate": _richer, "downward": _shorter,
}  # fmt: skip


def _beside(text: Text, rng: Random) -> Text | None:
    """Another combination of as many skills."""
    size = max(1, len(text.skills))
    pool = [c for c in combinations_of(text.category, is_heldout(text.skills)) if len(c) == size]
    for _ in range(_TRIES):
        new = draft(rng.choice(pool), rng)
        if _kept(text, new) is not None:
            return new
    return None


# ---------------------------------------------------------------- seeds


def seeds(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of seeds.jsonl: n distinct sound problems of combinations that are not held out, categories in turn;
    every second one of maths can be undone."""
    rng, seen = Random(f"seeds {seed}"), set[str]()
    while len(seen) < n:
        category = CATEGORIES[len(seen) % len(CATEGORIES)]
        pool = [c for c in combinations_of(category, False) if len(c) <= 3]
        if len(seen) % (2 * len(CATEGORIES)) == 0:
            pool = [c for c in pool if c <= INVERSE.keys()]
        text = draft(rng.choice(pool), rng, level=rng.choice((0, 1, 1, 2)), extra=rng.randrange(2))
        if text.has_substance and text.question not in seen:
            seen.add(text.question)
            yield {
                "question": text.question, "answer": text.answer, "answer_kind": text.answer_kind,
                "category": category,
            }  # fmt: skip
