"""Arguments and options that several commands share, and what their values may be.

Invariant: a value that cannot be is refused before anything is started, by a line that names the option, the value, and
what would be accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands import target
from pipeline.records import Failure
from pipeline.watch import verbosity
from pipeline.watch.verbosity import Verbosity


def at_least(least: int) -> Callable[[str | int], int]:
    def count(text: str | int) -> int:
        if isinstance(text, int):  # the library puts defaults through here too
            return text
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text) or int(text) < least:
            raise typer.BadParameter(f"{text!r}; expected a whole number from {least} on, of at most 9 digits")
        return int(text)

    return count


def more_than_none(text: str | float) -> float:
    if isinstance(text, float):
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < math.inf):
        raise typer.BadParameter(f"{text!r}; expected a number above 0")
    return value


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def choice(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"{text!r}; expected one of {', '.join(names)}")
        return text

    return choice


def count(*names: str, least: int, help: str) -> Any:
    """An option that takes a whole number."""
    return typer.Option(*names, parser=at_least(least), metavar="N", help=help, show_default=False)


def amount(*names: str, help: str, metavar: str = "X") -> Any:
    """An option that takes a number above 0."""
    return typer.Option(*names, parser=more_than_none, metavar=metavar, help=help, show_default=False)


def choice(*names: str, of: tuple[str, ...], help: str) -> Any:
    """An option that takes one of some names."""
    complete = lambda incomplete: [name for name in of if name.startswith(incomplete)]  # noqa: E731
    return typer.Option(
        *names, parser=_one_of(of), metavar="|".join(of), help=help, show_default=False, autocompletion=complete
    )


def flag(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


# ---------------------------------------------------------------- completion


def _runs(incomplete: str) -> list[str]:
    return [str(root) for root in target.every(target.RUNS)]


def _runs_and_configs(incomplete: str) -> list[str]:
    folder = Path(incomplete).parent
    return _runs(incomplete) + [str(p) for p in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))]


def _sections(incomplete: str) -> list[str]:
    from pipeline.config import Config

    return [*Config.model_fields, *_runs_and_configs(incomplete)]


def _settings(incomplete: str) -> list[str]:
    """Dotted fields of the mini world, as `--set` takes them."""
    from pipeline.config import loading

    def fields(tree: Any, where: str) -> list[str]:
        if not isinstance(tree, dict) or not tree:
            return [f"{where}="]
        return [name for key, value in tree.items() for name in fields(value, f"{where}.{key}" if where else key)]

    return fields(loading.load().model_dump(mode="json"), "")


def _stages(incomplete: str) -> list[str]:
    from pipeline.store.run_stages import RUN_STAGES

    return list(RUN_STAGES)


# ---------------------------------------------------------------- shared by several commands

_RUN = "a run directory, or its name in runs/; default: the newest run in runs/"
_RUN_OR_CONFIG = "a config file, or the directory of a run to go on with"
Target = Annotated[
    str | None,
    typer.Argument(metavar="CONFIG|RUN", help=_RUN_OR_CONFIG, show_default=False, autocompletion=_runs_and_configs),
]
"""Which config, or which run to go on with."""
Run = Annotated[str | None, typer.Argument(metavar="RUN", help=_RUN, show_default=False, autocompletion=_runs)]
"""Which run to look at."""
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="a stage of the run", autocompletion=_stages)]
Things = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|RUN|FIELD",
        help="a config file or run directory, then sections or dotted fields; default: all of the mini world",
        show_default=False,
        autocompletion=_sections,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML; without it the mini world's defaults", show_default=False),
]
ConfigOfRun = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="the run that this config makes", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="override, e.g. trainer.workers=2",
        show_default=False,
        autocompletion=_settings,
    ),
]
RunDir = Annotated[
    str | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="default: runs/<name>-<digest of the config>, so that the same config resumes that run",
        show_default=False,
    ),
]
RunOnly = Annotated[str | None, typer.Option("--run-dir", metavar="DIR", help="the same as RUN", show_default=False)]
Json = Annotated[
    bool, typer.Option("--json", help="one JSON object on stdout; logs stay on stderr", show_default=False)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what would be done, and what it takes; do nothing", show_default=False)
]


def _be_verbose(given: bool) -> bool:
    if given:
        verbosity.choose(Verbosity.VERBOSE)
    return given


def _be_quiet(given: bool) -> bool:
    if given:
        verbosity.choose(Verbosity.QUIET)
    return given


Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=_be_verbose, help="also what Ray and its processes log", show_default=False
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", callback=_be_quiet, help="no progress, errors and result alone", show_default=False),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="a folder that is new or empty")]
Push = Annotated[
    str | None,
    typer.Option("--push", metavar="OWNER/NAME", help="put it on the Hub, too, by your HF_TOKEN", show_default=False),
]
Public = Annotated[bool, flag("--public", help="with --push: for everybody to read")]


def refuse_public(public: bool, push: str | None) -> None:
    if public and push is None:
        raise Failure("--public: of what --push sends; expected --push OWNER/NAME")
