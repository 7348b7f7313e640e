"""Runs that have a mirror, and the machines that it is restored on."""

import json
import random
import shutil
from contextlib import contextmanager, suppress

import pytest

from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.store import remote
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.store.mirror import Mirror
from pipeline.store.remote import RemoteStore
from pipeline.store.rundir import RunDir
from tests.pipeline.store.test_ledger import checkpoint, write_step

KEPT = 2
"""Checkpoints that Ray Train keeps."""


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


def a_run(tmp_path, name="here", steps=1, sets=()):
    run = RunDir.open(tmp_path / name, load(None, [f"mirror={tmp_path / 'm'}", *sets]))
    for _ in steps_of_a_stage(run, steps):
        pass
    return run
