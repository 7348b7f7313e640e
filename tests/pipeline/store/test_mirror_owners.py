"""Whose a mirror is, what is damaged in it, and what commands say of it."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.store import accounts, mirror
from pipeline.store.remote import RemoteStore
from pipeline.store.rundir import RunDir
from tests.pipeline.store.mirrored import a_run, die, files, mirror_of, restored, steps_of_a_stage, using
from tests.pipeline.store.test_ledger import checkpoint, directory
from tests.pipeline.storms import Storm
from tests.pipeline.test_cli import propose

pytestmark = pytest.mark.usefixtures("impatient")


# ---------------------------------------------------------------- whose mirror it is


def test_the_mirror_of_another_config_is_refused_and_nothing_is_brought(tmp_path):
    a_run(tmp_path).close()
    before = files(tmp_path / "m", "files")
    with pytest.raises(Failure, match="made with another config: seed was 0, is now 3; use that config") as caught:
        RunDir.open(tmp_path / "there", load(None, [f"mirror={tmp_path / 'm'}", "seed=3"]))
    assert "\n" not in str(caught.value) and str(tmp_path / "m") in str(caught.value)
    assert files(tmp_path / "there") == {} and files(tmp_path / "m", "files") == before


def test_a_second_process_is_refused_while_the_first_one_lives(tmp_path):
    first = mirror_of(tmp_path / "first", tmp_path / "m")
    (tmp_path / "first").mkdir(), (tmp_path / "second").mkdir()
    first.begin(lambda content: None)
    second = mirror_of(tmp_path / "second", tmp_path / "m")
    with pytest.raises(Failure, match=rf"in use by process \d+ on .*{tmp_path / 'first'}"):
        second.begin(lambda content: None)
    second.close()
    first.check()
    first.close()
    second = mirror_of(tmp_path / "second", tmp_path / "m")
    second.begin(lambda content: None)
    second.close()


def test_one_that_was_taken_for_dead_stops_before_it_writes_over_the_other(tmp_path):
    first = a_run(tmp_path)
    first.close()
    first._mirror = asleep = mirror_of(first.root, tmp_path / "m")
    asleep._beat_s = 1000.0  # a machine that hangs
    asleep.begin(lambda content: None)
    second = mirror_of(tmp_path / "second", tmp_path / "m")
    (tmp_path / "second").mkdir()
    second.begin(lambda content: None)
    first.write_text("report.html", "late")
    with pytest.raises(Failure, match=r"was taken over by process \d+ on .*second.*no longer goes there"):
        asleep.sync()
    second.check()
    second.close()
    assert "report.html" not in files(restored(tmp_path / "m", tmp_path / "third").root)


def test_a_directory_that_another_one_has_overtaken_is_refused_and_kept(tmp_path):
    a_run(tmp_path).close()
    config = load(None, [f"mirror={tmp_path / 'm'}"])
    there = RunDir.open(tmp_path / "there", config)
    there.write_text("report.html", "newer")
    there.close()
    before = files(tmp_path / "here")
    with pytest.raises(Failure, match="move that away to restore, or name another mirror") as caught:
        RunDir.open(tmp_path / "here", config)
    assert str(tmp_path / "there") in str(caught.value)
    assert files(tmp_path / "here") == before
    RunDir.open(tmp_path / "there", config).close()  # which goes on


def test_a_run_gets_a_mirror_later_and_one_that_died_catches_up(tmp_path):
    run = RunDir.open(tmp_path / "here", Config(domain="mini"))
    work = steps_of_a_stage(run, 3)
    for _ in range(4):
        next(work)
    run.close()
    config = load(None, [f"mirror=file://{tmp_path / 'm'}"])
    RunDir.open(tmp_path / "here", config).close()
    assert files(restored(tmp_path / "m", tmp_path / "there").root) == files(tmp_path / "here")
    shutil.rmtree(tmp_path / "there")
    shutil.rmtree(tmp_path / "m")
    RunDir.open(tmp_path / "here", config).close()
    for _ in work:  # without the mirror, as after a process that died before it could send
        pass
    RunDir.open(tmp_path / "here", config).close()
    assert files(restored(tmp_path / "m", tmp_path / "there").root) == files(tmp_path / "here")


def test_what_a_process_had_sent_that_died_is_deleted_once_others_have_gone_on(tmp_path):
    with directory() as run:
        work, storm = steps_of_a_stage(run, 9), Storm(tmp_path / "storage")
        with using(storm):
            for stops_at in (None, 40, None, None):
                next(work)
                follower, storm.operations, storm.stops_at = mirror_of(run.root, patience_s=0.0), 0, stops_at
                with suppress(Failure):
                    follower.begin(lambda content: None)
                    for _ in range(3):
                        next(work)
                    follower.sync()
                die(follower)
            storm.stops_at = None
            named = {entry[2] for m in mirror.manifests(RemoteStore("m")) for entry in m.files.values()}
            unnamed = set(RemoteStore("m").names("files")) - named
            assert unnamed == set()


# ---------------------------------------------------------------- damage


def test_a_restore_that_was_interrupted_goes_on(tmp_path):
    a_run(tmp_path, steps=2).close()
    whole = files(tmp_path / "here")
    (tmp_path / "there").mkdir()
    with using(Storm(tmp_path, stops_at=15, base="m")):
        cut = mirror_of(tmp_path / "there", "m", patience_s=0.0)
        with pytest.raises(Failure, match="has stopped"):
            cut.begin(lambda content: None)
        die(cut)
    assert files(tmp_path / "there") != whole
    with pytest.raises(Failure, match="its restore was interrupted; name its mirror again"):
        RunDir.open(tmp_path / "there", Config(domain="mini"))
    again = mirror_of(tmp_path / "there", tmp_path / "m")
    again.begin(lambda content: None)
    again.close()
    assert files(tmp_path / "there") == whole


@pytest.mark.parametrize("how", ["missing", "shorter", "changed"])
def test_an_object_that_is_not_what_the_manifest_says_is_named(tmp_path, how):
    a_run(tmp_path).close()
    (path,) = (tmp_path / "m").glob("files/steps/mgpo/000001/rollouts.parquet.*")
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "shorter" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Failure, match=r"files/steps/mgpo/000001/rollouts\.parquet\.") as caught:
        RunDir.open(tmp_path / "there", load(None, [f"mirror={tmp_path / 'm'}"]))
    assert "\n" not in str(caught.value)


def test_a_manifest_that_was_cut_leaves_the_one_before(tmp_path):
    run = RunDir.open(tmp_path / "here", load(None, []))
    follower = mirror_of(run.root, tmp_path / "m")
    follower.begin(lambda content: None)
    work = steps_of_a_stage(run, 2)
    states = []
    for _ in range(4):
        next(work)
        follower.sync()
        states.append(files(run.root))
    follower.close()
    last, _ = mirror.manifests(RemoteStore(str(tmp_path / "m")))
    newest = tmp_path / "m" / f"manifest-{last.number % 2}.json"
    newest.write_bytes(newest.read_bytes()[:-10])
    assert files(restored(tmp_path / "m", tmp_path / "there").root) == states[-2]
    for path in (tmp_path / "m").glob("manifest-*"):
        path.write_text("{}")
    with pytest.raises(Failure, match="the mirror is damaged"):
        restored(tmp_path / "m", tmp_path / "nowhere")
    run.close()


# ---------------------------------------------------------------- commands


def test_the_accounts_of_a_mirror(tmp_path, capsys):
    run = a_run(tmp_path, steps=2)
    run.path("checkpoints", "mgpo", "step-000002", "model.safetensors").write_bytes(bytes(100))
    run.close()
    code, out, err = propose(capsys, "ledger", "--run-dir", f"file://{tmp_path / 'm'}", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps(accounts.audit(run)))
    code, _, err = propose(capsys, "ledger", "--run-dir", f"file://{tmp_path / 'nothing'}")
    assert code == 2 and "holds no manifest" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("uri", "said"), [("s4://bucket/run", "s4://bucket/run"), ("s3://key:secret@bucket/run", "credentials")]
)
def test_a_place_that_is_none_is_one_line(tmp_path, uri, said):
    with pytest.raises(Failure) as caught:
        RunDir.open(tmp_path / "r", load(None, [f"mirror={uri}"]))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_is_where_the_run_directory_is(tmp_path):
    run = RunDir.open(tmp_path / "here", Config(domain="mini"))
    checkpoint(run, 3, 0)
    run.finish("mgpo", {"checkpoint": str(run.path("checkpoints", "mgpo", "step-000003"))}, 1.0)
    run.close()
    moved = RunDir((tmp_path / "here").rename(tmp_path / "there"))
    done = moved.result("mgpo")
    assert done and Path(done["result"]["checkpoint"]) == tmp_path / "there" / "checkpoints" / "mgpo" / "step-000003"
