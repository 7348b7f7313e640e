"""Storage that is full, slow or broken: one line, nothing half-written under a final name, and the same work goes on
from where it was once the storage is mended. The full disk is a real one (tmpfs) where it may be mounted."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.exceptions import RayError
from ray.train.v2.api.exceptions import WorkerGroupError

from actors.weights import WeightStore
from pipeline.config import Config, MGPOConfig
from pipeline.pools.buffer import RolloutBuffer
from pipeline.pools.loaders import StepLoader
from pipeline.records import Episode, Failure, Lost, Rollout
from pipeline.store import accounts
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import seal_folder
from pipeline.store.metrics import Metrics
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_records
from tests.pipeline.judged import episode, rollout, task
from trainers import launch
from trainers.spec import TrainSpec


def make_step(run, ledger, buffer, metrics, step, size=4, tokens=4000):
    """What MGPO does of a step once it is judged."""
    ledger.begin(step)
    keys = [(f"mgpo-{step:06d}-{i}", 0) for i in range(size)]
    keys = [(name, ledger.issue(name)) for name, _ in keys]
    for name, attempt in keys:
        batch = Rollout.to_arrow([rollout(name, attempt, tokens=tokens)])
        asyncio.run(buffer.put(name, attempt, batch))
    with run.new_step("mgpo", step) as folder:
        asyncio.run(buffer.write(str(folder), [(key, [0.0], 1.0) for key in keys]))
        write_records(folder / "episodes.parquet", [episode(task(i), a) for i, a in keys], Episode)
        account = ledger.segment(folder, dict.fromkeys(keys, "trained"))
        (folder / "state.json").write_text(json.dumps({"ledger": account}))
        metrics.log("mgpo", step, {"episodes": size})
    ledger.commit(account)


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(disk):
    small_disk = disk("512k")
    ballast = small_disk / "ballast"
    run = RunDir.open(small_disk / "run", Config(domain="mini"))
    with Metrics(run) as metrics:
        ledger, buffer = Ledger(run, "mgpo"), RolloutBuffer()
        make_step(run, ledger, buffer, metrics, 1)
        ballast.write_bytes(bytes(256 << 10))
        with pytest.raises(Failure) as caught:
            for step in range(2, 30):
                make_step(run, ledger, buffer, metrics, step)
        line = str(caught.value)
        assert "\n" not in line and "no space left on the device; free some, and run the same command again" in line
        assert caught.value.kind == "infra_error"
        done = len(run.steps("mgpo"))
        assert 1 <= done < 29
        # What is on disk adds up although the disk is full: the command would say so now.
        assert accounts.audit(run)["findings"] == []
    run.close()

    ballast.unlink()
    run = RunDir.open(small_disk / "run", Config(domain="mini"))
    with Metrics(run) as metrics:
        ledger = Ledger(run, "mgpo")  # as a new process: with an empty buffer
        make_step(run, ledger, RolloutBuffer(), metrics, done + 1)
    found = accounts.audit(run)
    assert found["findings"] == []
    assert found["stages"]["mgpo"]["totals"]["trained"] == 4 * (done + 1)
    assert [row["step"] for row in read_metrics(run)["mgpo"]] == list(range(1, done + 2))
    run.close()


LIMITED = """
import resource, sys
from pathlib import Path
from pipeline.pools.buffer import RolloutBuffer
from pipeline.config import MGPOConfig, Config
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.records import Failure
from pipeline.store.rundir import RunDir
from tests.pipeline.store.test_storage import make_step

run = RunDir.open(Path(sys.argv[1]), Config(domain="mini"))
metrics = Metrics(run)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    make_step(run, Ledger(run, "mgpo"), RolloutBuffer(), metrics, 1, tokens=20_000)
except Failure as e:
    print(e)
"""


def test_a_file_that_may_not_grow_is_the_same_line(tmp_path):
    """A quota on file size, for a process of its own: no right to mount is needed."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and "rollouts.parquet: no space left" in done.stdout
    run, _ = RunDir.read(tmp_path / "run")
    assert run.steps("mgpo") == []
    assert accounts.audit(run)["findings"] == []


def test_rollouts_that_the_disk_did_not_take_are_still_in_the_buffer(tmp_path):
    buffer = RolloutBuffer()
    asyncio.run(buffer.put("a", 1, Rollout.to_arrow([rollout("a", tokens=8)])))
    rows = [(("a", 1), [0.0], 1.0)]
    with pytest.raises(Failure, match=r"rollouts\.parquet: No such file"):
        asyncio.run(buffer.write(str(tmp_path / "gone"), rows))
    assert asyncio.run(buffer.write(str(tmp_path), rows)) == 8


