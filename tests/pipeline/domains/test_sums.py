"""A third domain, which is a package and an entry, from acquire to evaluate, with nothing replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Episode, Verdict
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_keyed, read_records
from tests.pipeline.domains.sums import SKILLS, Sums, SumsConfig

ROOT = Path(__file__).parents[3]
STAGES = ("acquire", "sft", "mgpo", "synthesize", "solve", "evaluate")

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, dict[str, Any]]:
    """Its directory, and what the command said."""
    folder = tmp_path_factory.mktemp("sums")
    (folder / "sums.yaml").write_text("domain: sums\n")
    command = [sys.executable, "-m", "tests.pipeline.domains.sums", "run", "--json", "--config"]
    done = subprocess.run(
        [*command, str(folder / "sums.yaml"), "--run-dir", str(folder / "run")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # for Ray's workers, who import the domain by its name
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr
    return RunDir(folder / "run"), json.loads(done.stdout)


def episodes(run: RunDir, stage: str) -> list[Episode]:
    return [e for step in run.steps(stage) for e in read_records(step / "episodes.parquet", Episode)]


def test_every_stage_has_something_to_do(run: tuple[RunDir, dict[str, Any]]) -> None:
    _, summary = run
    results = {name: summary["stages"][name] for name in STAGES}
    assert {name: r["status"] for name, r in results.items()} == dict.fromkeys(STAGES, "done")
    assert summary["problems"] == 4


def test_its_own_teacher_finds_its_own_skills_in_its_own_corpus(run: tuple[RunDir, dict[str, Any]]) -> None:
    result = (run[0].result("acquire") or {})["result"]
    assert (result["documents"], result["kept"]) == (1, len(SKILLS))
    assert result["skills"] == {"less": 1, "more": 2} and result["unnamed_categories"] == []


def test_its_own_teacher_writes_problems_that_the_committee_accepts(run: tuple[RunDir, dict[str, Any]]) -> None:
    verdicts = [v for step in run[0].steps("sft") for v in read_keyed(step / "verdicts.parquet", Verdict).values()]
    assert len(verdicts) == 48 and all(v.accepted for v in verdicts)


def test_what_it_holds_out_is_offered_to_nobody(run: tuple[RunDir, dict[str, Any]]) -> None:
    offered = {
        (e.task.category, frozenset(s.id for s in e.task.skills))
        for stage in ("sft", "mgpo", "synthesize")
        for e in episodes(run[0], stage)
    }
    assert {category for category, _ in offered} == set(Sums.categories)
    assert {skills for _, skills in offered} == {frozenset({id}) for id in SKILLS}


def test_it_is_measured_on_its_own_benchmark(run: tuple[RunDir, dict[str, Any]]) -> None:
    result = (run[0].result("evaluate") or {})["result"]
    rows = (SumsConfig.defaults.parent / "benchmark.jsonl").read_text().splitlines()
    assert (result["problems"], result["samples"]) == (len(rows), 2)
    assert set(result["after"]["by_category"]) == {"more"}
