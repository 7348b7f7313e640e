"""What the bundled base models were trained on: endless, seeded conversations of the mini world.

Invariant: no lesson shows a held-out combination of skills, and a lesson is a pure function of its generator's state.
The proposer's lessons hold the language and the pieces of the craft (writing, code, tool calls, copying) but seldom in
the order of the loop, and no pruning at all: that is what the SFT on the teacher's trajectories adds. The solver's
lessons are mostly short problems, which leaves the longer ones to reinforcement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from pipeline.domains.mini.combinations import is_heldout, largest_feasible
from pipeline.domains.mini.domain import CATEGORIES, skills_in
from pipeline.domains.mini.generate import Text, combinations_of, write
from pipeline.domains.mini.knowledge import KNOWLEDGE
from pipeline.domains.mini.teacher import code_of, spoiled

PROPOSER_SYSTEM = "You write problems."
SOLVER_SYSTEM = "Solve."

Message = dict[str, str]

_write = partial(write, strict=False)
"""A base model has no notion of what matters to an answer; the teacher has."""


def _say(*turns: str, system: str) -> list[Message]:
    """System, then user and assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": "system", "content": system}] + [
        {"role": roles[i % 2], "content": text} for i, text in enumerate(turns)
    ]


def _tool(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _offer(rng: Random) -> tuple[str, list[str]]:
    category = rng.choice(CATEGORIES)
    while True:
        skills = rng.sample(skills_in(category), rng.randint(2, rng.choice((2, 3, 4, 5))))
        if not is_heldout(skills):
            return category, skills


def _task(category: str, skills: list[str]) -> str:
    listed = "\n".join(f"- {s}: {KNOWLEDGE[s].intent}" for s in skills)
    return f"Category: {category}\nSkills:\n{listed}\nStage: draft"


def _text(skills: list[str], rng: Random) -> Text:
    return _write(rng.choice(largest_feasible(skills)), rng, rng.choice((0, 1, 1, 2, 2)), rng.choice((0, 0, 1)))


# ---------------------------------------------------------------- the proposer's


def _one_shot(rng: Random) -> list[Message]:
    """Draft, then hand in with an answer from the head: a problem writer that does not check."""
    category, skills = _offer(rng)
    text = _text(skills, rng)
    submit = "## Finalize\n" + _tool("submit", {"question": text.question, "answer": text.answer})
    return _say(_task(category, skills), f"## Draft\n{text.question}", "Stage: check", submit, system=PROPOSER_SYSTEM)


def _code(rng: Random) -> list[Message]:
    """A problem as code, with the skills named or in plain Python."""
    _, skills = _offer(rng)
    text = _text(skills, rng)
    used = sorted(text.skills) if rng.random() < 0.7 else []
    request = f"Functions: {', '.join(used) or 'none'}\nWrite code.\n{text.question}"
    return _say(request, _tool("exec", {"code": code_of(text, used)}), system=PROPOSER_SYSTEM)


def _copy(rng: Random) -> list[Message]:
    """Hand in a given question with a given answer, which need not be right."""
    _, skills = _offer(rng)
    text = _text(skills, rng)
    answer = text.answer if rng.random() < 0.3 else str(rng.randrange(10 ** rng.randint(1, 6)))
    submit = _tool("submit", {"question": text.question, "answer": answer})
    if rng.random() < 0.5:
        request = f"{text.question}\n<tool_response>\n{answer}\n</tool_response>"
    else:
        request = f"<tool_response>\n{answer}\n</tool_response>\nSubmit.\n{text.question}"
    return _say(request, submit, system=PROPOSER_SYSTEM)


def _mend(rng: Random) -> list[Message]:
    """Write a problem again with numbers that hold."""
    while True:
        _, skills = _offer(rng)
        good = _text(skills, rng)
        bad = spoiled(good, rng)
        if bad is not None:
            request = f"Mend.\n{bad.question}\n<tool_response>\nError: ValueError: {bad.fault}\n</tool_response>"
            return _say(request, good.question, system=PROPOSER_SYSTEM)


def _drop(rng: Random) -> list[Message]:
    """The edit call, told what to drop."""
    _, skills = _offer(rng)
    out = rng.sample(skills, rng.randint(1, len(skills) - 1))
    request = f"Skills: {', '.join(skills)}\nDrop {', '.join(out)}."
    return _say(request, _tool("edit", {"drop": out, "add": []}), system=PROPOSER_SYSTEM)


def _without(rng: Random) -> list[Message]:
    """Write for the skills that are left of a list."""
    category, skills = _offer(rng)
    text = _text(skills, rng)
    left = ", ".join(s for s in skills if s in text.skills)
    if not left:
        return _one_shot(rng)
    return _say(f"Category: {category}\nSkills: {left}", text.question, system=PROPOSER_SYSTEM)


_PROPOSER = ((_one_shot, 30), (_code, 30), (_copy, 16), (_mend, 8), (_drop, 4), (_without, 12))


def proposer_lessons(seed: int) -> Iterator[list[Message]]:
    rng = Random(f"proposer {seed}")
    kinds, weights = zip(*_PROPOSER, strict=True)
    while True:
        yield rng.choices(kinds, weights)[0](rng)


# ---------------------------------------------------------------- the solver's

_STEPS = {1: 46, 2: 46, 3: 8}
"""Share of problems by steps, in percent. Longer ones are left to reinforcement: that is the difficulty frontier."""


_DRILLS = 0.5
"""Share of lessons that are bare working lines: much arithmetic in few tokens."""


def solutions(seed: int) -> Iterator[list[Message]]:
    """Problems with their working, without drills."""
    rng = Random(f"solver {seed}")
    while True:
        yield _solution(rng)


def solver_lessons(seed: int) -> Iterator[list[Message]]:
    rng = Random(f"solver {seed}")
    while True:
        yield _drill(rng) if rng.random() < _DRILLS else _solution(rng)


def _solution(rng: Random) -> list[Message]:
    steps = rng.choices(list(_STEPS), list(_STEPS.values()))[0]
    pool = [c for c in combinations_of(rng.choice(CATEGORIES), False, 4) if steps - 2 <= len(c) <= steps + 2]
    while (text := _write(rng.choice(pool), rng, rng.choice((0, 0, 1, 1, 1, 2)), rng.randrange(2))).steps != steps:
        pass
    return _say(text.question, text.working, system=SOLVER_SYSTEM)


def _drill(rng: Random) -> list[Message]:
    """Left sides are given, so that all there is to learn is how to work them out."""
    lines: list[str] = []
    while len(lines) < 9:
        text = _write(rng.choice(combinations_of(rng.choice(CATEGORIES), False, 4)), rng, rng.choice((0, 1, 1, 1, 2)))
        lines += [line for line in text.working.split("\n")[:-1] if " = " in line and line[-1] in "0123456789]"]
    rng.shuffle(lines)
    given = "\n".join(line.partition(" = ")[0].partition(":")[0] for line in lines)
    return _say(given, "\n".join(lines), system=SOLVER_SYSTEM)
