"""`propose skills`: a skill library, a run's or one's own, looked at, edited, checked, and put together with others."""

from __future__ import annotations

import json
from typing import Annotated, Literal, cast

import typer

from pipeline.commands import options as o
from pipeline.commands import screens
from pipeline.commands.groups.base import DATA, INPUT, OK, app, command, print_result
from pipeline.commands.keys import (
    SKILLS_ADD_KEYS,
    SKILLS_LINT_KEYS,
    SKILLS_LIST_KEYS,
    SKILLS_MERGE_KEYS,
    SKILLS_REMOVE_KEYS,
    SKILLS_SHOW_KEYS,
    SKILLS_STATS_KEYS,
)

skills = typer.Typer(cls=screens.Group, help="Look at, edit, check or merge skill libraries.", no_args_is_help=True)
app.add_typer(skills, name="skills", rich_help_panel=DATA)

Library = Annotated[
    str, typer.Argument(metavar="LIBRARY", help="a run, a folder of skills, or a .parquet", autocompletion=o._runs)
]
Own = Annotated[str, typer.Argument(metavar="LIBRARY", help="a folder of skills of your own")]


@command("list", None, "list the skills of a library", lambda: SKILLS_LIST_KEYS, of=skills)
def _list(
    library: Library,
    category: Annotated[
        str | None, typer.Option("--category", metavar="NAME", help="of this one alone", show_default=False)
    ] = None,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import skills

    found = skills.listed(library, category)
    print(json.dumps(found, ensure_ascii=False) if as_json else skills.render_list(found))
    return OK


@command("show", None, "print one skill whole", lambda: SKILLS_SHOW_KEYS, of=skills)
def _show(library: Library, id: Annotated[str, typer.Argument(metavar="SKILL", help="its name")],
          as_json: o.Json = False) -> int:  # fmt: skip
    from pipeline.commands import skills

    found = skills.shown(library, id)
    print(json.dumps(found, ensure_ascii=False) if as_json else skills.render_shown(found))
    return OK


@command("add", None, "add skills whose scripts pass their self-test", lambda: SKILLS_ADD_KEYS, of=skills)
def _add(
    library: Own,
    sources: Annotated[list[str], typer.Argument(metavar="FROM", help="the folder of a skill, or a library")],
    replace: Annotated[bool, o.flag("--replace", help="in place of the same skill, where the library has it")] = False,
    self_test: Annotated[
        str, o.choice("--self-test", of=("required", "optional"), help="of a skill with a script (default: required)")
    ] = "required",
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import skills

    print_result(as_json, skills.add(library, sources, replace, cast(Literal["required", "optional"], self_test)))
    return OK


@command("remove", None, "remove skills", lambda: SKILLS_REMOVE_KEYS, of=skills)
def _remove(
    library: Own,
    ids: Annotated[list[str], typer.Argument(metavar="SKILL", help="their names")],
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import skills

    print_result(as_json, skills.remove(library, ids))
    return OK


@command("lint", None, "name all that is wrong with a library; exit code 2 where anything is",
         lambda: SKILLS_LINT_KEYS, of=skills)  # fmt: skip
def _lint(library: Library, as_json: o.Json = False) -> int:
    from pipeline.commands import skills

    found = skills.lint(library)
    lines = [f"{f['where']}: {f['rule']}: {f['what']}" for f in found["findings"]]
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join([*lines, f"{len(lines)} findings"]))
    return INPUT if lines else OK


@command("stats", None, "count what a library holds", lambda: SKILLS_STATS_KEYS, of=skills)
def _stats(library: Library, as_json: o.Json = False) -> int:
    from pipeline.commands import skills

    print_result(as_json, skills.stats(library))
    return OK


@command("merge", None, "make one library of several, each skill once", lambda: SKILLS_MERGE_KEYS, of=skills)
def _merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="a folder that is new or empty")],
    libraries: Annotated[list[str], typer.Argument(metavar="LIBRARY", help="runs, folders of skills, or .parquet")],
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import skills

    print_result(as_json, skills.merge(out, libraries))
    return OK
