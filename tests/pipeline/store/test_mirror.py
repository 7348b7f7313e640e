"""The mirror: whatever the storage or the machine does, what another machine restores is a state that the run had, its
accounts add up, and the run goes on from it."""

import json
import random
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Config
from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.store import accounts, mirror, remote, snapshot
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.store.mirror import Mirror
from pipeline.store.remote import RemoteStore
from pipeline.store.rundir import RunDir
from tests.pipeline.store.test_ledger import checkpoint, directory, write_step
from tests.pipeline.storms import Storm, seldom

examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
KEPT = 2
"""Checkpoints that Ray Train keeps."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Beats and pauses of a machine that is in a hurry."""
    monkeypatch.setattr(remote, "_PAUSE_S", 0.001)
    monkeypatch.setattr(mirror, "_AGAIN_S", 0.001)


@contextmanager
def using(storm):
    """Have every place be this storage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "resolve", storm.resolve)
        yield


def mirror_of(root, uri="m", patience_s=5.0):
    return Mirror(root, RemoteStore(str(uri), patience_s), beat_s=0.05, poll_s=0.001)


def die(follower):
    """Its process is gone: nothing of it runs any more."""
    with suppress(Failure):
        follower.close()
    for thread in (follower._follower, follower._heart):
        if thread.ident:
            thread.join(30)


def restored(uri, root):
    """What a machine with an empty directory gets: its run directory."""
    root.mkdir()
    fresh = mirror_of(root, uri)
    fresh.begin(lambda content: None)
    fresh.close()
    return RunDir(root)


def files(root, top=""):
    """Path -> content of what counts in a directory."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted((root / top).rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    }


def steps_of_a_stage(run, steps, seed=0):
    """The stage of MGPO, as a generator that stops wherever a machine may die. Checkpoints are pruned as Ray Train does
    it, and the stage's result comes last."""
    rng, ledger, trained = random.Random(seed), Ledger(run, "mgpo"), 0
    with Metrics(run) as metrics:
        for step in range(1, steps + 1):
            ledger.begin(step)
            keys = [(f"mgpo-{step:06d}-{i}", 1) for i in range(rng.randint(1, 3))]
            for name, _ in keys:
                ledger.issue(name)
            yield
            for key in keys:
                ledger.judged(key, 10)
            ends = {key: rng.choice(["trained", "trained", "filtered", "failed"]) for key in keys}
            metrics.log("mgpo", step, {"episodes": len(keys)})
            write_step(run, ledger, step, ends)
            yield
            account = {"issued": len(ends)} | {
                e: list(ends.values()).count(e) for e in ("trained", "filtered", "failed")
            }
            ledger.commit(account)
            trained += account["trained"]
            checkpoint(run, step, trained)
            prune(run)
            yield
    run.finish("mgpo", {"steps": steps}, 1.0)
    ledger.close()
    yield


