"""Judges with stated errors behind one endpoint: it knows each problem's truth, reads our real prompts, and answers as
models do. And what theory says of a committee of them.

A judge errs on a problem, not on a reply: on a sound one it finds another answer (`slip`), or sees a fault that is
none (`alarm`, the reviewing model only); on a spoiled one it does not see what is wrong (`miss`). With probability
`shared` all judges err by one draw, else each by its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.actors.endpoint import chat, response
from tests.actors.text_bank import Item

JUDGES = ("plain", "symbolic", "reviewer", "auditor")
"""The names of the models at the endpoint: two that write programs, one that reviews, one for the second audit."""
SEEN_BY_PROGRAMS = {"missing_fact": "underspecified", "two_solutions": "ambiguous", "contradictory": "unsolvable"}
SEEN_BY_REVIEWERS = {"answer_leaked": "leaks_answer", "unused_skill": "off_task"}


@dataclass(frozen=True)
class Rates:
    slip: float = 0.0
    alarm: float = 0.0
    miss: float = 0.0
    shared: float = 0.0


States = tuple[str, ...]
"""Of each judge: right, slip, alarm or miss."""


def state(judge: str, item: Item, rates: Rates, draw: float) -> str:
    if item.defect:
        return "miss" if draw < rates.miss else "right"
    if draw < rates.slip:
        return "slip"
    return "alarm" if judge in ("reviewer", "auditor") and draw < rates.slip + rates.alarm else "right"


def drawn(item: Item, rates: Rates, seed: int) -> States:
    """What the judges make of a problem."""
    rng = Random(f"{seed} {item.problem.id} {item.defect}")
    common = rng.random()
    if rng.random() >= rates.shared:
        return tuple(state(judge, item, rates, rng.random()) for judge in JUDGES)
    return tuple(state(judge, item, rates, common) for judge in JUDGES)


def accepts(item: Item, states: States) -> bool:
    """PAPER's rule, in other words than the committee's: by class of defect, who must be wrong for an acceptance."""
    plain, symbolic, reviewer, auditor = (s == "right" for s in states)
    if not item.defect:  # one that differs is overruled by the auditor; an alarm is not
        return "alarm" not in states[:3] and (
            all((plain, symbolic, reviewer)) or (plain + symbolic + reviewer == 2 and auditor)
        )
    if item.defect in SEEN_BY_PROGRAMS:
        return not (plain or symbolic or reviewer)
    if item.defect in SEEN_BY_REVIEWERS:
        return not reviewer
    fooled = (not plain) + (not symbolic) + (not reviewer)
    return fooled == 3 or (fooled == 2 and not auditor)


def chance(item: Item, rates: Rates) -> float:
    """The probability that a committee of such judges accepts the problem."""
    total = 0.0
    for states, weight in _joint(item, rates):
        total += weight * accepts(item, states)
    return total


def _joint(item: Item, rates: Rates) -> Iterator[tuple[States, float]]:
    single = {judge: dict(_single(judge, item, rates)) for judge in JUDGES}
    for states in itertools.product(*(single[judge] for judge in JUDGES)):
        weight = 1.0 - rates.shared
        for judge, s in zip(JUDGES, states, strict=True):
            weight *= single[judge][s]
        yield states, weight
    cuts = sorted({0.0, rates.slip, rates.slip + rates.alarm, rates.miss, 1.0})
    for low, high in itertools.pairwise(cuts):
        yield tuple(state(judge, item, rates, (low + high) / 2) for judge in JUDGES), rates.shared * (high - low)


def _single(judge: str, item: Item, rates: Rates) -> Iterator[tuple[str, float]]:
    cuts = sorted({0.0, rates.slip, rates.slip + rates.alarm, rates.miss, 1.0})
    weights: dict[str, float] = {}
    for low, high in itertools.pairwise(cuts):
        s = state(judge, item, rates, (low + high) / 2)
        weights[s] = weights.get(s, 0.0) + high - low
    yield from weights.items()


# ---------------------------------------------------------------- what they say


class Judges:
    """The behaviour of the endpoint. Counts what it was asked, by model."""

    def __init__(self, items: Iterable[Item], rates: Rates, seed: int, noise: float = 0.0):
        """`noise`: how often the first of three replies is none."""
        self.known = {item.problem.question: item for item in items}
        self._rates, self._seed, self._noise = rates, seed, noise
        self.asked: Counter[str] = Counter()
        self.first: Counter[bool] = Counter()
        """First replies of three, by whether they were none."""

    async def __call__(self, n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(response(chat(self.reply(body))))

    def reply(self, body: dict[str, Any]) -> str:
        """What the model says that a request's body names."""
        system, shown = (message["content"] for message in body["messages"])
        item = self.known[shown.split(">>\n", 1)[1].split("\n<<end ", 1)[0]]
        judge, seed = body["model"], body["seed"]
        self.asked[judge] += 1
        said = drawn(item, self._rates, self._seed)[JUDGES.index(judge)]
        rng = Random(f"{judge} {seed} {item.problem.id}")
        if judge in ("plain", "symbolic"):
            text = _program(item, said, rng)
        elif system.startswith(("You review", "You settle")):
            text = _review(item, said, rng)
        else:
            text = _solution(item, said, rng)
        if seed % 3 == 0:
            none = rng.random() < self._noise
            self.first[none] += 1
            if none:
                text = rng.choice(["I cannot help with that.", "```\n", "<think>Let me see", '{"vote": '])
        return text


