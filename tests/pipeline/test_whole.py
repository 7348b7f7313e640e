"""The whole pipeline, small, with its real parts: interrupted in the middle, resumed, then found done."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.records import Episode, Probe, Rollout, Verdict
from pipeline.store import accounts
from pipeline.store.metrics import read as read_metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_keyed, read_records
from pipeline.store.verify import verify
from pipeline.watch.figures import meter_of

SMALL = {
    "sft.trajectories": 140,
    "sft.epochs": 2,
    # One skill a problem and little noise: what a proposer can do that has hardly been trained.
    "mgpo.curriculum.min_skills": 1,
    "mgpo.curriculum.max_skills": 1,
    "episode.sampling.top_p": 0.9,
    "mgpo.steps": 3,
    "mgpo.groups": 4,
    "mgpo.group_size": 4,
    "mgpo.checkpoint_every": 2,
    "synthesize.target": 12,
    "synthesize.in_flight": 16,
    "solve.steps": 2,
    "solve.problems": 4,
    "solve.group_size": 4,
    "evaluate.problems": 20,
    "evaluate.samples": 2,
    "ray.num_cpus": 2,
}

_FACTS = {"time", "stage", "step", "crc"}
"""Of a row of metrics.jsonl, which are no figures."""

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]


def command(root: Path) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in SMALL.items()]
    sets.append(f"--set=mirror={root.parent / 'mirror'}")
    return [sys.executable, "-m", "pipeline.cli", "run", "--json", "--run-dir", str(root), *sets]


def interrupt(root: Path, reached: Callable[[str], bool]) -> tuple[int, float, list[str], str]:
    """Run, with Ctrl-C once `reached` says so of what was written to stderr so far: (exit code, seconds to end, what
    was left running, stderr)."""
    before = {p.pid for p in psutil.process_iter()}
    log = root.parent / f"{root.name}.err"
    with log.open("w") as errors:
        process = subprocess.Popen(command(root), stdout=subprocess.DEVNULL, stderr=errors)
    family: dict[int, float] = {}
    deadline = time.monotonic() + 800
    while process.poll() is None and not reached(log.read_text()) and time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children(recursive=True):
            family[child.pid] = child.create_time()
        time.sleep(0.5)
    assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.wait(timeout=60)
    took = time.monotonic() - began
    left = [p.name() for p in psutil.process_iter() if p.pid not in before and family.get(p.pid) == p.create_time()]
    return process.returncode, took, left, log.read_text()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, float, list[str]]:
    """A run that got Ctrl-C while MGPO was sampling: (root, exit code, seconds to end, what was left running)."""
    root = tmp_path_factory.mktemp("whole") / "run"
    code, took, left, _ = interrupt(root, lambda _: (root / "steps" / "mgpo" / "000001").exists())
    return root, code, took, left


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, int, float, list[str]]) -> tuple[Path, dict[str, object], str]:
    """The same command again: (root, its JSON, its stderr)."""
    root = interrupted[0]
    done = subprocess.run(command(root), capture_output=True, text=True, timeout=800, env=os.environ)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout), done.stderr


def test_an_interrupt_ends_every_process_and_says_how_to_go_on(interrupted: tuple[Path, int, float, list[str]]) -> None:
    _, code, took, left = interrupted
    assert code == 130
    assert took < 15
    assert left == []


def test_the_next_call_skips_what_was_done_and_finishes(finished: tuple[Path, dict[str, object], str]) -> None:
    root, summary, log = finished
    assert "acquire · done before, skipped" in log
    assert "sft · done before, skipped" in log
    assert re.search(r"mgpo · resumes at step [23] of 3", log)
    assert summary["problems"] == SMALL["synthesize.target"]
    assert [summary["stages"][s]["status"] for s in RUN_STAGES] == ["done"] * 6  # type: ignore[index]
    assert (root / "report.html").stat().st_size > 10_000


def test_the_ledger_adds_up_and_nothing_is_counted_twice(finished: tuple[Path, dict[str, object], str]) -> None:
    root = finished[0]
    trained: list[str] = []
    for step in sorted((root / "steps" / "mgpo").iterdir()):
        ledger = json.loads((step / "state.json").read_text())["ledger"]
        rollouts = read_records(step / "rollouts.parquet", Rollout)
        episodes = read_records(step / "episodes.parquet", Episode)
        assert ledger["issued"] == ledger["trained"] + ledger["filtered"] + ledger["failed"] == len(episodes) == 16
        assert ledger["trained"] == len(rollouts)
        trained += [r.episode_id for r in rollouts]
    assert len(trained) == len(set(trained))
    assert [str(finding) for finding in verify(RunDir(root))] == []
    steps = [row["step"] for row in read_metrics(RunDir(root))["mgpo-train"]]
    assert steps[-1] == SMALL["mgpo.steps"]


def test_the_figures_of_steps_that_alerts_name_are_logged(finished: tuple[Path, dict[str, object], str]) -> None:
    rows = read_metrics(RunDir(finished[0]))
    figures = {meter_of(stage, name)[1] for stage, some in rows.items() for row in some for name in row.keys() - _FACTS}
    alerts = (Path(__file__).parents[2] / "deploy" / "monitoring" / "alerts.yml").read_text()
    named = set(re.findall(r"ray_propose_(?:step|train|ledger)_\w+", alerts))
    assert named and named <= {name for figure in figures for name in figure.scraped}


def test_what_each_weight_update_cost_is_in_the_metrics(finished: tuple[Path, dict[str, object], str]) -> None:
    rows = read_metrics(RunDir(finished[0]))
    published = {row["step"]: row["train/published_bytes"] for row in rows["mgpo-train"]}
    *_, last = rows["mgpo-weights"]
    sampled = [row for row in rows["mgpo-weights"] if "step_to_first_token_s" in row]
    assert sampled and last["step"] == SMALL["mgpo.steps"]
    for row in sampled:
        assert row["pulled_bytes"] == published[row["step"]] > 0
        assert 0 < row["held_s"] < row["step_to_first_token_s"]
    assert last not in sampled  # the stage ended: nothing was sampled under its last version


def test_rollouts_are_the_tokens_of_their_episodes(finished: tuple[Path, dict[str, object], str]) -> None:
    root = finished[0]
    for step in sorted((root / "steps" / "mgpo").iterdir()):
        episodes = {e.id: e for e in read_records(step / "episodes.parquet", Episode)}
        for rollout in read_records(step / "rollouts.parquet", Rollout):
            episode = episodes[rollout.episode_id]
            for i, turn in enumerate(episode.turns):
                assert set(rollout.action_index[turn.start : turn.end]) == {i}
                assert set(rollout.loss_mask[turn.start : turn.end]) == {1}
            assert sum(rollout.loss_mask) == episode.sampled_tokens
            assert all(p <= 0 for p in rollout.logprobs)
            # On-policy: everything in step s was sampled under the version that step s - 1 left.
            assert {v for v in rollout.versions if v >= 0} == {int(step.name) - 1}


def test_the_data_set_is_distinct_accepted_and_probed(finished: tuple[Path, dict[str, object], str]) -> None:
    root = finished[0]
    problems = [json.loads(line) for line in (root / "dataset" / "problems.jsonl").read_text().splitlines()]
    origins = [json.loads(line) for line in (root / "dataset" / "provenance.jsonl").read_text().splitlines()]
    assert all(set(p) == {"question", "answer", "answer_kind"} for p in problems)
    assert len({p["question"] for p in problems}) == len(problems) == len(origins) == SMALL["synthesize.target"]
    verdicts: dict[str, Verdict] = {}
    probes: dict[str, Probe] = {}
    for step in (root / "steps" / "synthesize").iterdir():
        verdicts |= {v.problem_id: v for v in read_keyed(step / "verdicts.parquet", Verdict).values()}
        probes |= {p.problem_id: p for p in read_keyed(step / "probes.parquet", Probe).values()}
    for origin in origins:
        assert verdicts[origin["id"]].accepted
        assert sum(v.valid is True for v in verdicts[origin["id"]].votes) >= 2
        assert probes[origin["id"]].pass_at_k == origin["pass_at_k"]


def test_a_third_call_finds_everything_done(finished: tuple[Path, dict[str, object], str]) -> None:
    root, summary, _ = finished
    before = (root / "dataset" / "problems.jsonl").read_bytes()
    again = subprocess.run(command(root), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0
    assert again.stderr.count("done before, skipped") == len(RUN_STAGES)
    assert json.loads(again.stdout) == summary
    assert (root / "dataset" / "problems.jsonl").read_bytes() == before


def test_another_config_is_refused_with_the_field(finished: tuple[Path, dict[str, object], str]) -> None:
    again = subprocess.run([*command(finished[0]), "--set=mgpo.steps=4"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 2
    assert again.stdout == ""
    assert "mgpo.steps was 3, is now 4" in again.stderr
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.slow
def test_its_last_steps_trained_again_are_the_same_bit_for_bit(finished: tuple[Path, dict[str, object], str]) -> None:
    """The run trained step 3 in the process that had trained step 2, and not from its checkpoint."""
    replay = [sys.executable, "-m", "pipeline.cli", "replay", "--json", "--run-dir", str(finished[0])]
    done = subprocess.run(replay, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["step"], found["from"], found["compared_with"]) == (3, 2, "run")
    assert found["different"] == [] and found["tensors"] > 10


def test_on_another_machine_the_same_command_restores_everything_from_the_mirror(
    finished: tuple[Path, dict[str, object], str],
) -> None:
    root, summary, _ = finished
    elsewhere = root.parent / "elsewhere" / "run"
    shutil.copytree(root.parent / "mirror", elsewhere.parent / "mirror")
    again = subprocess.run(command(elsewhere), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("mirror · restores ") and again.stderr.count("done before, skipped") == len(
        RUN_STAGES
    )
    assert json.loads(again.stdout) == summary | {"run_dir": str(elsewhere)}
    for name in ("dataset/problems.jsonl", "metrics.jsonl", "ledger/mgpo/000003.jsonl"):
        assert (elsewhere / name).read_bytes() == (root / name).read_bytes()
    ledger = [sys.executable, "-m", "pipeline.cli", "ledger", "--json", "--run-dir", f"file://{root.parent}/mirror"]
    there = subprocess.run(ledger, capture_output=True, text=True, timeout=60)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["stages"]["mgpo"]["totals"]["live"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_runs_on_one_machine_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Started together, each with a Ray, pools and a trainer of its own."""
    roots = [tmp_path / name / "run" for name in ("one", "other")]
    runs = []
    for root in roots:
        root.parent.mkdir()
        with (root.parent / "out").open("w") as out, (root.parent / "err").open("w") as err:
            runs.append(subprocess.Popen(command(root), stdout=out, stderr=err))
    try:
        for root, run in zip(roots, runs, strict=True):
            assert run.wait(timeout=1700) == 0, (root.parent / "err").read_text()
            summary = json.loads((root.parent / "out").read_text())
            assert (summary["problems"], summary["run_dir"]) == (SMALL["synthesize.target"], str(root))
            assert [summary["stages"][s]["status"] for s in RUN_STAGES] == ["done"] * 6
            for stage in ("mgpo", "solve"):
                assert len(RunDir(root).steps(stage)) == SMALL[f"{stage}.steps"]
            assert accounts.audit(RunDir(root))["findings"] == []
    finally:
        for run in runs:
            run.terminate()
            run.wait(timeout=60)


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged_is_trained_again_from_its_steps(
    finished: tuple[Path, dict[str, object], str], tmp_path: Path
) -> None:
    """By the command in the line, in a shell: to the same bits, and the run goes on. In a fork, which has no mirror to
    restore it from."""
    root = tmp_path / "a fork"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=800)

    fork = shell(f"propose fork '{finished[0]}' --run-dir '{root}' --set evaluate.samples=1")
    assert fork.returncode == 0, fork.stderr
    weights = root / "checkpoints" / "solve" / f"step-{SMALL['solve.steps']:06d}" / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()  # it is shared
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    refused = shell(f"propose run '{root}'")
    assert refused.returncode == 2 and "model.safetensors: has SHA-256" in refused.stderr
    again = shell(refused.stderr.splitlines()[-1].split("`")[1])
    assert again.returncode == 0, again.stderr
    assert weights.read_bytes() == before
    done = shell(f"propose run '{root}' && propose verify '{root}' && propose ledger '{root}'")
    assert done.returncode == 0, done.stderr
