"""Which model folders the stages that are left to do will load, on whatever node."""

from __future__ import annotations

import pytest

from pipeline.commands.preflight import loaded
from pipeline.config.loading import load

ENDPOINT = {"base_url": "http://nobody.invalid/v1", "model": "m"}
LADDER = ["prober.ladder.0.path"]


@pytest.mark.parametrize(
    ("stages", "fields"),
    [
        (["acquire"], []),
        (["sft"], ["proposer.path", *LADDER]),
        (["mgpo"], LADDER),  # its policy is a checkpoint of the run
        (["solve"], ["solve.base.path"]),
        (["solve", "evaluate"], ["solve.base.path"]),
        (["sft", "solve"], ["proposer.path", "solve.base.path", *LADDER]),
    ],
)
def test_a_stage_loads_what_it_reads(stages: list[str], fields: list[str]) -> None:
    assert sorted(loaded(load(), stages)) == sorted(fields)


def test_a_model_behind_an_endpoint_has_no_folder() -> None:
    with_judge = {"committee.judge": {"path": "judge"}, "prober.ladder": [{"path": "a", "endpoint": ENDPOINT}]}
    config = load(None, [f"{name}={value}" for name, value in with_judge.items()])
    assert sorted(loaded(config, ["mgpo"])) == ["committee.judge.path"]
