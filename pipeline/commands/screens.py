"""How the command line looks: help screens, and errors in how it was called.

Invariant: every screen fits the width of the terminal; a command that prints JSON lists its keys under its options; an
error in a call names the option and what is accepted, suggests what was probably meant, and ends with the usage of the
subcommand that was called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

Keys = Callable[[], Mapping[str, str]]
"""Keys of a command's JSON -> meaning. A function, because only the command's own help needs them."""
More = Callable[[], Mapping[str, Mapping[str, str]]]
"""Title -> names -> meaning, of further tables."""


def _without_types(params: list[Any]) -> list[Any]:
    """Parameters whose help has no type: what a flag takes is nothing, what an argument takes is its name."""
    for param in params:
        if getattr(param, "is_flag", False) or param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
    return params


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def listing(keys: Keys, more: More | None = None) -> type[TyperCommand]:
    """The class of a command whose help lists the keys of its JSON, and the tables of `more`."""

    class Listing(Command):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            from rich.console import Console
            from rich.padding import Padding
            from rich.table import Table

            console = Console(highlight=False, markup=False)
            for title, names in {**(more() if more else {}), "keys of --json": keys()}.items():
                table = Table.grid(padding=(0, 2))
                for name, meaning in names.items():
                    table.add_row(name, meaning)
                console.print(f" {title}:")
                console.print(Padding(table, (0, 0, 1, 2)))

    return Listing


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def in_order(panels: Sequence[str]) -> type[TyperGroup]:
    """The class of a group whose help shows its commands under these headings, in this order."""

    class InOrder(Group):
        def list_commands(self, ctx: Any) -> list[str]:
            panel = {name: getattr(c, "rich_help_panel", None) for name, c in self.commands.items()}
            return sorted(self.commands, key=lambda name: panels.index(panel[name]) if panel[name] in panels else -1)

    return InOrder


def explain(error: TyperException) -> str:
    """What is wrong with a call, then the usage of the command that was called."""
    ctx: Any = getattr(error, "ctx", None)
    text = _said(error)
    if ctx is None:
        return text
    usage = " ".join(ctx.get_usage().split())  # the library breaks the line where the terminal ends
    return f"{text}\n{usage}\n`{ctx.command_path} --help` lists what there is"


def _said(error: TyperException) -> str:
    possible = getattr(error, "possibilities", None)
    text = error.message if possible else error.format_message()
    if possible:
        text = f"{text}. Did you mean {possible[0]}?"
    return " ".join(text.split())


def is_help(error: TyperException) -> bool:
    """Whether a command was called without arguments, which its help, printed already, answers."""
    return type(error).__name__ == "NoArgsIsHelpError"


def tell(text: str) -> None:
    print(f"propose: {text}", file=sys.stderr)