def _other(item: Item) -> str:
    """An answer that is not the right one."""
    answer = item.truth
    flipped = {"Yes": "No", "No": "Yes", "A": "B", "B": "C", "C": "A"}
    return flipped.get(answer) or str(int(answer.partition("/")[0]) + 17)


def _found(item: Item, said: str) -> str:
    """The answer that the judge believes in."""
    if said == "miss":
        return item.problem.answer
    if said == "slip":
        return _other(item)
    if item.defect == "unit":
        return f"{item.truth} {_asked_unit(item)}"
    return item.truth


def _asked_unit(item: Item) -> str:
    last = item.problem.question.rstrip("?？")
    return "公里" if "公里" in last else last.rpartition("How many ")[2].split()[0] if "How many " in last else "kg"


def _program(item: Item, said: str, rng: Random) -> str:
    if item.problem.answer_kind == "code":
        code = item.problem.answer if said == "miss" else item.truth
        code = f"{code}\n{_broken(item)}" if said == "slip" else code
    elif said == "right" and (flag := SEEN_BY_PROGRAMS.get(item.defect)):
        code = f"def solve():\n    {_fault(item, flag, rng)}"
    elif said == "right" and item.defect != "unit":
        code = item.program
    else:
        answer = _found(item, said)
        body = rng.choice([f"return [{answer!r}]", f"return {answer!r}", f"return {{'answers': [{answer!r}]}}"])
        code = f"def solve():\n    {body}"
    block = f"```{rng.choice(['python', 'py', ''])}\n{code}\n```"
    before = rng.choice(
        ["", "Let me think.\n\n", "<think>maybe ```python\nprint(1)\n``` no</think>", "Here is the program:\n"]
    )
    return before + block + rng.choice(["", "\nIt returns the answer.", "\n```output\n3\n```"])


def _broken(item: Item) -> str:
    """A function of the same name, that gives something else."""
    entry = json.loads(item.problem.checks[0])["entry"]
    return f"def {entry}(*given):\n    return 'nothing of the kind'"


def _fault(item: Item, flag: str, rng: Random) -> str:
    if flag == "underspecified":
        return "raise ValueError('underspecified: a quantity is missing')"
    if flag == "unsolvable":
        return rng.choice(["return []", "raise ValueError('unsolvable: no answer satisfies it')"])
    other = _other(item)
    return rng.choice([f"return [{item.truth!r}, {other!r}]", "raise ValueError('ambiguous: two readings')"])


def _solution(item: Item, said: str, rng: Random) -> str:
    if item.problem.answer_kind == "code":
        return _program(item, said, rng)
    none = said == "right" and item.defect in SEEN_BY_PROGRAMS
    answer = "ill-posed" if none else _found(item, said)
    box = rng.choice([rf"\boxed{{{answer}}}", rf"$$\boxed{{{answer}}}$$", rf"**\boxed{{ {answer} }}**."])
    return f"I go through it step by step; ${{a}}$ and \\frac{{1}}{{2}} come up.\nThe answer is {box}"


def _review(item: Item, said: str, rng: Random) -> str:
    flag = {**SEEN_BY_PROGRAMS, **SEEN_BY_REVIEWERS}.get(item.defect) if said == "right" else None
    flag = "ambiguous" if said == "alarm" else flag
    flags: Any = [flag] if flag else rng.choice([[], None, ["none"], ["well_written"]])
    reply = {
        "vote": rng.choice([0, "0", False]) if flag else rng.choice([1, "1", True]),
        "flags": flags,
        "used_skills": list(item.active[:-1] if flag == "off_task" else item.active),
        "category": rng.choice(["maths", "Maths", "science"]),
        "on_task": flag != "off_task",
        "rationale": "Because $\\frac{1}{2}$ of it follows.",
    }
    text = json.dumps(reply)
    if rng.random() < 0.3:
        text = text.replace("\\\\frac", "\\frac")  # one backslash, as models write it
    before = rng.choice(["I reason first {as one does}.\n", '<think>hm {"vote": 1}</think>', ""])
    return before + rng.choice([text, f"```json\n{text}\n```", f"{text}\nThat is all."])
