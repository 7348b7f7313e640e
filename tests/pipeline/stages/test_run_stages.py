"""The registry of run stages: every entry has all its parts, and nothing else claims to be a stage."""

import importlib
import inspect
import pkgutil

import pytest
import typer

from pipeline import stages
from pipeline.cli import app
from pipeline.commands.keys import STAGE_KEYS
from pipeline.config import Config
from pipeline.records import COGNITIVE_STAGES
from pipeline.store import run_stages
from pipeline.store.run_stages import RUN_STAGES


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
