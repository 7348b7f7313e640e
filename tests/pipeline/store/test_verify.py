"""Verifying a run: what was changed is found and named, and what depends on it is said."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.commands import rework
from pipeline.commands import verify as command
from pipeline.config import loading
from pipeline.flow.steps import judged_in
from pipeline.records import Failure
from pipeline.store import events, manifest, own, verify
from pipeline.store.digests import MANIFEST, write_manifest
from pipeline.store.identity import default_root
from pipeline.store.manifest import Damage, seal_folder
from pipeline.store.rundir import RunDir
from tests.pipeline import made
from tests.pipeline.advice import World
from tests.pipeline.damage import delete, files, flip, flipped, kind
from tests.pipeline.store.verifying import found, propose


def test_a_run_as_it_was_written_has_no_findings(capsys, root):
    assert found(root) == []
    code, out, _ = propose(capsys, "verify", str(root), "--json")
    assert code == 0 and json.loads(out)["findings"] == [] and json.loads(out)["files"] == len(files(root))


@pytest.mark.parametrize("damage", [flipped, delete], ids=lambda damage: damage.__name__)
def test_each_kind_of_file_is_missed_and_a_bit_of_it_too(whole, root, damage):
    """All other damages, and what mends them: `test_damage`, nightly."""
    for name in {kind(name): name for name in files(whole)}.values():
        if damage(root / name, root) is not False:  # an empty file has no bit
            assert next(verify._all(RunDir(root)), None) is not None, name
        shutil.copyfile(whole / name, root / name)


def test_it_says_the_file_what_is_wrong_who_needs_it_and_what_mends_it(capsys, root):
    flip(root / "dataset" / "problems.jsonl", 99)
    code, out, _ = propose(capsys, "verify", str(root))
    assert code == 2
    assert "dataset/problems.jsonl: has SHA-256" in out and "needed by solve" in out
    assert f"`propose verify {root} --repair` makes it again" in out


def test_verdicts_are_those_of_their_episodes_whatever_the_order_of_the_rows(root):
    """Reversed, with digests to match: paired by order, the wrong problems would be taken for accepted."""
    step = root / "steps" / "synthesize" / "000001"
    before = list(judged_in(step))
    for name in ("verdicts", "probes"):
        table = pq.read_table(step / f"{name}.parquet")
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), step / f"{name}.parquet")
    seal_folder(step, "steps/synthesize/000001", [p.name for p in step.iterdir() if p.name != MANIFEST])
    assert list(judged_in(step)) == before
    assert [j.verdict.problem_id for j in before] == [j.episode.submitted.id for j in before]


def test_a_verdict_on_another_problem_is_refused_although_digests_match(root):
    step = root / "steps" / "synthesize" / "000001"
    table = pq.read_table(step / "verdicts.parquet")
    names = table.column("episode_id").to_pylist()
    swapped = [names[1], names[0], *names[2:]]
    table = table.set_column(0, table.schema.field(0), pa.chunked_array([swapped]))
    pq.write_table(table, step / "verdicts.parquet")
    seal_folder(step, "steps/synthesize/000001", [p.name for p in step.iterdir() if p.name != MANIFEST])
    with pytest.raises(Damage, match="the verdict of synthesize-000001-"):
        list(judged_in(step))


@pytest.mark.parametrize("name", ["summary.json", "adversary.json", "stages/evaluate.json", "tensorboard/*"])
def test_what_is_gone_is_noticed_where_another_file_tells_of_it(root, name):
    (path,) = root.glob(name)
    path.unlink()
    (finding,) = verify.verify(RunDir(root))
    assert finding.path == name.removesuffix("/*")
    assert f"rm -r {path}" not in verify.mend(RunDir(root), finding), "what is not there cannot be deleted"


@pytest.mark.parametrize("name", ["stages/mgpo.json", "steps/mgpo/000002/episodes.parquet", "metrics.jsonl"])
@pytest.mark.parametrize("what", ["verify", "ledger", "report", "run"])
def test_nobody_waits_for_whoever_writes_to_a_pipe(capsys, root, name, what):
    (root / name).unlink()
    os.mkfifo(root / name)
    code, _, err = propose(capsys, what, "--run-dir", str(root))
    assert code == 2 and f"{root / name}: is neither a file nor a folder" in err and err.count("\n") == 1


def test_a_manifest_of_another_step_takes_no_file_of_this_one_away(capsys, root):
    shutil.copy(root / "steps/synthesize/000001" / MANIFEST, root / "steps/mgpo/000001" / MANIFEST)
    assert "steps/mgpo/000001/rollouts.parquet" not in {f.path for f in verify.verify(RunDir(root))}
    propose(capsys, "verify", "--run-dir", str(root), "--repair")
    assert (root / "steps/mgpo/000001/rollouts.parquet").is_file()


@pytest.mark.parametrize("name", ["metrics.jsonl", "adversary.json", "stages/sft.json", "dataset/problems.jsonl"])
def test_a_report_that_is_without_something_says_so(capsys, root, name):
    """On its page too; else other figures would be shown in silence."""
    assert propose(capsys, "report", str(root))[::2] == (0, "")
    before = (root / "summary.json").read_bytes()
    (root / name).unlink()
    (finding,) = (f for f in verify.verify(RunDir(root)) if f.unit not in own.PAGES)
    line = f"{finding}; {verify.mend(RunDir(root), finding)}"
    assert propose(capsys, "report", str(root))[::2] == (0, f"propose: report: {line}\n")
    assert name.startswith("dataset") or (root / "summary.json").read_bytes() != before
    assert f"<li>{finding}</li>" in (root / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "other"),
    [("adversary.json", "prompts.json"), ("adversary.json", "summary.json"), ("summary.json", "adversary.json")],
)
def test_a_sealed_file_in_the_place_of_another_is_noticed(capsys, root, name, other):
    (root / name).write_bytes((root / other).read_bytes())
    (finding,) = verify.verify(RunDir(root))
    assert finding.path == name
    assert propose(capsys, "report", str(root))[0] == (2 if name == "adversary.json" else 0)  # the other is made of it


@pytest.mark.parametrize("name", ["stages/acquire.json", "stages/evaluate.json", "adversary.json"])
def test_a_report_of_a_run_with_a_link_to_nowhere_is_one_line(capsys, root, name):
    (root / name).unlink()
    (root / name).symlink_to("/nowhere")
    code, _, err = propose(capsys, "report", str(root))
    (finding,) = verify.verify(RunDir(root))
    assert code == 2 and err.count("\n") == 1 and verify.mend(RunDir(root), finding) in err


@pytest.mark.parametrize("name", ["summary.json", "report.html"])
def test_a_folder_in_the_place_of_a_page_is_taken_away_by_what_is_advised(root, monkeypatch, name):
    (root / name).unlink()
    (root / name).mkdir()
    assert World(monkeypatch).followed("report", root) == "" and verify.verify(RunDir(root)) == []


def test_content_that_is_written_over_with_the_time_it_had_is_digested_again(root):
    path = root / "steps/mgpo/000002/episodes.parquet"
    assert verify.verify(RunDir(root)) == []
    at = path.stat()
    flip(path, 99)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert [f.path for f in verify.verify(RunDir(root))] == ["steps/mgpo/000002/episodes.parquet"]


def test_a_config_names_the_run_that_is_verified(capsys, tmp_path, monkeypatch):
    """And not the newest, which is verified where nothing is named."""
    monkeypatch.chdir(tmp_path)
    ours, other = default_root(made.config()), default_root(made.config(seed=1))
    made.make(ours).close()
    made.make(other, seed=1).close()
    os.utime(ours / "config.yaml", (1, 1))

    def place(*args):
        with pytest.raises(SystemExit):
            main(["verify", "--json", *args])
        return json.loads(capsys.readouterr().out)["place"]

    (tmp_path / "c.yaml").write_text(loading.dump(made.config()))
    assert place() == place(str(other)) == str(tmp_path / other)
    assert place("--config", "c.yaml") == place(*made.AS_SET) == str(tmp_path / ours)
    assert place(str(other), "--config", "c.yaml") == str(tmp_path / other)


def test_a_data_set_is_verified_anywhere_without_its_run(capsys, root, tmp_path):
    copy = shutil.copytree(root / "dataset", tmp_path / "elsewhere" / "copy")
    shutil.rmtree(root)
    made_from = json.loads((copy / MANIFEST).read_text())["made_from"]
    assert {"skills/manifest.json", "steps/synthesize/000002/manifest.json"} <= made_from.keys()
    assert propose(capsys, "verify", str(copy))[0] == 0
    (copy / "more.jsonl").write_text("{}\n")
    code, out, _ = propose(capsys, "verify", str(copy))
    assert code == 2 and "copy/more.jsonl: is in no manifest" in out and "move it away" in out
    (copy / "more.jsonl").unlink()
    (copy / MANIFEST).rename(tmp_path / "away")
    code, out, _ = propose(capsys, "verify", str(copy))
    assert code == 2 and f"copy/{MANIFEST}: is missing" in out
    (tmp_path / "away").rename(copy / MANIFEST)
    for name in ("problems.jsonl", "provenance.jsonl", MANIFEST):
        content = (copy / name).read_bytes()
        flip(copy / name, 77)
        code, out, _ = propose(capsys, "verify", str(copy))
        assert code == 2 and name in out
        (copy / name).write_bytes(content)


def test_a_data_set_whose_rows_changed_places_is_refused_although_digests_match(root):
    folder = root / "dataset"
    lines = (folder / "problems.jsonl").read_text().splitlines(keepends=True)
    (folder / "problems.jsonl").write_text("".join([lines[1], lines[0], *lines[2:]]))
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
    seal_folder(folder, "dataset", files, made_from={})
    assert "row 1" in str(next(command.dataset(folder)))


def test_a_step_of_another_run_in_the_place_of_ours_is_noticed(root, tmp_path):
    """Sound in itself, and not the one that was committed."""
    made.make(tmp_path / "other", upto="mgpo", seed=1).close()
    for stage in ("acquire", "mgpo"):
        shutil.rmtree(root / "steps" / stage / "000002")
        shutil.copytree(tmp_path / "other" / "steps" / stage / "000002", root / "steps" / stage / "000002")
    assert {"steps/acquire/000002", "steps/mgpo/000002"} <= {f.unit for f in verify.verify(RunDir(root))}


def test_a_result_that_lacks_what_it_says_it_left_is_noticed(root):
    shutil.rmtree(root / "ledger" / "sft")
    (root / "quarantine" / "mgpo" / "mgpo-000001-3.json").unlink()
    lines = found(root)
    assert any("ledger/sft" in line for line in lines) and any("quarantine/mgpo/mgpo-0" in line for line in lines)


@pytest.mark.parametrize("command", ["verify", "ledger", "report", "run"])
def test_a_run_of_before_there_were_digests_is_refused_with_the_way_out(capsys, root, command):
    """And kept as it is; one that has lost all its manifests has not become one."""
    for path in root.glob("steps/*/*/manifest.json"):
        path.unlink()
    if command in ("verify", "ledger"):
        assert "manifest.json: is missing" in "".join(propose(capsys, command, "--run-dir", str(root))[1:])
    for path in root.glob("stages/*.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    config = root / "config.yaml"
    config.write_text(config.read_text().rpartition("# sha256")[0])
    before = {name: (root / name).read_bytes() for name in files(root)}
    code, out, err = propose(capsys, command, "--run-dir", str(root))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "made by a version that wrote no digests" in err and "take another --run-dir" in err
    assert {name: (root / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("command", ["verify", "ledger", "report"])
def test_files_that_changed_places_are_no_fault_of_ours(capsys, root, command):
    step = root / "steps" / "mgpo" / "000001"
    for one, other in (("rollouts", "verdicts"), ("episodes", "probes")):
        (step / f"{one}.parquet").rename(step / "aside")
        (step / f"{other}.parquet").rename(step / f"{one}.parquet")
        (step / "aside").rename(step / f"{other}.parquet")
    code, out, err = propose(capsys, command, "--run-dir", str(root))
    assert code == 2 and "steps/mgpo/000001/" in out + err


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Stage -> a run that was stopped in the middle of it."""
    made_so_far = {}

    def of(stage, copy):
        if stage not in made_so_far:
            made_so_far[stage] = tmp_path_factory.mktemp("stopped") / "run"
            made.make(made_so_far[stage], upto=stage, done=False).close()
        return shutil.copytree(made_so_far[stage], copy)

    return of


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("acquire", "prompts.json"),
        ("acquire", "events.jsonl"),
        ("acquire", "skills/manifest.json"),
        ("mgpo", "stages/sft.json"),
        ("mgpo", "quarantine/mgpo/mgpo-000001-3.json"),
        ("mgpo", "metrics.jsonl"),
        ("solve", "quarantine/solve/solve-000001-0/0.json"),
        ("synthesize", "dataset/manifest.json"),
        ("synthesize", "dataset/problems.jsonl"),
        ("synthesize", "stages/mgpo.json"),
    ],
)
def test_what_a_stage_that_was_stopped_has_written_is_missed(stopped, tmp_path, stage, name):
    """Although no result vouches for it yet."""
    root = stopped(stage, tmp_path / "run")
    assert found(root) == []
    (root / name).unlink()
    assert [f.path for f in verify.verify(RunDir(root))] == [name]


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_folder_in_their_place_keeps_no_run_from_going_on_once_what_is_advised_is_done(
    stopped, tmp_path, monkeypatch, name
):
    root = stopped("solve", tmp_path / "a run")
    (root / name).unlink()
    (root / name).mkdir()
    assert World(monkeypatch).followed("run", root) == "" and (root / f"{name}.away").is_dir()
    assert (root / "stages" / "evaluate.json").is_file()


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_lines_that_a_step_was_written_after_are_missed(stopped, tmp_path, name):
    """Whole ones, so that those that are left follow from each other."""
    root = stopped("mgpo", tmp_path / "run")
    lines = (root / name).read_bytes().splitlines(keepends=True)
    (root / name).write_bytes(b"".join(lines[: 1 if name == "metrics.jsonl" else -3]))
    assert [f.path for f in verify.verify(RunDir(root)) if f.path != "tensorboard"] == [name]


