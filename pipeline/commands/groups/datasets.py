"""`propose dataset`: check, count, describe and export a data set, of a run or of anybody; `propose compare`: hold two
results on one benchmark against each other."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipeline.commands import options as o
from pipeline.commands import screens
from pipeline.commands.groups.base import DATA, INPUT, OK, app, command
from pipeline.commands.keys import (
    COMPARE_KEYS,
    DATASET_CARD_KEYS,
    DATASET_CHECK_KEYS,
    DATASET_EXPORT_KEYS,
    DATASET_STATS_KEYS,
)
from pipeline.records import Failure

datasets = typer.Typer(cls=screens.Group, help="Check, count, describe or export a data set.", no_args_is_help=True)
app.add_typer(datasets, name="dataset", rich_help_panel=DATA)

Place = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|FILE",
        help="a run, a folder of .parquet or .jsonl files, or one",
        autocompletion=o._runs,
    ),
]
LAYOUTS = ("qa", "trl", "verl", "openrlhf", "prime-rl")


@command("check", None, "hold a data set against the quality gates; exit code 2 where a row is barred or a training "
         "file tells how rows were made", lambda: DATASET_CHECK_KEYS, of=datasets)  # fmt: skip
def _check(
    place: Place,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="DATA", help="another data set; may be given often", show_default=False),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="DATA",
            help="a file, a data set on the Hub, or a preset (gsm8k, gsm8k=FILE); may be given often",
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="XX", help="rows may be in, as en; default: any", show_default=False),
    ] = None,
    semantic: Annotated[
        str | None,
        typer.Option(
            "--semantic",
            metavar="MODEL",
            help="an embedding model: also what says the same in other words",
            show_default=False,
        ),
    ] = None,
    alike: Annotated[float | None, o.amount("--alike", help="with --semantic, the cosine from which on (0.95)")] = None,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import dataset

    if semantic is None and alike is not None:
        raise Failure(f"--alike {alike}: of what --semantic compares; expected --semantic MODEL")
    if alike is not None and alike > 1:
        raise Failure(f"--alike {alike:g}: no cosine is above 1; expected one above 0 and at most 1")
    found = dataset.check(place, against or [], benchmark or [], language or [], semantic, alike)
    print(json.dumps(found, ensure_ascii=False) if as_json else dataset.render_check(found))
    return INPUT if found["barred"] or found["traces"] else OK


@command("stats", None, "count what a data set holds", lambda: DATASET_STATS_KEYS, of=datasets)
def _stats(place: Place, as_json: o.Json = False) -> int:
    from pipeline.commands import dataset

    found = dataset.stats(place)
    print(json.dumps(found, ensure_ascii=False) if as_json else dataset.render_stats(found))
    return OK


@command("card", None, "print the card of a data set, README.md of its folder", lambda: DATASET_CARD_KEYS, of=datasets)
def _card(place: Place, as_json: o.Json = False) -> int:
    from pipeline.commands import dataset

    text = dataset.card_of(place)
    print(json.dumps({"card": text}) if as_json else text)
    return OK


@command("export", None, "write a data set in the form that a trainer reads", lambda: DATASET_EXPORT_KEYS, of=datasets)
def _export(
    place: Place,
    out: o.Out,
    layout: Annotated[str, o.choice("--layout", of=LAYOUTS, help="whose form (qa: the bare two columns)")] = "qa",
    push: o.Push = None,
    public: o.Public = False,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import dataset

    o.refuse_public(public, push)
    found = dataset.export(place, out, layout, push, private=not public)
    shown = f"{found['rows']} rows, layout {layout}: {', '.join(found['files'])} in {out}"
    shown += f"; {found['pushed']}" if found["pushed"] else ""
    print(json.dumps(found) if as_json else shown)
    return OK


@command("compare", DATA, "compare two results on one benchmark: a paired test, and the items that changed",
         lambda: COMPARE_KEYS)  # fmt: skip
def _compare(
    a: Annotated[str, typer.Argument(metavar="A", help="a run that was evaluated, or an items.parquet")],
    b: Annotated[str, typer.Argument(metavar="B", help="another")],
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import compare

    found = compare.compare(a, b)
    print(json.dumps(found, ensure_ascii=False) if as_json else compare.render(found))
    return OK
