"""Three readings of the controlled language that share no code, on texts that need not be problems: the symbolic
verifier's, the executing one's, and the tests' own (tests/pipeline/domains/mini/oracle.py). They read the same texts,
and find the same answers."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
import sympy as sp

from actors.verifiers import mini
from actors.verifiers.mini import symbolic_program
from actors.verifiers.mini.compiler import compile_program
from actors.verifiers.mini.controlled import Reading, read
from actors.verifiers.mini.grammar import Fault, parse
from pipeline.domains.mini.domain import CATEGORIES, NAMES, RULES, THINGS
from pipeline.domains.mini.generate import combinations_of, draft
from pipeline.domains.mini.rules.base import UNITS
from tests.pipeline.domains.mini import oracle

UNREAD = "unread"


def symbolic(text):
    reading = read(text)
    if not isinstance(reading, Reading):
        return UNREAD
    return symbolic_program.derived([(c.rule, [sp.Integer(n) for n in c.numbers], c.unit) for c in reading.clauses])


def executing(text):
    sentences = parse(text)
    if isinstance(sentences, Fault):
        return UNREAD
    scope: dict = {}
    exec(compile_program(sentences), scope)
    return scope["outcome"](scope["GIVEN"], range(len(scope["STEPS"])))


def third(text):
    try:
        return oracle.solve(text)[0]
    except oracle.Bad:
        return None


def said(wording, rng):
    """A wording of the language with words and numbers put in, most of them the same throughout."""
    number = str(rng.choice((rng.randint(0, 12), rng.randint(0, 300), rng.randint(0, 9_999))))
    values = [str(rng.randint(0, 60)) for _ in range(rng.randint(2, 9))]
    slots = {
        "N": "Mia" if rng.random() < 0.95 else rng.choice(NAMES),
        "things": "coins" if rng.random() < 0.95 else rng.choice(THINGS),
        "a": number, "b": str(rng.randint(0, 40)), "unit": rng.choice(list(UNITS.values())),
        "list": f"{', '.join(values[:-1])} and {values[-1]}",
    }  # fmt: skip
    return wording.format(**slots)


def any_sentences(rng):
    """An opening, steps and a question; mostly of one category, so that more of them hold."""
    category = rng.choice((*CATEGORIES, *CATEGORIES, None))
    rules = [r for r in RULES if category in (None, r.category)]

    def one(role):
        return said(rng.choice(rng.choice([r for r in rules if r.role == role]).wordings), rng)

    return " ".join([one("opening"), *(one("step") for _ in range(rng.randint(0, 5))), one("question")])


STRANGE = ["\u200b", "٣", "  ", ".", "?", " ", "\n", "0", "9", "-", "s", "A", "²", "\u00a0", "thousand", "not ", "and "]


def damaged(rng):
    """A sound problem with something left out, doubled, put in or swapped."""
    text = draft(rng.choice(combinations_of(rng.choice(CATEGORIES), False, 3)), rng, 1).question
    for _ in range(rng.randint(1, 2)):
        at, kind = rng.randrange(len(text)), rng.randrange(6)
        words = text.split(" ")
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        if kind == 0:
            text = text[:at] + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + rng.choice(STRANGE) + text[at:]
        elif kind == 2:
            words[i], words[j] = words[j], words[i]
            text = " ".join(words)
        elif kind == 3:
            words.insert(i, words[j])
            text = " ".join(words)
        elif kind == 4:
            sentences = re.split(r"(?<=[.?]) ", text)
            rng.shuffle(sentences)
            text = " ".join(sentences)
        else:
            text = re.sub(r"\d+", lambda m: str(rng.choice((0, 1, 7, 10, 9_999, 12_345))), text, count=1)
    return text


def compare(n, seed):
    """How many of n texts had an answer; fails with the first on which the three differ."""
    rng = Random(seed)
    answered = 0
    for _ in range(n):
        text = any_sentences(rng) if rng.random() < 0.6 else damaged(rng)
        one, other, last = symbolic(text), executing(text), third(text)
        assert one == other, text
        assert (None if one == UNREAD else one) == last, text
        answered += last is not None
    return answered


def test_three_readings_agree_on_texts_sound_and_unsound():
    assert compare(400, 17) > 40


@pytest.mark.nightly
def test_three_readings_agree_on_many_texts():
    assert compare(12_000, 170) > 1_200


def test_the_readers_share_no_module():
    """What one verifier imports of the language's folder, the other does not."""

    def mine(module):
        source = (Path(mini.__file__).parent / f"{module}.py").read_text()
        named = re.findall(r"^from actors\.verifiers\.mini(?:\.(\w+))? import (.+)$", source, re.MULTILINE)
        direct = {name for module, names in named for name in ([module] if module else re.split(r", ", names))}
        return direct.union(*map(mine, direct)) if direct else set()

    assert mine("symbolic") == {"controlled"} and mine("executing") == {"grammar", "compiler"}
