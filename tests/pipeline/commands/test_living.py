"""Living with runs: which there are, how far one is, what a run would do, a stage done again, a run forked."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.commands import plan, rework, status, summary
from pipeline.commands.keys import PLAN_KEYS
from pipeline.config import Config, loading
from pipeline.store import accounts, events, metrics, survey
from pipeline.store.digests import seal
from pipeline.store.lock import in_use
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from tests.pipeline import runs
from tests.pipeline.test_cli import propose, refused


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- runs and status


def test_runs_are_listed_with_stage_age_size_and_state(capsys, tmp_path, finished):
    finished(tmp_path / "runs" / "done-1")
    finished(tmp_path / "runs" / "half-2", "sft")
    held = RunDir.open(tmp_path / "runs" / "held-3", Config(domain="mini"))
    finished(tmp_path / "runs" / "broken-4", "acquire")
    (tmp_path / "runs" / "broken-4" / "config.yaml").write_text("seed: [")
    (tmp_path / "runs" / "no-run").mkdir()
    found = {run["name"]: run for run in status.runs(Path("runs"))["runs"]}
    held.close()
    assert {name: (run["state"], run["stage"]) for name, run in found.items()} == {
        "done-1": ("done", None), "half-2": ("stopped", "mgpo"), "held-3": ("running", "acquire"),
        "broken-4": ("unreadable", None),
    }  # fmt: skip
    assert found["done-1"]["bytes"] == sum(
        p.stat().st_size for p in (tmp_path / "runs" / "done-1").rglob("*") if p.is_file()
    )
    code, out, _ = propose(capsys, "runs")
    assert code == 0 and all(len(line) <= 60 for line in out.splitlines()[:5])
    assert "broken-4: runs/broken-4/config.yaml: is not the config that the run wrote" in out


def test_a_stage_done_by_itself_is_no_run_that_was_stopped(tmp_path):
    run = RunDir.open(tmp_path / "r", Config(domain="mini"))
    run.finish("evaluate", {}, 48.0)
    run.close()
    found = status.status(tmp_path / "r")
    assert (found["state"], found["stage"]) == ("done", None)
    assert status.render(found, str).splitlines()[0].endswith("· done: evaluate alone")


def test_the_run_that_is_meant_where_none_is_named_works_now_or_worked_last(capsys, tmp_path, finished):
    for moment, name in ((3000, "failed-1"), (2000, "done-2"), (1000, "held-3")):
        finished(tmp_path / "runs" / name, "acquire")
        for path in (tmp_path / "runs" / name).rglob("*"):
            os.utime(path, (moment, moment))
    held = RunDir.open(tmp_path / "runs" / "held-3", RunDir.read(tmp_path / "runs" / "held-3")[1])
    code, _, err = propose(capsys, "ledger")
    held.close()
    assert (code, err) == (0, "propose: runs/held-3: of 3 in runs/, the one that works now\n")
    os.utime(tmp_path / "runs" / "done-2" / "metrics.jsonl", (4000, 4000))
    assert propose(capsys, "ledger")[2] == "propose: runs/done-2: of 3 in runs/, the one that worked last\n"


def test_no_runs(capsys, tmp_path):
    assert "runs: no folder" in refused(capsys, "runs")
    assert "no run in runs/" in refused(capsys, "status")
    assert not (tmp_path / "runs").exists()


def logged(run, stage, steps):
    """Rows of the metrics, each at its moment."""
    for step, moment in steps:
        with Metrics(run) as log, pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics.time, "time", lambda moment=moment: moment)
            log.log(stage, step, {})


def test_status_of_a_run_at_work(tmp_path):
    """A run whose third MGPO step was written just now, ten seconds after the second, which took as long."""
    run = runs.upto(tmp_path / "r", "sft")
    events.append(run, "stage_started", stage="mgpo", steps=0, pid=os.getpid())
    for number in (1, 2, 3):
        with run.new_step("mgpo", number):
            pass
    now = time.time()
    logged(run, "mgpo", [(1, now - 20), (2, now - 10), (3, now)])
    found = status.status(tmp_path / "r")
    assert (found["state"], found["stage"]) == ("running", "mgpo")
    mgpo = found["stages"]["mgpo"]
    assert (mgpo["status"], mgpo["done"], mgpo["total"], mgpo["unit"]) == ("part done", 3, 12, "step")
    assert mgpo["rate_s"] == pytest.approx(10) and found["left_s"] == pytest.approx(90)
    assert found["since"] <= now + 1 and str(tmp_path / "r" / "events.jsonl") in found["logs"]
    shown = status.render(found, str)
    assert "running: mgpo since" in shown and "about 1 min 30 s" in shown
    (row,) = (line for line in status.render(found | {"since": now - 65}, str).splitlines() if line.startswith("mgpo"))
    assert re.split("  +", row) == ["mgpo", "running", "3/12 steps", "1 min 5 s", "about 1 min 30 s"]
    run.close()
    assert status.status(tmp_path / "r")["state"] == "stopped"


def test_status_of_a_stage_that_has_counted_nothing_yet(tmp_path):
    run = runs.upto(tmp_path / "r", "acquire")
    events.append(run, "stage_started", stage="sft", steps=0, pid=os.getpid())
    shown = {line.split()[0]: line for line in status.render(status.status(tmp_path / "r"), str).splitlines()}
    assert re.split("  +", shown["sft"])[:3] == ["sft", "running", "models start"]
    assert re.split("  +", shown["mgpo"])[:3] == ["mgpo", "not begun", "-"]
    run.close()
    assert "models start" not in status.render(status.status(tmp_path / "r"), str)


def test_status_of_a_solver_that_is_warmed_up_first(tmp_path):
    run = runs.upto(tmp_path / "r", "synthesize")
    events.append(run, "stage_started", stage="solve", steps=0, pid=os.getpid())
    logged(run, "solve-warmup", [(step, 1000 + step) for step in range(1, 8)])
    shown = {line.split()[0]: line for line in status.render(status.status(tmp_path / "r"), str).splitlines()}
    assert re.split("  +", shown["solve"])[:3] == ["solve", "running", "7 warm-up steps"]
    run.finish("solve.warmup", {"solutions": 9}, 1.0)
    solve = survey.reached(run, Config(domain="mini"))[4]
    assert (solve.unit, solve.done, solve.total) == ("step", 0, Config(domain="mini").solve.steps)
    run.close()


def test_an_attempt_that_is_sent_out_is_a_sign_of_life(tmp_path):
    root = tmp_path / "r"
    runs.upto(root, "sft").close()
    for path in root.rglob("*"):
        os.utime(path, (1000, 1000))
    assert survey.last_sign(root) == 1000
    segment = root / "ledger" / "sft" / "000002.jsonl"
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.touch()
    os.utime(segment, (2000, 2000))
    assert survey.last_sign(root) == 2000


def test_a_first_step_that_compiled_does_not_count_for_the_rate(tmp_path):
    run = runs.upto(tmp_path / "r", "acquire")
    with Metrics(run) as log:
        log.log("sft-ledger", 5, {"trained": 902.0})
    logged(run, "sft", [(step, 1000 + 37 + 0.4 * step) for step in range(1, 41)])
    sft = survey.reached(run, Config(domain="mini"))[1]
    assert (sft.done, sft.total, sft.unit) == (40, 678, "step")
    assert sft.rate_s == pytest.approx(0.4) and sft.left_s == pytest.approx(0.4 * 638)
    run.close()


def test_logs_of_ray_are_those_of_the_runs_own_process(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for session in ("session_2026-01-01_1_77", "session_2026-01-02_2_88"):
        (tmp_path / "ray" / session / "logs").mkdir(parents=True)
    run = runs.upto(tmp_path / "r", "acquire")
    events.append(run, "stage_started", stage="sft", steps=0, pid=77)
    run.close()
    assert status.status(tmp_path / "r")["logs"][-1] == str(tmp_path / "ray" / "session_2026-01-01_1_77" / "logs")


def test_looking_writes_nothing_and_takes_no_run(capsys, tmp_path, finished):
    finished(tmp_path / "runs" / "a", "sft")
    before = files(tmp_path)
    for command in (("runs",), ("status",), ("run", "runs/a", "--dry-run"), ("mgpo", "a", "--dry-run", "--json")):
        assert propose(capsys, *command)[0] == 0
    assert files(tmp_path) == before
    RunDir.open(tmp_path / "runs" / "a", Config(domain="mini")).close()


def test_in_use(tmp_path):
    assert not in_use(tmp_path / "none")
    run = RunDir.open(tmp_path / "r", Config(domain="mini"))
    code = "import sys; from pathlib import Path; from pipeline.store.lock import in_use; "
    code += f"print(in_use(Path({str(tmp_path / 'r')!r})))"
    asked = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(asked, env=env, capture_output=True, text=True).stdout == "True\n"
    run.close()
    assert subprocess.run(asked, env=env, capture_output=True, text=True).stdout == "False\n"


# ---------------------------------------------------------------- dry run


def test_a_plan_says_what_would_be_done_and_takes_times_from_a_run_beside_it(tmp_path, finished):
    finished(tmp_path / "runs" / "old")
    found = plan.plan(loading.load(None, ["mgpo.steps=24"]), tmp_path / "runs" / "new", list(RUN_STAGES))
    assert {stage: r["do"] for stage, r in found["stages"].items()} == dict.fromkeys(RUN_STAGES, "run")
    assert found["stages"]["mgpo"]["left_s"] == pytest.approx(2 * 410) and found["stages"]["sft"]["left_s"] == 130
    assert found["memory_gb"]["proposer"] > 0.5 and found["refused"] == [] and list(found) == list(PLAN_KEYS)
    assert not (tmp_path / "runs" / "new").exists()
    alone = plan.plan(Config(domain="mini"), tmp_path / "elsewhere" / "new", ["acquire", "sft"])
    assert alone["stages"]["sft"]["left_s"] is None and "not known" in plan.render(alone, str)


def test_a_plan_of_a_run_half_done_skips_resumes_and_says_what_would_be_refused(tmp_path, finished):
    root = finished(tmp_path / "r", "sft")
    run = RunDir.open(root, Config(domain="mini"))
    with run.new_step("mgpo", 1):
        pass
    run.close()
    config = loading.load(None, ["evaluate.benchmark=absent.jsonl"])
    found = plan.plan(config, root, list(RUN_STAGES))
    assert [r["do"] for r in found["stages"].values()] == ["skip", "skip", "resume", "run", "run", "run"]
    other, missing = found["refused"]
    assert "made with another config" in other and missing.startswith("benchmark:")
    assert "would be refused: benchmark" in plan.render(found, str)


# ---------------------------------------------------------------- summary and ledger


def test_the_summary_says_in_words_whether_it_got_better(tmp_path, finished):
    run = RunDir(finished(tmp_path / "r"))
    shown = summary.render(run, Config(domain="mini"), str)
    assert "Mean@4 on 240 problems: 42.5 % → 50.0 %" in shown
    assert "solver before                 42.5 %  95 % interval 38.0 % to 47.0 %" in shown
    assert "Solver: it got better, +7.5 points (95 % interval +1.5 to +13.5)." in shown
    assert "A short run" not in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80


def test_the_summary_says_what_became_of_accepted_problems_that_are_no_rows(tmp_path, finished):
    run = RunDir(finished(tmp_path / "r", "synthesize"))
    result = run.result("synthesize")["result"]
    told = "Accepted, and no row of the data set: 7 that no prober solves above chance, 5 copies, 3 answer stated"
    assert told in " ".join(summary.render(run, Config(domain="mini"), str).split())
    run.finish("synthesize", result | {"unsolved": 0, "left_out": {"copies": 4, "held-out combinations": 1}}, 1.0)
    told = "Accepted, and no row of the data set: 4 copies, 1 held-out combinations."
    assert told in " ".join(summary.render(run, Config(domain="mini"), str).split())
    run.finish("synthesize", result | {"unsolved": 0, "left_out": {"copies": 0}}, 1.0)
    assert "no row of the data set" not in summary.render(run, Config(domain="mini"), str)


def test_a_short_run_says_what_the_full_one_adds(tmp_path, finished):
    run = RunDir(finished(tmp_path / "r", "sft"))
    short = loading.load(None, ["mgpo.steps=2", "synthesize.target=24"])
    shown = summary.render(run, short, str)
    assert "A short run: mgpo.steps 2 of 12, synthesize.target 24 of 240." in " ".join(shown.split())
    assert "solver before" not in shown


def test_a_summary_older_than_a_result_is_made_again(tmp_path, finished):
    root = finished(tmp_path / "r", "solve")
    run = RunDir(root)
    (root / "summary.json").write_text(seal({"name": "old", "stages": {}}))
    os.utime(root / "summary.json", (1, 1))
    assert summary.of(run)["problems"] is not None
    os.utime(root / "summary.json")
    assert summary.of(run) == {"name": "old", "stages": {}, "run_dir": str(root)}
    (root / "summary.json").write_text("{")
    assert summary.of(run)["problems"] is not None
    moved = shutil.copytree(root, tmp_path / "moved")
    from pipeline import report

    report.write(RunDir(root))
    shutil.copy2(root / "summary.json", moved / "summary.json")
    assert summary.of(RunDir(moved))["run_dir"] == str(moved)


def test_the_ledger_of_a_forked_run_is_that_of_the_shared_stages(tmp_path, finished):
    root = finished(tmp_path / "runs" / "mini-1")
    new = Path(rework.fork(root, ["solve.lr=1e-4"], None, False)["run_dir"])
    ours, theirs = (accounts.audit(RunDir(r))["stages"] for r in (new, root))
    assert {s: a["totals"] for s, a in ours.items()} == {s: theirs[s]["totals"] for s in ours} and set(ours) == {"mgpo"}
