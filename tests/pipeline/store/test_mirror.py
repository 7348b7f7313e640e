"""The mirror: whatever the storage or the machine does, what another machine restores is a state that the run had, its
accounts add up, and the run goes on from it."""

import random
import shutil
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.store import accounts, remote, snapshot
from pipeline.store.ledger import Ledger
from pipeline.store.remote import RemoteStore
from pipeline.store.rundir import RunDir
from tests.pipeline.store.mirrored import KEPT, die, files, mirror_of, prune, restored, steps_of_a_stage, using
from tests.pipeline.store.test_ledger import checkpoint, directory, write_step
from tests.pipeline.storms import Storm, seldom

pytestmark = pytest.mark.usefixtures("impatient")
examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


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
