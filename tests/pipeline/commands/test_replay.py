"""What a replay says of weights that are, and are not, the same. That the real trainer's are is in `test_whole`."""

import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.cli import main
from pipeline.commands import replay
from pipeline.config import Config
from pipeline.store.rundir import RunDir
from tests.pipeline.store.test_ledger import checkpoint, play, whole


@pytest.fixture
def played(tmp_path):
    """Three steps, with the checkpoint of the last one only."""
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    play(run, whole, checkpoints=False)
    checkpoint(run, 3, 5)
    save_file(weights(), run.path("checkpoints", "mgpo", "step-000003", "model.safetensors"))
    run.close()
    return run.root


def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("first", "second")}


def command(capsys, monkeypatch, root, trained, *options):
    """(exit code, result, stderr) where training again gives these weights, one set a time."""
    folders = []

    async def train(context, run, stage, origin, step):
        save_file(trained[len(folders)], context.run.path("model.safetensors"))
        folders.append(origin)
        return context.run.root

    monkeypatch.setattr(replay, "_train", train)
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--json", "--run-dir", str(root), *options])
    out, err = capsys.readouterr()
    return ended.value.code, json.loads(out) if out else None, [line for line in err.splitlines() if " · " not in line]


def test_the_same_weights(capsys, monkeypatch, played):
    code, found, err = command(capsys, monkeypatch, played, [weights()])
    assert (code, err) == (0, [])
    assert {k: found[k] for k in ("step", "from", "compared_with", "tensors", "different")} == {
        "step": 3, "from": 0, "compared_with": "run", "tensors": 2, "different": [],
    }  # fmt: skip
    assert [p.name for p in played.iterdir() if p.name.startswith(".replay")] == []


def test_one_bit_of_one_weight_is_found(capsys, monkeypatch, played):
    changed = weights()
    (bits,) = struct.unpack("<I", changed["second"][2, 1].tobytes())
    changed["second"][2, 1] = np.frombuffer(struct.pack("<I", bits ^ 1), np.float32)[0]
    code, found, err = command(capsys, monkeypatch, played, [changed])
    assert (code, found["different"]) == (2, ["second"])
    assert err == ["propose: replay: 1 of 2 tensors of step 3 differ from the run's checkpoint, the first second"]


def test_a_step_whose_checkpoint_is_gone_is_trained_twice(capsys, monkeypatch, played):
    code, found, _ = command(capsys, monkeypatch, played, [weights(), weights()], "--step", "2")
    assert (code, found["compared_with"], found["different"]) == (0, "second replay", [])
    code, found, err = command(capsys, monkeypatch, played, [weights(), weights() | {"third": np.zeros(1)}], "--step=2")
    assert (code, found["different"]) == (2, ["third"]) and "from a second replay" in err[0]


@pytest.mark.parametrize(
    ("options", "said"), [(["--step", "4"], "expected 1 to 3"), (["--of", "solve"], "has no step of solve")]
)
def test_a_step_that_is_not_there_is_one_line(capsys, monkeypatch, played, options, said):
    code, found, err = command(capsys, monkeypatch, played, [], *options)
    assert (code, found, len(err)) == (2, None, 1) and said in err[0]


def test_a_run_whose_accounts_do_not_add_up_is_not_replayed(capsys, monkeypatch, played):
    shutil.rmtree(played / "steps" / "mgpo" / "000002")
    code, _, err = command(capsys, monkeypatch, played, [])
    assert code == 2 and "step 2 is missing" in err[0]
