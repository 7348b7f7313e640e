"""Ctrl-C in every stage of one run, one after another; the run that goes on ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.records import Episode
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.tables import read_records
from tests.pipeline.test_whole import SMALL, command, interrupt

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]

MOMENTS: dict[str, Callable[[Path, str], bool]] = {
    "sft, collecting": lambda root, log: "sft: collect · starts" in log,
    "sft, training": lambda root, log: re.search(r"sft: train · [1-9]\d*/", log) is not None,
    "mgpo": lambda root, log: (root / "steps" / "mgpo" / "000001").exists(),
    "synthesize": lambda root, log: (root / "steps" / "synthesize" / "000001").exists(),
    "solve": lambda root, log: (root / "steps" / "solve" / "000001").exists(),
    "evaluate": lambda root, log: "evaluate: before · starts" in log,
}
"""When to interrupt, by what is in the run directory and on stderr."""


def test_a_run_interrupted_in_every_stage_ends_with_the_counts_of_its_config(tmp_path: Path) -> None:
    root = tmp_path / "run"
    for moment, reached in MOMENTS.items():
        code, took, left, log = interrupt(root, partial(reached, root))
        print(f"{moment}: exit {code} in {took:.1f} s, {len(left)} processes left")
        assert (code, left) == (130, []), f"{moment}: {log}"
        assert took < 15
        if moment == "synthesize":
            assert "problems accepted so far are in" in log and (root / "dataset" / "problems.jsonl").is_file()
    done = subprocess.run(command(root), capture_output=True, text=True, timeout=900, env=os.environ)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [summary["stages"][s]["status"] for s in RUN_STAGES] == ["done"] * len(RUN_STAGES)
    assert summary["problems"] == SMALL["synthesize.target"]
    questions = [
        json.loads(line)["question"] for line in (root / "dataset" / "problems.jsonl").read_text().splitlines()
    ]
    assert len(questions) == len(set(questions)) == SMALL["synthesize.target"]
    for stage, steps in (("mgpo", SMALL["mgpo.steps"]), ("solve", SMALL["solve.steps"])):
        assert [int(s.name) for s in sorted((root / "steps" / stage).iterdir())] == list(range(1, steps + 1))  # type: ignore[operator]
    played = [e.id for s in (root / "steps" / "mgpo").iterdir() for e in read_records(s / "episodes.parquet", Episode)]
    assert len(played) == len(set(played)) == 3 * 4 * 4
