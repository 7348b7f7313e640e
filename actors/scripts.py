"""The names that the script of a skill brings into a session.

Invariant: a script is parsed here and never run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Of the top level of a script."""

    defined: frozenset[str]
    imported: frozenset[str]


def names(script: str) -> Names | None:
    """None for text that is no Python."""
    try:
        body = ast.parse(script).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    defined, imported = set[str](), set[str]()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            defined |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return Names(frozenset(defined), frozenset(imported))
