# ruff: noqa: E501 - a problem to a line
"""Free-text problems with known truth: some written for this, with a program each; CHAMP's and HumanEval's from their
packages. `spoiled` has the text domain's own rules spoil them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from random import Random

from pipeline.domains.text.defects import plant
from pipeline.records import Problem
from tests.actors import test_human_eval as human_eval

WRITTEN = (
    (
        "A shop sells pens at {a} euros each and folders at {b} euros each. Mia buys {c} pens and twice as many folders. How many euros does she pay in all?",
        "{a} * {c} + {b} * 2 * {c}",
    ),
    (
        "A train covers {a} kilometres in {c} hours at constant speed. Then it rests, and covers the same distance at half that speed. How many hours does it move in all?",
        "3 * {c}",
    ),
    (
        "A tank holds {a} litres. A pump takes out {b} litres a minute, while a leak adds {c} litres an hour. After one hour of pumping with a large enough tank refilled at will, how many litres has the pump moved?",
        "60 * {b}",
    ),
    (
        "The digits of {a} are written down, and behind them those of {b}. By what is the sum of all these digits larger than {c} - 1?",
        "sum(int(d) for d in str({a}) + str({b})) - ({c} - 1)",
    ),
    ("What is the remainder of {a} times {b} when it is divided by {c} + 4?", "({a} * {b}) % ({c} + 4)"),
    (
        "How many integers from 1 to {a} are divisible by {c} or by {b}?",
        "sum(n % {c} == 0 or n % {b} == 0 for n in range(1, {a} + 1))",
    ),
    (
        "How many ways are there to choose {c} books out of {b}, if one of the books must be among them?",
        "__import__('math').comb({b} - 1, {c} - 1)",
    ),
    ("The sum of two numbers is {a}, and their difference is {b}. What is twice the larger number?", "{a} + {b}"),
    (
        "A block of {a} grams is cut into {c} equal parts, and each part is weighed on a scale that shows {b} grams too much. How many grams do all readings add up to?",
        "{a} + {c} * {b}",
    ),
    (
        "A cyclist rides {c} hours at {b} kilometres an hour and then {c} hours at twice that speed. How many kilometres has he ridden?",
        "3 * {c} * {b}",
    ),
    (
        "A list holds all multiples of {c} below {a}. How long is the list, if 0 is not in it?",
        "len(range({c}, {a}, {c}))",
    ),
    (
        "A rectangle is {b} cm long and {c} cm wide. Its length grows by {c} cm. How many square centimetres does its area grow by?",
        "{c} * {c}",
    ),
    ("The first term of a sequence is {c}, and each next term is {b} larger. What is the tenth term?", "{c} + 9 * {b}"),
    (
        "The first term of a sequence is {c}, and each next term is twice the one before. What is the sum of its first five terms?",
        "31 * {c}",
    ),
    (
        "A spring is stretched by 2 cm for each newton. It hangs with {c} newtons, then {b} newtons are added. By how many centimetres is it stretched then?",
        "2 * ({c} + {b})",
    ),
    (
        "A resistor of {b} ohms and one of {c} ohms are in series. A current of 2 amperes flows. How many volts lie across both?",
        "2 * ({b} + {c})",
    ),
    (
        "A car brakes from {b} metres per second to rest in {c} seconds, evenly. How many metres does it need, times two?",
        "{b} * {c}",
    ),
    (
        "In a class of {a} pupils, {b} play chess and {c} play go; nobody plays both. How many play neither?",
        "{a} - {b} - {c}",
    ),
    (
        "A machine prints {b} pages a minute and pauses one minute after every {c} minutes of printing. How many pages has it printed after 3 such rounds?",
        "3 * {b} * {c}",
    ),
    ("What is the largest number below {a} that is divisible by {b}?", "max(n for n in range({a}) if n % {b} == 0)"),
    (
        "A word of {c} letters is written {b} times in a row without blanks. How many pairs of neighbouring letters does the row have?",
        "{b} * {c} - 1",
    ),
    ("Let f(x) = {c}x + {b}. What is f(f(2))?", "{c} * ({c} * 2 + {b}) + {b}"),
    (
        "What is the smallest number above {a} that leaves the remainder 1 when it is divided by {c}?",
        "next(n for n in range({a} + 1, 2 * {a} + 99) if n % {c} == 1)",
    ),
    (
        "A solution of {a} grams has {c} percent of salt. Then {b} grams of salt are added. How many grams of salt are in it, times 100?",
        "{a} * {c} + 100 * {b}",
    ),
    (
        "There are {b} red and {c} blue balls in a box. Two are drawn without looking, and not put back. How many ordered draws give two colours?",
        "2 * {b} * {c}",
    ),
    (
        "一列火车以每小时{b}公里的速度行驶{c}小时，然后以两倍的速度再行驶{c}小时。火车一共行驶了多少公里？",
        "3 * {b} * {c}",
    ),
    ("小明有{a}个苹果，每天吃{c}个，{b}除以{c}取整天之后还剩多少个？", "{a} - ({b} // {c}) * {c}"),
    ("Eine Kiste wiegt {b} kg, eine zweite {c} kg mehr. Wie viele kg wiegen beide zusammen?", "2 * {b} + {c}"),
)
"""(statement, expression of its answer) for a > b > c."""

CHOICES = (
    ("Which of these numbers is prime?\n(A) 51\n(B) 57\n(C) 59\n(D) 63", "C"),
    ("Which unit measures a force?\n(A) joule\n(B) newton\n(C) watt\n(D) pascal", "B"),
    ("A stack receives 1, 2, 3 and gives two of them back. Which one is left?\n(A) 1\n(B) 2\n(C) 3", "A"),
    ("Which sum is the largest?\n(A) 17 + 25\n(B) 19 + 22\n(C) 31 + 12\n(D) 20 + 21", "C"),
    ("Which gas do plants take up for photosynthesis?\n(A) oxygen\n(B) nitrogen\n(C) carbon dioxide\n(D) helium", "C"),
    ("Which of these sorts is stable as it is usually written?\n(A) quicksort\n(B) heapsort\n(C) merge sort", "C"),
    ("Which fraction lies between one third and one half?\n(A) 2/5\n(B) 3/5\n(C) 1/4\n(D) 5/9", "A"),
    ("Which number of edges has a tree with 12 vertices?\n(A) 10\n(B) 11\n(C) 12\n(D) 66", "B"),
)


@dataclass(frozen=True)
class Item:
    problem: Problem
    active: tuple[str, ...]
    truth: str
    """The right answer; of a code problem its right program."""
    defect: str = ""
    program: str = ""
    """That computes the right answer; of code problems the right answer itself."""


def written() -> list[Item]:
    found = []
    for i, (statement, expression) in enumerate(WRITTEN):
        for a, b, c in ((90 + 7 * i, 11 + i, 3), (210 + i, 23 + 2 * i, 5)):
            places = {"a": a, "b": b, "c": c}
            code = expression.format(**places)
            answer = str(eval(code))  # ours, from above
            program = f"def solve():\n    return [str({code})]"
            found.append(Item(Problem.make(statement.format(**places), answer), ("arithmetic",), answer, "", program))
    for question, letter in CHOICES:
        program = f"def solve():\n    return [{letter!r}]"
        found.append(Item(Problem.make(question, letter, "choice"), ("reading",), letter, "", program))
    return found


def champ() -> list[Item]:
    """Those whose answer is a number, or yes or no."""
    package = find_spec("champ_dataset")  # its data alone are wanted, and what it imports is not installed
    assert package is not None and package.origin is not None
    data = json.loads((Path(package.origin).parent / "dataset_files" / "v0.json").read_text(encoding="utf-8"))
    found = []
    for row in data["problems"].values():
        answer = str(row["_answer"]).strip()
        if re.fullmatch(r"-?\d{1,9}(?:/\d+)?|Yes|No", answer):
            program = f"def solve():\n    return [{answer!r}]"
            skill = row["category"].lower().replace("-", "_")
            found.append(Item(Problem.make(row["_text"], answer), (skill,), answer, "", program))
    return found


def programs() -> list[Item]:
    """HumanEval, those whose tests are calls with a literal result."""
    found = []
    for row in human_eval.problems():
        checks, after = human_eval.as_ours(row)
        expected = {json.dumps(json.loads(check)["expected"]) for check in checks}
        if after or len(checks) < 3 or len(expected) < 2:
            continue
        program = f"{row['prompt']}{row['canonical_solution']}"
        question = f"Write the function `{row['entry_point']}` as its description says.\n\n{row['prompt'].strip()}"
        found.append(Item(Problem.make(question, program, "code", checks), ("programming",), program, "", program))
    return found


def bank(n: int, seed: int) -> list[Item]:
    """n sound problems of all sources, in a fixed order."""
    rng = Random(seed)
    sources = [written(), champ(), programs()]
    for source in sources:
        rng.shuffle(source)
    found: dict[str, Item] = {}
    while len(found) < n and any(sources):
        for source in sources:
            if source and len(found) < n:
                item = source.pop()
                found[item.problem.id] = item
    assert len(found) == n
    return list(found.values())


def spoiled(items: list[Item], seed: int) -> list[Item]:
    planted = plant([(item.problem, item.active) for item in items], seed)
    by_place = dict(zip((item.problem.id for item in items), items, strict=True))
    assert len(planted) == len(items) == len(by_place)
    return [
        replace(item, problem=p.problem, active=p.active, defect=p.defect)
        for item, p in zip(items, planted, strict=True)
    ]
