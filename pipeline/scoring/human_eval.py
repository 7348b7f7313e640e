"""The tests of HumanEval as checks: each assert of `check(candidate)` that is a call with plain values becomes one.

Invariant: the text is parsed and never run. A task is taken only if all of its asserts can be read, so that passing its
checks means passing its tests.
"""

from __future__ import annotations

import ast
import operator
from typing import Any


def calls(test: str, entry: str) -> list[dict[str, Any]] | None:
    """The checks of a task, or None where one of its tests is anything else than a call with plain values."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError):
        return None
    body = next((n.body for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), [])
    found = []
    for statement in body:
        if isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        if not isinstance(statement, ast.Assert):
            return None
        if isinstance(statement.test, ast.Constant) and statement.test.value is True:
            continue  # "assert True, …", which some tasks have
        check = _check(statement.test, entry)
        if check is None:
            return None
        found.append(check)
    return found or None


def _check(test: ast.expr, entry: str) -> dict[str, Any] | None:
    """One of `candidate(…) == value`, `candidate(…)`, `not candidate(…)` and `abs(candidate(…) - value) < x`."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _called(test.operand, ast.Constant(False), entry, None)
    if isinstance(test, ast.Call) and _name(test) == "candidate":
        return _called(test, ast.Constant(True), entry, None)
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return None
    left, op, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(op, ast.Eq | ast.Is):
        return _called(left, right, entry, None) or _called(right, left, entry, None)
    if isinstance(op, ast.Lt | ast.LtE) and isinstance(left, ast.Call) and _name(left) == "abs" and len(left.args) == 1:
        inner, most = left.args[0], _value(right)
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub) and isinstance(most, float):
            return _called(inner.left, inner.right, entry, most)
    return None


def _called(call: ast.expr, expected: ast.expr, entry: str, tolerance: float | None) -> dict[str, Any] | None:
    if not (isinstance(call, ast.Call) and _name(call) == "candidate" and not call.keywords):
        return None
    args, value = [_value(arg) for arg in call.args], _value(expected)
    if _NONE in args or value is _NONE:
        return None
    check = {"entry": entry, "args": args, "expected": value}
    return check if tolerance is None else {**check, "tolerance": tolerance}


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


class _None:
    """No plain value."""


_NONE = _None()


def _value(node: ast.expr) -> Any:
    """What a literal says, as JSON has it; `_NONE` of what is no literal, or has no place in JSON."""
    try:
        return _plain(ast.literal_eval(_Worked().visit(node)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, ArithmeticError):
        return _NONE


class _Worked(ast.NodeTransformer):
    """Sums, products and quotients of two numbers as their value: 2.0/3.0."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        a, b = (ast.literal_eval(self.visit(side)) for side in (node.left, node.right))
        work = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
        if type(node.op) in work and all(isinstance(x, int | float) and abs(x) < 1e12 for x in (a, b)):
            return ast.copy_location(ast.Constant(work[type(node.op)](a, b)), node)
        raise ValueError("another operation")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        inner = [_plain(v) for v in value]
        return _NONE if any(v is _NONE for v in inner) else inner
    if isinstance(value, dict):
        named = {k: _plain(v) for k, v in value.items() if isinstance(k, str)}
        return named if len(named) == len(value) and _NONE not in named.values() else _NONE
    return value if value is None or isinstance(value, str | int | float | bool) else _NONE
