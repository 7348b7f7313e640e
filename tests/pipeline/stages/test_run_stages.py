"""The registry of run stages: every entry has all its parts, and nothing else claims to be a stage."""

import asyncio
import importlib
import inspect
import pkgutil
from types import SimpleNamespace

import pytest
import typer

from pipeline import stages
from pipeline.cli import app
from pipeline.commands.keys import STAGE_KEYS
from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.records import COGNITIVE_STAGES, Failure, Halt
from pipeline.store import events, run_stages
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress


@pytest.mark.parametrize("name", RUN_STAGES)
def test_a_stage_has_its_module_its_section_its_keys_and_its_command(name):
    module = importlib.import_module(f"pipeline.stages.{name}")
    assert inspect.iscoroutinefunction(module.run), f"pipeline.stages.{name}: no `async def run(context)`"
    assert name in Config.model_fields, f"config: no section {name}"
    assert STAGE_KEYS.get(name), f"pipeline.commands.keys.STAGE_KEYS: no keys of {name}"
    assert typer.main.get_command(app).commands[name].short_help == RUN_STAGES[name].summary
    before = list(RUN_STAGES)[: list(RUN_STAGES).index(name)]
    assert RUN_STAGES[name].after in (None, *before) and (RUN_STAGES[name].after is None) == (not before)


def test_no_module_and_no_keys_are_of_a_stage_that_is_not_listed():
    modules = {module.name for module in pkgutil.iter_modules(stages.__path__)}
    assert modules == set(RUN_STAGES) == set(STAGE_KEYS), "a new stage is one entry in pipeline.store.run_stages"


def test_the_two_kinds_of_stage_share_no_name():
    assert not set(RUN_STAGES) & set(COGNITIVE_STAGES)


def test_who_trains_on_policy_trains():
    assert all(stage.trains for stage in RUN_STAGES.values() if stage.on_policy)
    assert run_stages.RunStage("plays only", plays=True).issues_attempts
    assert not run_stages.RunStage("reads").issues_attempts


@pytest.mark.parametrize(
    ("ending", "told"),
    [(Failure("sft: a\nb", "data_error"), "sft: a b"), (Halt("the budget is spent"), "the budget is spent"),
     (asyncio.CancelledError(), "interrupted"), (ZeroDivisionError("of one"), "ZeroDivisionError: of one")],
)  # fmt: skip
def test_why_a_stage_ended_without_a_result_is_an_event_until_it_begins_again(tmp_path, monkeypatch, ending, told):
    async def work(context):
        raise ending

    async def guarded(work):
        return await work

    cluster = SimpleNamespace(guarded=guarded, end_loaders=lambda: None)
    monkeypatch.setattr(stages.importlib, "import_module", lambda name: SimpleNamespace(run=work))
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    with Metrics(run) as metrics, Progress() as progress:
        context = Context(Config(domain="mini"), run, cluster, metrics, progress)
        with pytest.raises(type(ending)):
            asyncio.run(stages.run(context, "acquire"))
    assert events.stopped(run) == ("acquire", told)
    events.append(run, "stage_started", stage="acquire", steps=0, pid=1)
    assert events.stopped(run) is None
    run.close()
