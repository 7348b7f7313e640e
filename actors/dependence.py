"""Whether a check has to do with the problem: its code again, with other numbers.

The numbers of the problem that stand in the code are replaced, each by one other number wherever it occurs, but for
those that are the submitted answer itself, and for 0 and 1, which any code may hold. What prints the same whatever the
numbers were is no check of the problem (`print(7 + 0 * (12 * 31))`), nor is code that holds fewer than two thirds of
them (`print(7 + 0 * 0)`). Other numbers may break a condition of the code; only a run that ends well, with another
output, shows that the output depends on them.

Invariant: the agent sees nothing of these runs. What they cannot see: code that mixes the problem's numbers into a
result that it did not need them for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

from actors.answers.words import options
from pipeline.records import Problem, ToolResult

Run = Callable[[str], Awaitable[ToolResult]]
Number = int | float

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")


async def dependence(codes: Sequence[str], outputs: Sequence[str], problem: Problem, run: Run) -> list[bool | None]:
    """Of each code, in the order in which they ran in one session: does its output follow from the problem's numbers?

    None where the problem has none, or its answer is a program. Only the last line of an output counts, which holds the
    answer; numbers of options to choose from are not the problem's. Raises what `run` raises.
    """
    asked = options(problem.question)[0] if problem.answer_kind == "choice" else problem.question
    numbers = numbers_of(asked)
    fixed = {0, 1, *numbers_of(problem.answer)}
    if not numbers or problem.answer_kind == "code":
        return [None] * len(codes)
    found: list[bool | None] = [False] * len(codes)
    known: set[Number] = set()
    for i, code in enumerate(codes):
        known |= _literals(code)  # a later cell may use what an earlier one has set
        found[i] = None if 3 * len(known & set(numbers)) >= 2 * len(numbers) else False
    movable = [n for n in numbers if n in known and n not in fixed]
    for change in _changes(movable) if movable else ():
        for i, code in enumerate(codes):
            result = await run(_with(code, change))
            last = _last(result.content)
            if found[i] is None and result.status == "ok" and last and last != _last(outputs[i]):
                found[i] = True
        if None not in found:
            break
    return [bool(f) for f in found]


def _last(output: str) -> str:
    return output.rstrip().rpartition("\n")[2].strip()


def numbers_of(text: str) -> list[Number]:
    """The distinct numbers of a text, in their order."""
    found = (m.replace(",", "") for m in _NUMBER.findall(text))
    return list(dict.fromkeys(float(n) if "." in n else int(n) for n in found))


def _changes(numbers: Sequence[Number]) -> Iterable[dict[Number, Number]]:
    """Other numbers: all of them, or the first alone, which what is divided mostly begins with."""
    first = numbers[0]
    yield {n: n + 1 for n in numbers}
    yield {first: first * 60}
    yield {n: n * 3 + 7 for n in numbers}
    yield {first: first + 1}


def _literals(code: str) -> set[Number]:
    """Numbers that the code holds, in texts too. Parsed only, never run here."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[Number] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                found |= set(numbers_of(node.value))
            elif isinstance(node.value, int | float) and not isinstance(node.value, bool):
                found.add(node.value)
    return found


class _Replaced(ast.NodeTransformer):
    def __init__(self, change: dict[Number, Number]):
        self._change = change

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = node.value
        if isinstance(value, str):
            return ast.Constant(_NUMBER.sub(self._written, value))
        if isinstance(value, int | float) and not isinstance(value, bool) and value in self._change:
            return ast.Constant(self._change[value])
        return node

    def _written(self, match: re.Match[str]) -> str:
        (number,) = numbers_of(match[0])
        return str(self._change[number]) if number in self._change else match[0]


def _with(code: str, change: dict[Number, Number]) -> str:
    """The code with other numbers; as it stands where it is no Python."""
    try:
        return ast.unparse(_Replaced(change).visit(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
