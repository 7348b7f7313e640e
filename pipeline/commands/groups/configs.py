"""`propose config`: show, explain, check, compare or begin a config."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import configure, screens, target
from pipeline.commands import options as o
from pipeline.commands.groups.base import EVERYDAY, OK, app, command
from pipeline.commands.keys import DIFF_KEYS, INIT_KEYS, VALID_KEYS
from pipeline.config import DOMAINS

configs = typer.Typer(cls=screens.Group, help="Show, explain, check, compare or begin a config.", no_args_is_help=True)
app.add_typer(configs, name="config", rich_help_panel=EVERYDAY)


@command("show", None, "print a resolved config, or sections of it; with --docs, what its fields mean", of=configs)
def _config_show(
    names: o.Things = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    docs: Annotated[bool, o.flag("--docs", help="type, unit, default, bounds and source of each field")] = False,
    schema: Annotated[bool, o.flag("--schema", help="the JSON schema, for editors")] = False,
    markdown: Annotated[bool, o.flag("--markdown", help="the whole reference as a page, as deploy/CONFIG.md")] = False,
    as_json: o.Json = False,
) -> int:
    print(configure.show(list(names or ()), config, list(sets or ()), run_dir, docs, schema, markdown, as_json))
    return OK


@command("validate", None, "check a config: all that is wrong with it, a line each", lambda: VALID_KEYS, of=configs)
def _config_validate(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    as_json: o.Json = False,
) -> int:
    settings, root = target.of(name, config, sets, run_dir)
    valid = {"valid": True, "name": settings.name, "run_dir": str(root)}
    print(
        json.dumps(valid)
        if as_json
        else f"valid: run {settings.name!r}, run directory {target.shown(root)}\n"
        "Its fields alone were looked at; `propose doctor` looks at files, models, endpoints and GPUs."
    )
    return OK


@command("diff", None, "list the fields in which two configs or runs differ", lambda: DIFF_KEYS, of=configs)
def _config_diff(
    a: Annotated[str, typer.Argument(metavar="A", help="a config or a run", autocompletion=o._runs_and_configs)],
    b: Annotated[str, typer.Argument(metavar="B", help="another", autocompletion=o._runs_and_configs)],
    as_json: o.Json = False,
) -> int:
    found = configure.diff(a, b)
    print(json.dumps(found) if as_json else configure.render_diff(found))
    return OK


@command("init", None, "write a config to begin with, a comment on each line to change", lambda: INIT_KEYS, of=configs)
def _config_init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where to")] = Path("propose.yaml"),
    domain: Annotated[str, o.choice("--domain", of=tuple(DOMAINS.sections), help="of which world (text)")] = "text",
    profile: Annotated[
        str | None, o.choice("--profile", of=configure.STARTS, help="a profile of deploy/configs instead")
    ] = None,
    as_json: o.Json = False,
) -> int:
    made = configure.init(file, profile or domain)
    check = f"propose config validate {shlex.quote(str(file))}"
    beside = f"{target.shown(Path(made['schema']))} beside it lets editors check it as you write"
    print(json.dumps(made) if as_json else f"{target.shown(file)}: edit it, then `{check}`; {beside}")
    return OK
