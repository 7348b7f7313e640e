"""What is done to a run on disk: `redo` and `fork`."""

import json
import os
from pathlib import Path

import pytest

from pipeline.commands import preflight, rework
from pipeline.commands.keys import REDO_KEYS
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store import manifest, metrics, survey
from pipeline.store.identity import identity_of
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES, first_reader, onwards
from pipeline.store.rundir import RunDir
from pipeline.store.verify import verify
from tests.pipeline import runs
from tests.pipeline.test_cli import propose, refused


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- redo


def test_redo_sets_a_stage_and_those_after_it_aside_and_nothing_else(capsys, tmp_path, finished):
    root = finished(tmp_path / "r")
    (root / "quarantine" / "solve").mkdir(parents=True)
    (root / "quarantine" / "solve" / "x.json").write_text("{}")
    assert propose(capsys, "report", "r")[0] == 0
    before = files(root)
    code, out, _ = propose(capsys, "redo", "synthesize", "r", "--no-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found) == list(REDO_KEYS) and found["stages"] == ["synthesize", "solve", "evaluate"]
    after = files(root)
    words = {"synthesize", "solve", "evaluate", "dataset", "synthesize.json", "solve.json", "evaluate.json"}
    words |= {"summary.json", "report.html"}  # they tell of what is not there any more
    assert before.keys() - after.keys() == {name for name in before if words & set(name.split("/")[:2])}
    kept = {n: c for n, c in after.items() if not n.startswith(".redone/") and n in before}
    assert {n for n, c in kept.items() if c != before[n]} == {"metrics.jsonl"}
    assert set(metrics.read(RunDir(root))) == {"sft", "mgpo", "mgpo-train"}
    aside = root / ".redone" / "1"
    assert (aside / "dataset" / "problems.jsonl").read_bytes() == before["dataset/problems.jsonl"]
    for name in ("metrics.jsonl", "summary.json", "report.html"):
        assert (aside / name).read_bytes() == before[name]
    assert survey.finished(Config(domain="mini"), root, ["acquire", "sft", "mgpo"])
    assert not survey.finished(Config(domain="mini"), root, list(RUN_STAGES))
    assert [r.status for r in survey.reached(RunDir(root), Config(domain="mini"))][3:] == ["not begun"] * 3


def test_redo_looks_first(capsys, tmp_path, finished):
    root = finished(tmp_path / "r")
    before = files(root)
    code, out, _ = propose(capsys, "redo", "solve", "r", "--dry-run")
    assert code == 0 and "would set aside solve, evaluate" in out and "steps/solve" not in out
    assert "expected one of acquire" in refused(capsys, "redo", "nothing", "r")
    held = RunDir.open(root, Config(domain="mini"))
    assert "in use by process" in refused(capsys, "redo", "solve", "r", "--no-run")
    held.close()
    assert {n: c for n, c in files(root).items() if n != ".lock"} == {n: c for n, c in before.items() if n != ".lock"}
    runs.upto(tmp_path / "s", "acquire").close()
    assert "nothing of mgpo" in refused(capsys, "redo", "mgpo", "s", "--no-run")


def test_redo_sets_nothing_aside_where_no_run_could_make_it_again(capsys, tmp_path, finished, monkeypatch):
    root = finished(tmp_path / "r")
    before = files(root)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    code, out, err = propose(capsys, "redo", "evaluate", "r")
    assert (code, out) == (75, "") and "this run needs about 1 GB" in err and "set aside" not in err
    assert files(root) == before
    assert propose(capsys, "redo", "evaluate", "r", "--no-run")[0] == 0


def test_a_stage_is_done_again_by_the_same_command(capsys, tmp_path):
    root = tmp_path / "r"
    code, _, err = propose(capsys, "acquire", "--run-dir", "r", "-q")
    assert (code, err) == (0, "")
    before = (root / "stages" / "acquire.json").read_text()
    propose(capsys, "redo", "acquire", "r", "--no-run")
    assert not (root / "skills").exists()
    assert propose(capsys, "acquire", "r", "-q")[0] == 0
    assert json.loads((root / "stages" / "acquire.json").read_text())["result"] == json.loads(before)["result"]


# ---------------------------------------------------------------- fork


@pytest.mark.parametrize(
    ("field", "again"),
    [
        ("seed", "acquire"), ("teacher.kind", "acquire"), ("proposer.path", "sft"), ("trainer.dtype", "sft"),
        ("mgpo.curriculum.alpha", "sft"), ("mgpo.lr", "mgpo"), ("reward.base", "mgpo"), ("prober.k", "sft"),
        ("committee.spot_checks", "mgpo"), ("committee.quorum", "sft"), ("synthesize.target", "synthesize"),
        ("solve.base.path", "solve"), ("evaluate.samples", "evaluate"), ("what.nobody.names", "acquire"),
        ("sandbox.minimum", "acquire"), ("committee.canaries", "mgpo"),
    ],
)  # fmt: skip
def test_a_setting_changes_the_stage_that_reads_it_first(field, again):
    assert first_reader(field) == again


def test_every_section_says_which_stage_reads_it_or_only_places_work():
    placing = {"name", "mirror", "replies", "ray", "watchdog_s", "on_stall", "max_stage_restarts", "trackers"}
    read = {name for stage in RUN_STAGES.values() for name in stage.settings}
    assert set(Config.model_fields) - placing <= read
    assert onwards("solve") == ["solve", "evaluate"]


def test_a_fork_shares_what_stays_the_same_and_leaves_the_other_alone(capsys, tmp_path, finished):
    root = finished(tmp_path / "runs" / "mini-1")
    before = files(root)
    code, out, _ = propose(capsys, "fork", "mini-1", "--set", "solve.lr=1e-4", "--json")
    assert code == 0
    found = json.loads(out)
    new = Path(found["run_dir"])
    assert found["changed"] == ["solve.lr"] and found["shared"] == ["acquire", "sft", "mgpo", "synthesize"]
    assert found["again"] == ["solve", "evaluate"] and new.parent == Path("runs") and new.name != "mini-1"
    forked = {n: content for n, content in files(new).items() if not n.startswith("tensorboard/")}
    others = {"config.yaml", "metrics.jsonl", ".lock", "adversary.json"}
    words = {"solve", "evaluate", "solve.json", "evaluate.json", "tensorboard"}
    shared = {n for n in before if n not in others and not words & set(n.split("/")[:2])}
    assert forked.keys() == shared | {"config.yaml", "metrics.jsonl"}
    assert all(forked[n] == before[n] for n in shared if not n.startswith("stages/"))
    results = [manifest.read(path)["run"] for path in (new / "stages").glob("*.json")]
    assert set(results) == {identity_of(loading.load(new / "config.yaml"))}, "a result says of which run it is"
    assert {"dataset/problems.jsonl", "stages/mgpo.json"} <= shared
    assert os.path.samefile(root / "steps/mgpo/000001/episodes.parquet", new / "steps/mgpo/000001/episodes.parquet")
    assert not os.path.samefile(root / "stages/mgpo.json", new / "stages/mgpo.json"), "what may be replaced is no link"
    assert files(root) == before
    config = RunDir.read(new)[1]
    assert config.solve.lr == 1e-4
    assert not {s for s in metrics.read(RunDir(new)) if s.startswith(("solve", "evaluate"))}
    run = RunDir.open(new, config)  # and it is a run that goes on
    assert run.result("synthesize") and not run.result("solve")
    run.close()
    assert "is there already" in refused(capsys, "fork", "mini-1", "--set", "solve.lr=1e-4")


def test_the_board_of_a_fork_has_the_rows_of_the_stages_that_it_shares(tmp_path, finished):
    root = finished(tmp_path / "runs" / "mini-1")
    new = RunDir(Path(rework.fork(root, ["solve.lr=1e-4"], None, False)["run_dir"]))
    log = Metrics(new)
    log.log("solve", 1, {"reward": 0.5})
    log.close()
    assert [found for found in verify(new) if found.unit == "tensorboard"] == []


def test_a_fork_that_changes_nothing_or_everything(capsys, tmp_path, finished):
    config = Config(domain="mini")
    from pipeline.store.identity import default_root

    root = finished(tmp_path / default_root(config))
    name = root.name
    assert "compute the same" in refused(capsys, "fork", name, "--set", "ray.num_cpus=3")
    code, out, _ = propose(capsys, "fork", name, "--set", "seed=9", "--dry-run")
    assert code == 0 and "would share no stage" in out
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [name]
    with pytest.raises(Failure, match="holds no config"):
        rework.fork(tmp_path / "absent", [], None, False)


def test_a_fork_goes_where_links_cannot(tmp_path, monkeypatch, finished):
    root = finished(tmp_path / "runs" / "mini-1", "sft")
    monkeypatch.setattr(rework.os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    found = rework.fork(root, ["mgpo.lr=1e-4"], None, False)
    new = Path(found["run_dir"])
    assert files(new)["steps/sft/000001/episodes.parquet"] == files(root)["steps/sft/000001/episodes.parquet"]
    assert found["bytes"] > 0
