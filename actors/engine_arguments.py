"""What a config hands on to vLLM's engine as it stands (`engine.arguments`), read by vLLM's own command line parser.

Invariant: what `read` returns is what `vllm serve` would make of the same values; what that parser refuses raises a
Failure that names the argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pipeline.records import Failure


def read(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values for `AsyncEngineArgs`, by name. Imports vLLM, which takes seconds, if there are any. Raises Failure."""
    if not arguments:
        return {}
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            raise ValueError(message.removeprefix("argument "))

    parser = AsyncEngineArgs.add_cli_args(Parser())
    known = {field.name for field in fields(AsyncEngineArgs)}
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            raise Failure(f"engine.arguments.{name}: unknown to vLLM's engine; expected a name of `vllm serve --help`")
        try:
            values[name] = getattr(parser.parse_args(list(_told(name, value))), name)
        except ValueError as e:
            raise Failure(f"engine.arguments.{name}: {' '.join(str(e).split())}") from None
    return values


def _told(name: str, value: Any) -> Iterator[str]:
    """An argument as words of a command line."""
    option = name.replace("_", "-")
    match value:
        case True:
            yield f"--{option}"
        case False:
            yield f"--no-{option}"
        case dict():
            yield f"--{option}={json.dumps(value)}"
        case list() | tuple():
            yield from (f"--{option}", *map(str, value))
        case _:
            yield f"--{option}={value}"
