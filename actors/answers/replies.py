r"""What a completion says: the part that is meant to be read, the last box in it, the last program.

Invariant: pure. Reasoning between <think> and </think> is no answer, and none that never ended; a prompt may have
opened it, so that only the end is seen. Tags inside a code block are text.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Collection

MAX_COMPLETION_CHARS = 20_000
"""How far from its end a completion is searched for its box."""

_PYTHON = frozenset({"", "python", "python3", "python2", "py", "py3", "pycon", "ipython", "code"})
_MARKS = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^\n<]*)(?=$|<)|<(?P<end>/?)(?:think|thinking)>", re.MULTILINE
)
_BEGINS = re.compile(r"^(?:def|async def|class|import|from|@)\b", re.MULTILINE)
_BOX = re.compile(r"\\f?boxed\s*(?:(\{)|(?=[0-9A-Za-z.+-])([^\s$\\{},;]+))")


def visible(text: str) -> str:
    """The completion without its reasoning."""
    shown: list[str] = []
    start, fence, reasoning = 0, "", False
    for mark in _MARKS.finditer(text):
        if reasoning:
            if mark["end"]:
                start, reasoning = mark.end(), False
        elif mark["fence"] is not None:
            fence = mark["fence"] if not fence else "" if _closes(mark, fence) else fence
        elif fence:
            continue
        elif mark["end"]:  # the prompt had opened it, or it closes what nobody opened
            shown, start = [], mark.end()
        else:
            shown.append(text[start : mark.start()])
            reasoning = True
    return "".join([*shown, "" if reasoning else text[start:]])


def _closes(mark: re.Match[str], fence: str) -> bool:
    return mark["fence"][0] == fence[0] and len(mark["fence"]) >= len(fence) and not mark["info"].strip()


def extract_boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...} with balanced braces, or after a last "\boxed 4", or None."""
    text = visible(text)[-MAX_COMPLETION_CHARS:]
    for match in reversed(list(_BOX.finditer(text))[-20:]):
        if match[2] is not None:
            return match[2].rstrip(".")
        depth = 1
        for brace in re.compile(r"\\[\\{}]|[{}]").finditer(text, match.end()):
            depth += (brace[0] == "{") - (brace[0] == "}")
            if depth == 0:
                return text[match.end() : brace.start()].strip()
    return None


def extract_program(text: str, entries: Collection[str] = (), bare: bool = False) -> str | None:
    """The program of a completion: the last code block that can be one. Of several, one that defines what the tests
    call (`entries`); a block in another language, or that only shows a value, is none. None without any; with
    `bare`, the text itself then counts if it is a program that defines one of them."""
    shown = visible(text)
    found = _blocks(shown)
    blocks = [code for info, code in found if info in _PYTHON and code.strip()]
    if bare and not found:
        return _bare(shown, entries)
    trees = [(code, tree) for code in blocks if (tree := _parsed(code)) is not None and _does_something(tree)]
    defining = [code for code, tree in trees if set(entries) & _defined(tree)]
    whole = [code for code, _ in trees]
    return next((group[-1] for group in (defining, whole) if group), blocks[-1] if blocks and not whole else None)


def _bare(text: str, entries: Collection[str]) -> str | None:
    """Without any block: what is left from the first line that begins a program, if that defines what is asked for."""
    if begins := _BEGINS.search(text):
        code = text[begins.start() :].strip()
        tree = _parsed(code)
        return code if tree is not None and set(entries) & _defined(tree) else None
    return None


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each block; one that the end of the text cuts off counts as well."""
    found: list[tuple[str, str]] = []
    text = text.replace("\r\n", "\n")
    fence, info, start = "", "", 0
    for mark in _MARKS.finditer(text):
        if mark["fence"] is None:
            continue
        if not fence:
            fence, info, start = mark["fence"], mark["info"], mark.end() + 1
        elif _closes(mark, fence):
            found.append((info, text[start : mark.start()]))
            fence = ""
    if fence:
        found.append((info, text[start:]))
    languages = [re.match(r"\s*\{?\.?([A-Za-z0-9+#_-]*)", info) for info, _ in found]
    return [
        (m[1].lower() if m else "", textwrap.dedent(code).strip())
        for m, (_, code) in zip(languages, found, strict=True)
    ]


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _does_something(tree: ast.Module) -> bool:
    """More than an output that happens to be Python: 3, [1, 2], True."""
    return any(not isinstance(s, ast.Expr) or any(isinstance(n, ast.Call) for n in ast.walk(s)) for s in tree.body)


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module, or a class Solution in it, defines."""
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.ClassDef):
            names.add(statement.name)
            methods = [m.name for m in statement.body if isinstance(m, ast.FunctionDef)]
            names |= set(methods) if statement.name == "Solution" else set()
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names