def prune(run):
    """Ray Train first says what it keeps, then deletes the rest."""
    base = run.path("checkpoints", "mgpo")
    old = sorted(base.glob("step-*"))[:-KEPT]
    names = [{"checkpoint_dir_name": p.name} for p in sorted(base.glob("step-*"))[-KEPT:]]
    (base / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": names}))
    for path in old:
        shutil.rmtree(path)


# ---------------------------------------------------------------- storage that stops


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(stops_at=st.integers(1, 400), steps=st.integers(1, 4), seed=st.integers(0, 99))
def test_wherever_the_storage_stops_what_is_restored_is_a_state_of_the_run_and_adds_up(stops_at, steps, seed):
    with directory() as run:
        storm = Storm(run.root.parent / "storage", stops_at=stops_at)
        states = [{}]
        with using(storm):
            follower = mirror_of(run.root, patience_s=0.0)
            try:
                follower.begin(lambda content: None)
                for _ in steps_of_a_stage(run, steps, seed):
                    states.append(files(run.root))
                    follower.sync()
                stopped = False
            except Failure as e:
                assert "the storage has stopped" in str(e) and "\n" not in str(e)
                stopped = True
            die(follower)
            storm.stops_at = None
            again = restored("m", run.root.parent / "elsewhere")
        # The last one that was sent, or the one before.
        assert files(again.root) in states[-2:]
        if not stopped:
            assert files(again.root) == states[-1]
        assert accounts.audit(again)["findings"] == []


def test_a_run_goes_on_elsewhere_and_its_accounts_add_up(tmp_path):
    here = RunDir.open(tmp_path / "here", load(None, [f"mirror={tmp_path / 'm'}"]))
    work = steps_of_a_stage(here, 3)
    for _ in range(7):  # step 3 has begun
        next(work)
    here.close()
    shutil.rmtree(tmp_path / "here")

    there = RunDir.open(tmp_path / "there", load(None, [f"mirror={tmp_path / 'm'}"]))
    assert len(there.steps("mgpo")) == 2
    assert accounts.check(there, "mgpo")["live"] > 0
    ledger = Ledger(there, "mgpo")
    ledger.begin(3)
    key = "again", ledger.issue("again")
    write_step(there, ledger, 3, {key: "trained"})
    there.close()
    elsewhere = restored(tmp_path / "m", tmp_path / "third")
    found = accounts.audit(elsewhere)
    assert found["findings"] == []
    assert [row["on_disk"] for row in found["stages"]["mgpo"]["steps"]] == [True, True, True]
    assert found["stages"]["mgpo"]["totals"]["interrupted"] > 0


# ---------------------------------------------------------------- storage that is slow, or fails now and then


@pytest.mark.parametrize(("share", "seconds"), [(0.3, 0.0), (0.0, 0.01), (0.1, 0.003)])
def test_through_bad_weather_the_mirror_gets_everything_and_the_run_does_not_wait(share, seconds):
    with directory() as run:
        storm = Storm(run.root.parent / "storage", seldom(random.Random(1), share, seconds))
        with using(storm):
            follower = mirror_of(run.root)
            follower.begin(lambda content: None)
            follower.start()
            for _ in steps_of_a_stage(run, 6):
                follower.check()
            follower.close()
            again = restored("m", run.root.parent / "elsewhere")
            assert files(again.root) == files(run.root)
            assert accounts.audit(again)["findings"] == []
            # What no manifest names any more is gone: two manifests name at most so many checkpoints.
            there = [
                name for name in RemoteStore("m").names("files") if name.endswith("state.json") and "trainer" in name
            ]
            assert len(there) <= KEPT + 1


@examples
@given(seed=st.integers(0, 10**6), pace=st.sampled_from([0.01, 0.03, 0.1]), syncs=st.integers(1, 3))
def test_whatever_the_run_does_between_two_looks_of_the_mirror_what_is_sent_is_a_state_of_it(seed, pace, syncs):
    """The run goes on in the middle of a snapshot, between any two of its looks, and while its files are sent."""
    rng, busy = random.Random(seed), threading.Lock()
    with directory() as run, pytest.MonkeyPatch.context() as patch:
        work = steps_of_a_stage(run, 8, seed)

        def goes_on():
            if busy.acquire(blocking=False):
                next(work, None)
                busy.release()

        def meanwhile(*_):
            if rng.random() < pace:
                goes_on()

        for name in ("_stat", "_ended", "_folders"):
            real = getattr(snapshot, name)
            patch.setattr(snapshot, name, lambda *a, real=real: (meanwhile(), real(*a), meanwhile())[1])
        with using(Storm(run.root.parent / "storage", meanwhile)):
            follower = mirror_of(run.root)
            follower.begin(lambda content: None)
            for _ in range(syncs):
                goes_on()
                follower.sync()
            die(follower)
            patch.undo()
        with using(Storm(run.root.parent / "storage")):
            again = restored("m", run.root.parent / "elsewhere")
        assert accounts.audit(again)["findings"] == []
        for path, content in files(again.root, "steps").items():
            assert (run.root / path).read_bytes() == content


def test_a_checkpoint_that_is_deleted_while_it_is_listed_is_not_half_of_a_snapshot(monkeypatch):
    with directory() as run:
        for step in (1, 2, 3):
            checkpoint(run, step, 0)
        real = snapshot._files

        def files_of(root, top):
            if top.name == "step-000001":
                prune(run)
            return real(root, top)

        monkeypatch.setattr(snapshot, "_files", files_of)
        with pytest.raises(snapshot.Moving):
            snapshot.take(run.root, {})
        found = snapshot.take(run.root, {})
        assert {name.split("/")[2] for name in found if name.endswith("state.json")} == {"step-000002", "step-000003"}


def test_a_checkpoint_that_is_deleted_while_it_is_sent_arrives_whole():
    with directory() as run:
        sending = threading.Event()

        def weather(n, what):
            if "step-000001/big" in what and "write" in what:
                sending.set()
                time.sleep(0.02)

        with using(Storm(run.root.parent / "storage", weather)):
            ledger = Ledger(run, "mgpo")
            for step in (1, 2, 3):
                ledger.begin(step)
                write_step(run, ledger, step, {("a", ledger.issue("a")): "filtered"})
                ledger.commit({"issued": 1, "trained": 0, "filtered": 1, "failed": 0})
            checkpoint(run, 1, 0)
            run.path("checkpoints", "mgpo", "step-000001", "big").write_bytes(bytes(remote._CHUNK * 4))
            follower = mirror_of(run.root)
            follower.begin(lambda content: None)
            sync = threading.Thread(target=follower.sync)
            sync.start()
            assert sending.wait(10)
            for step in (2, 3):
                checkpoint(run, step, 0)
            prune(run)
            sync.join(30)
            assert not run.path("checkpoints", "mgpo", "step-000001").exists()
            die(follower)
            again = restored("m", run.root.parent / "elsewhere")
            assert again.path("checkpoints", "mgpo", "step-000001", "big").stat().st_size == remote._CHUNK * 4
            assert accounts.audit(again)["findings"] == []


def test_storage_that_stays_away_is_one_line_and_the_run_directory_is_whole(tmp_path):
    def away(n, what):
        if n > 30:
            raise OSError("Could not connect to server")

    with using(Storm(tmp_path / "storage", away)):
        run = RunDir.open(tmp_path / "run", Config(domain="mini"))
        run._mirror = mirror_of(run.root, "s3://bucket/run", patience_s=0.05)
        run._mirror.begin(lambda content: None)
        run._mirror.start()
        with pytest.raises(Failure, match="Could not connect") as caught:
            for _ in range(1000):
                for _ in steps_of_a_stage(run, 1):
                    time.sleep(0.01)
                shutil.rmtree(run.path("ledger")), shutil.rmtree(run.path("steps"))
                shutil.rmtree(run.path("checkpoints"))
        line = str(caught.value)
        assert line.startswith("mirror s3://bucket/run: ") and "\n" not in line and "run directory is safe" in line
        assert caught.value.kind == "infra_error"
        with pytest.raises(Failure, match="Could not connect"):
            run.close()
        RunDir.open(tmp_path / "run", Config(domain="mini")).close()  # its lock is free


def test_what_ended_the_run_is_told_and_the_mirror_only_beside_it(tmp_path, capsys):
    with using(Storm(tmp_path / "storage", stops_at=9)):
        run = RunDir.open(tmp_path / "run", Config(domain="mini"))
        run._mirror = mirror_of(run.root, patience_s=0.05)
        run._mirror.begin(lambda content: None)
        run._mirror.start()
        with pytest.raises(Failure, match="the stage's own"):
            try:
                run.write_text("report.html", "page")
                raise Failure("the stage's own")
            finally:
                run.close()
    err = capsys.readouterr().err
    assert err.startswith("propose: mirror m: ") and err.count("\n") == 1
    assert "the storage has stopped" in err or "no answer" in err


def test_a_call_that_never_returns_is_one_line(tmp_path):
    release = threading.Event()
    with using(Storm(tmp_path / "storage", lambda n, what: release.wait(20) if n > 12 else None)):
        run = RunDir.open(tmp_path / "run", Config(domain="mini"))
        follower = mirror_of(run.root, patience_s=0.2)
        follower.begin(lambda content: None)
        follower.start()
        for _ in steps_of_a_stage(run, 2):
            pass
        with pytest.raises(Failure, match=r"no answer for \d+ s"):
            follower.close()
        with pytest.raises(Failure, match=r"no answer for \d+ s; what is in the run directory is safe"):
            follower.check()
        release.set()
        die(follower)
        run.close()


# ---------------------------------------------------------------- whose mirror it is


def a_run(tmp_path, name="here", steps=1, sets=()):
    run = RunDir.open(tmp_path / name, load(None, [f"mirror={tmp_path / 'm'}", *sets]))
    for _ in steps_of_a_stage(run, steps):
        pass
    return run


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


def propose(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


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