def test_attempts_that_are_out_may_be_lost_with_a_machine_and_may_not_be_others(stopped, tmp_path):
    root = stopped("mgpo", tmp_path / "run")
    path = root / "ledger" / "mgpo" / "000004.jsonl"
    content = path.read_bytes()
    for left in (b"", content[: len(content) // 2], content[:-1]):
        path.write_bytes(left)
        assert found(root) == []
    for other in (b"[]", content.replace(b"-2", b"-7"), content[:-1] + b" "):
        path.write_bytes(other)
        assert [f.unit for f in verify.verify(RunDir(root))] == ["ledger/mgpo/000004"]


def test_a_board_that_lost_rows_is_noticed_and_one_that_a_process_died_over_is_not(root):
    (path,) = (root / "tensorboard").iterdir()
    ends = [0]
    content = path.read_bytes()
    while ends[-1] < len(content):
        ends.append(ends[-1] + 16 + int.from_bytes(content[ends[-1] : ends[-1] + 8], "little"))
    path.write_bytes(content[: ends[-2]])
    assert found(root) == []
    path.write_bytes(content[: ends[-3]])
    assert [f.path for f in verify.verify(RunDir(root))] == ["tensorboard"]
    events.append(RunDir(root), "stage_started", stage="evaluate", steps=2, pid=1)  # which died, too
    assert found(root) == []


def test_a_result_that_is_taken_away_on_purpose_is_not_missed(root, tmp_path):
    fork = tmp_path / "fork"
    rework.fork(root, ["solve.lr=1e-4"], fork, False)
    assert found(fork) == []
    rework.redo(root, "mgpo", False)
    assert found(root) == []
    (root / "stages" / "sft.json").unlink()
    assert [f.path for f in verify.verify(RunDir(root))] == ["stages/sft.json"]


def test_what_follows_from_others_is_named_after_them(root):
    names = ["stages/mgpo.json", "steps/mgpo/000001/state.json", "dataset/problems.jsonl", "report.html",
             "steps/acquire/000002/replies.jsonl", "checkpoints/mgpo/step-000003/config.json", "config.yaml",
             "steps/synthesize/000001/state.json"]  # fmt: skip
    for name in names:
        flip(root / name, 99)
    there = [f.path for f in verify.verify(RunDir(root)) if f.path in names]
    assert there == [names[i] for i in (6, 4, 1, 5, 0, 7, 2, 3)]


@pytest.mark.parametrize(
    ("name", "needed_by"),
    [
        ("stages/mgpo.json", {"synthesize"}),
        ("skills/first/SKILL.md", {"sft", "mgpo", "synthesize"}),
        ("steps/sft/000001/episodes.parquet", {"sft", "mgpo", "synthesize"}),
        ("steps/synthesize/000001/verdicts.parquet", {"synthesize"}),
        ("ledger/mgpo/000001.jsonl", {"mgpo"}),
        ("ledger/synthesize/000001.jsonl", {"synthesize"}),
        ("checkpoints/mgpo/step-000003/model.safetensors", {"mgpo", "synthesize"}),
        ("checkpoints/mgpo/step-000002/model.safetensors", set()),
        ("checkpoints/mgpo/checkpoint_manager_snapshot.json", {"mgpo"}),
        ("quarantine/mgpo/mgpo-000001-3.json", set()),
    ],
)
def test_the_stages_that_are_said_to_need_a_file_are_those_that_do_not_begin_without_it(
    stopped, tmp_path, name, needed_by
):
    root = stopped("synthesize", tmp_path / "run")
    run = RunDir(root)
    flip(root / name, 99)
    findings = verify.verify(run)
    assert {stage for f in findings for stage in verify.dependents(run, f)} == needed_by and findings
    if "synthesize" in needed_by:
        with pytest.raises(Failure, match=name):
            verify.preflight(run, "synthesize")
    else:
        verify.preflight(run, "synthesize")
    mends = [verify.mend(run, f) for f in findings]
    assert all(
        mend.startswith("no stage needs it; ") == (name.startswith("checkpoints") and not needed_by) for mend in mends
    )


@pytest.mark.parametrize(
    ("folder", "file", "sealed"),
    [
        ("checkpoints/mgpo/step-000003", "model.safetensors", "trainer/manifest-0.json"),
        ("steps/mgpo/000003", "state.json", MANIFEST),
    ],
)
def test_a_stage_does_not_begin_with_what_is_sound_in_itself_and_not_what_the_stage_before_left(
    stopped, tmp_path, folder, file, sealed
):
    root = stopped("synthesize", tmp_path / "run")
    there = root / folder
    facts = {k: v for k, v in manifest.read(there / sealed).items() if k not in ("of", "files")}
    of, names = manifest.read(there / sealed)["of"], list(manifest.read(there / sealed)["files"])
    (there / file).write_bytes((there / file).read_bytes() + b"\n")
    write_manifest(there, of, names, sealed, **facts)
    with pytest.raises(Failure, match=rf"{folder}/{sealed}: has .*\(by stages/mgpo.json\)"):
        verify.preflight(RunDir(root), "synthesize")


def test_what_is_gone_is_told_once_whoever_tells_of_it(root):
    for name in ("ledger/mgpo/000001.jsonl", "steps/mgpo/000002/manifest.json", "prompts.json"):
        (root / name).unlink()
    assert [f.path for f in verify.verify(RunDir(root))] == [
        "prompts.json", "steps/mgpo/000002/manifest.json", "ledger/mgpo/000001.jsonl"
    ]  # fmt: skip