def test_slow_storage_holds_the_producer_back_and_loses_nothing(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def slow(fd):
        calls.append(fd)
        time.sleep(0.02)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    with Metrics(run) as metrics:
        ledger, buffer = Ledger(run, "mgpo"), RolloutBuffer()
        for step in (1, 2, 3):
            make_step(run, ledger, buffer, metrics, step, tokens=10)
            # The next step is not begun before this one is whole and synced: nothing piles up.
            assert len(run.steps("mgpo")) == step and buffer._waiting == {}
    assert calls
    assert accounts.audit(run)["stages"]["mgpo"]["totals"]["trained"] == 12
    assert accounts.audit(run)["findings"] == []
    run.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_storage_that_fails_now_and_then_is_a_line_and_the_step_can_be_made_again(tmp_path, monkeypatch, error):
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    with Metrics(run) as metrics:
        real, fail = os.fsync, [error]

        def flaky(fd):
            if fail:
                raise OSError(fail.pop(), os.strerror(error))
            real(fd)

        monkeypatch.setattr(os, "fsync", flaky)
        ledger, buffer = Ledger(run, "mgpo"), RolloutBuffer()
        with pytest.raises(Failure, match="mend the storage, and run the same command again") as caught:
            make_step(run, ledger, buffer, metrics, 1, tokens=10)
        assert caught.value.kind == "infra_error" and run.steps("mgpo") == []
        make_step(run, ledger, buffer, metrics, 1, tokens=10)
    found = accounts.audit(run)
    assert found["findings"] == []
    row = found["stages"]["mgpo"]["steps"][0]
    assert (row["attempts"], row["interrupted"], row["trained"]) == ({1: 4, 2: 4}, 4, 4)
    run.close()


@pytest.mark.engine
def test_an_object_store_that_is_full_spills_and_loses_nothing(tmp_path):
    """Two versions of the weights, each as large as the whole store, and a step's rollouts beside them."""
    store_bytes = 80 << 20
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=store_bytes, log_to_driver=False,
        _system_config={"local_fs_capacity_threshold": 1},  # however full the disk of the machine that tests it
    )  # fmt: skip
    try:
        store = ray.remote(WeightStore).options(num_cpus=0).remote()
        for version in (1, 2):
            ray.get(store.begin.remote(version), timeout=60)
            for i in range(8):
                chunk = {f"layer.{i}": ("float32", (10 << 18,), np.full(10 << 18, version * 100 + i, np.float32))}
                ray.get(store.put_chunk.remote(version, chunk), timeout=60)
            ray.get(store.commit.remote(version), timeout=60)
        rows = [rollout(f"r{i}", group=f"g{i}", tokens=2000) for i in range(40)]
        folder = tmp_path / "000001"
        folder.mkdir()
        write_records(folder / "rollouts.parquet", rows, Rollout)
        seal_folder(folder, "steps/mgpo/000001", ["rollouts.parquet"])
        loader = ray.remote(StepLoader).options(num_cpus=0).remote([str(folder)], 60)
        work = ray.get(loader.next_batch.remote(0, 1, 1), timeout=60)
        assert Rollout.from_arrow(ray.get(work.batches[0], timeout=60)) == rows
        for version in (1, 2):
            published = ray.get(store.fetch.remote(version), timeout=60)
            assert published.bytes >= store_bytes
            for i, ref in enumerate(published.chunks):
                ((_, _, raw),) = ray.get(ref, timeout=60).values()
                assert (raw == version * 100 + i).all()
    finally:
        ray.shutdown()


def publish(store, version):
    """20 MB, all of them the version's number."""
    weights = {"w": ("float32", (5 << 20,), np.full(5 << 20, version, np.float32))}
    ray.get(store.begin.remote(version), timeout=60)
    ray.get(store.put_chunk.remote(version, weights), timeout=60)
    ray.get(store.commit.remote(version), timeout=60)


@pytest.mark.engine
def test_an_object_store_with_no_disk_to_spill_to_is_one_line_and_keeps_what_it_has(tmp_path, monkeypatch):
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
        _system_config={"local_fs_capacity_threshold": 1e-6},
    )  # fmt: skip
    try:
        store = ray.remote(WeightStore).options(num_cpus=0).remote()
        publish(store, 1)
        ballast = ray.put(np.zeros(30 << 20, np.uint8))
        with pytest.raises(RayError) as full:
            publish(store, 2)

        def fit(_):
            raise WorkerGroupError("rank 0 failed", {0: full.value})

        monkeypatch.setattr(launch.TorchTrainer, "fit", fit)
        spec = TrainSpec(base_model=tmp_path, objective=MGPOConfig(), lr=0.1, storage=tmp_path, name="mgpo")
        with pytest.raises(Failure, match=r"^training mgpo: worker 0: The .*object store is full") as caught:
            launch.Launcher().train(spec, None)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, Lost)  # which would be tried again

        published = ray.get(store.fetch.remote(), timeout=60)
        ((_, _, raw),) = ray.get(published.chunks[0], timeout=60).values()
        assert published.version == 1 and (raw == 1).all()
        del ballast
        until = time.monotonic() + 60  # Ray frees what is let go of in its own time
        while ray.get(store.latest.remote(), timeout=60) != 2:
            try:
                publish(store, 2)
            except RayError:
                assert time.monotonic() < until, "the room that was given back is not used"
                time.sleep(1)
    finally:
        ray.shutdown()
