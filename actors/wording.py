"""What the environment says to the agent: the task, the answer to a turn, what a skill is.

Invariant: a stage is written in one way by whoever writes it, a line `## Check`. `Teaching` says what a turn lacked and
shows the form; `Bare` is what the mini world's models were made with, and says no more than the next stage.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.records import CognitiveStage, Note, Skill

Form = Callable[[str], str]
"""How the model at hand writes a call of a tool."""


class Wording(Protocol):
    def task(self, category: str, skills: Sequence[Skill]) -> str:
        """The start of an episode: skills are shown by id and intent only."""

    def answer(self, stage: CognitiveStage, result: str | None, notes: Sequence[Note]) -> str:
        """The answer to a turn. `stage` is the one to go on with, `result` what a tool said."""

    def skill(self, skill: Skill) -> str:
        """All that an agent learns of a skill that it asks for."""


def header(stage: CognitiveStage) -> str:
    """The line that begins a turn."""
    return f"## {stage.capitalize()}"


def _offer(category: str, skills: Sequence[Skill]) -> str:
    listed = "".join(f"- {s.id}: {s.intent}\n" for s in skills)
    return f"Category: {category}\n" + (f"Skills:\n{listed}" if skills else "")


def _response(result: str | None) -> str:
    return "" if result is None else f"<tool_response>\n{result}\n</tool_response>\n"


class Bare:
    def task(self, category: str, skills: Sequence[Skill]) -> str:
        return f"{_offer(category, skills)}Stage: draft"

    def answer(self, stage: CognitiveStage, result: str | None, notes: Sequence[Note]) -> str:
        return f"{_response(result)}Stage: {stage}"

    def skill(self, skill: Skill) -> str:
        return skill.method


_SAYS: dict[Note, str] = {
    "no header": "Your last turn did not begin with a line that names its stage. Begin every turn with one, like "
    "this:\n{header}\nyour thoughts, and at most one tool call at the end",
    "no check": "Nothing was run. A check ends with a call that solves the problem:\n{exec}",
    "no submission": "Nothing was submitted. The last turn ends with a call like this:\n{submit}",
    "repeated": "Your last turn repeats an earlier one word for word, so nothing has changed. Write something new: "
    "change the problem, run other code, or submit what you have.",
}


class Teaching:
    def __init__(self, form: Form):
        self._form = form

    def task(self, category: str, skills: Sequence[Skill]) -> str:
        return f"{_offer(category, skills)}Begin your turn with the line\n{header('draft')}"

    def answer(self, stage: CognitiveStage, result: str | None, notes: Sequence[Note]) -> str:
        shown = {"header": header(stage), "exec": self._form("exec"), "submit": self._form("submit")}
        said = "".join(f"{_SAYS[note].format_map(shown)}\n" for note in notes)
        return f"{_response(result)}{said}Begin your turn with the line\n{header(stage)}"

    def skill(self, skill: Skill) -> str:
        parts = [
            f"{skill.id}: {skill.intent}",
            f"Structure and action: {skill.method}",
            f"Effect: {skill.difficulty}",
            f"Tool hint: {skill.tool_hint}",
        ]
        if signatures := _signatures(skill.script):
            parts.append(f"Defined in exec while the skill is active:\n{signatures}")
        return "\n".join(parts)


def skill_is_no_tool(id: str, form: Form) -> str:
    """The answer to a call of a skill as if it were a tool."""
    return (
        f"{id!r} is a skill and no tool: it says what a problem asks of its solver. To read it, call the tool skill "
        f"with its id. What its script defines is called from code:\n{form('exec')}"
    )


def _signatures(script: str | None) -> str:
    """Of each function that a script defines: its first line, and its docstring."""
    try:
        body = ast.parse(script or "").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # admission reports such a script
        return ""
    shown = []
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            says = ast.get_docstring(node)
            shown.append(
                f"def {node.name}({ast.unparse(node.args)}){returns}:" + (f'\n    """{says}"""' if says else " ...")
            )
    return "\n".join(shown)
