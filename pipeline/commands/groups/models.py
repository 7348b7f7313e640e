"""`propose model`: tell of a model that a run trained, and export it."""

from __future__ import annotations

import json
from typing import Annotated, Literal, cast

import typer

from pipeline.commands import options as o
from pipeline.commands import screens
from pipeline.commands.groups.base import DATA, OK, app, command
from pipeline.commands.keys import MODEL_CARD_KEYS, MODEL_EXPORT_KEYS

models = typer.Typer(cls=screens.Group, help="Describe or export a model that a run trained.", no_args_is_help=True)
app.add_typer(models, name="model", rich_help_panel=DATA)

Trained = Annotated[str, typer.Argument(metavar="RUN", help="a run that trained it", autocompletion=o._runs)]
Which = Annotated[str, o.choice("--of", of=("proposer", "solver"), help="which of the two (solver)")]
License = Annotated[
    str | None,
    typer.Option("--license", metavar="NAME", help="of the model, as the Hub writes it", show_default=False),
]


@command("card", None, "print the card of a model: base, data, objective, results with intervals",
         lambda: MODEL_CARD_KEYS, of=models)  # fmt: skip
def _card(run: Trained, which: Which = "solver", license: License = None, as_json: o.Json = False) -> int:
    from pipeline.commands import model

    text = model.card_of(run, cast(Literal["proposer", "solver"], which), license)
    print(json.dumps({"card": text}) if as_json else text)
    return OK


@command("export", None, "write a model and its card into a folder that transformers and vLLM load",
         lambda: MODEL_EXPORT_KEYS, of=models)  # fmt: skip
def _export(
    run: Trained,
    out: o.Out,
    which: Which = "solver",
    license: License = None,
    push: o.Push = None,
    public: o.Public = False,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import model

    o.refuse_public(public, push)
    found = model.export(run, out, cast(Literal["proposer", "solver"], which), license, push, private=not public)
    shown = f"{found['model']} of {found['checkpoint']}: {len(found['files'])} files in {out}"
    shown += f"; {found['pushed']}" if found["pushed"] else ""
    print(json.dumps(found) if as_json else shown)
    return OK
