"""The quick ablation with its real parts: every arm trained with the same budget, then found done.

pytest -m nightly tests/pipeline/commands/test_ablation_quick.py     (15 minutes on two cores)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.ablation.grid import ARMS, QUICK_COMPARISONS, arms_of
from pipeline.records import Episode, Rollout
from pipeline.store.tables import read_records

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
SEEDS = 2


def ablate(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", "ablate", "--quick", "--json", "--run-dir", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1700)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("ablation") / "a"
    ended = ablate(root)
    assert ended.returncode == 0, ended.stderr
    return root, json.loads(ended.stdout)


def test_every_arm_of_every_seed_is_in_the_table(done: tuple[Path, dict[str, Any]]) -> None:
    root, table = done
    assert {arm: row["seeds"] for arm, row in table["arms"].items()} == {
        arm: list(range(SEEDS)) for arm in arms_of(QUICK_COMPARISONS)
    }
    for row in table["arms"].values():
        assert len(row["verified_rate"]["values"]) == len(row["hard_yield_per_1k"]["values"]) == SEEDS
        assert row["verified_rate"]["interval"] is not None
    assert (root / "table.md").read_text().startswith("| arm |")
    assert (root / "table.html").stat().st_size > 5_000


def test_all_arms_of_a_seed_had_the_same_budget_and_the_same_tasks(done: tuple[Path, dict[str, Any]]) -> None:
    root, table = done
    trained = [arm for arm in table["arms"] if ARMS[arm].trained == "mgpo"]
    for seed in range(SEEDS):
        runs = {arm: root / "arms" / arm / str(seed) / "steps" for arm in table["arms"]}
        measured = {a: read_records(run / "measure/000001/episodes.parquet", Episode) for a, run in runs.items()}
        assert len({tuple(e.task.id for e in episodes) for episodes in measured.values()}) == 1
        assert len({tuple(e.task.skills for e in episodes) for episodes in measured.values()}) == 1
        assert {len(episodes) for episodes in measured.values()} == {table["budget"]["measured_episodes"]}
        for arm in trained:
            steps = sorted((runs[arm] / "mgpo").glob("[0-9]*"))
            assert len(steps) == table["budget"]["mgpo_steps"]
            for step in steps:
                played = read_records(step / "episodes.parquet", Episode)
                assert len(played) == table["budget"]["mgpo_episodes_a_step"]


def test_the_arms_of_a_seed_start_from_the_same_policy(done: tuple[Path, dict[str, Any]]) -> None:
    """First step, same tasks, same seeds, same weights: the rewards have had no chance yet to make a difference."""
    root, _ = done
    for seed in range(SEEDS):
        steps = [root / "arms" / arm / str(seed) / "steps/mgpo/000001" for arm in ("pass-at-k", "full")]
        first = [[e.task for e in read_records(step / "episodes.parquet", Episode)] for step in steps]
        assert first[0] == first[1]
        rollouts = [r for step in steps for r in read_records(step / "rollouts.parquet", Rollout)]
        versions = {v for r in rollouts for v in r.versions}
        assert versions <= {-1, 0}


def test_a_second_call_trains_nothing(done: tuple[Path, dict[str, Any]]) -> None:
    root, table = done
    again = ablate(root)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == table
    assert all("done before, skipped" in line or line.startswith("power") for line in again.stderr.splitlines())
