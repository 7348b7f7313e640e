"""Every kind of file of a run, damaged in every way that disks, people and other processes do: it is noticed, no
command takes it for a fault of ours, and the command in the line, followed to the letter, mends it.

What a run would make again (a stage without its result, steps set aside) is put back from an undamaged copy here, and
made by a real run in `test_recovery`."""

import contextlib
import io
import os
import random
import re
import shlex
import shutil

import pytest

from pipeline import stages
from pipeline.cli import main
from pipeline.records import Failure
from pipeline.store import verify
from pipeline.store.rundir import RunDir
from tests.pipeline import made
from tests.pipeline.damage import DAMAGES, files, flip, kind

MADE_ONCE = ("ledger", "quarantine", "metrics.jsonl", "events.jsonl")
"""What tells of how the run went, and only a mirror has again."""
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(6 * 3600)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "run"
    made.make(root).close()
    return root


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Its synthesis has steps, and no result yet."""
    root = tmp_path_factory.mktemp("begun") / "run"
    made.make(root, upto="synthesize", done=False).close()
    return root


@pytest.fixture
def nothing_starts(monkeypatch, tmp_path):
    async def with_restarts(*_):
        raise Failure("Ray would start here")

    monkeypatch.setattr(stages, "with_restarts", with_restarts)
    monkeypatch.chdir(tmp_path)


def propose(*args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([*args, *(made.AS_SET if args[0] not in ("report", "ledger") else ())])
    return end.value.code, out.getvalue(), err.getvalue()


def damaged(whole, root, damage):
    """For each kind of file its name, while `root` is a copy of the run in which that file is damaged."""
    for name in sorted({kind(name): name for name in reversed(files(whole))}.values()):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root)
        if damage(root / name, root) is not False:
            yield name


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_matrix(whole, tmp_path, nothing_starts, damage):
    root = tmp_path / "run"
    missed, faults, left = [], [], []
    for name in damaged(whole, root, damage):
        for command in ("verify", "ledger", "report", "run"):
            code, _, err = propose(command, "--run-dir", str(root))
            if code not in (0, 2) or (code == 2 and not err.strip() and command != "verify"):
                faults.append((name, command, err[-200:]))
            if command in ("verify", "ledger") and code != 2:
                missed.append((name, command))
        shutil.rmtree(root)
        shutil.copytree(whole, root)
        damage(root / name, root)
        if wrong := mended(root, whole):
            left.append((name, wrong))
    assert (missed, faults, left) == ([], [], [])


def mended(root, whole):
    """Follow what is advised until there are no findings, or none that anything mends; returns what is left."""
    for _ in range(8):
        found = verify.verify(RunDir(root))
        advised = [(f, verify.mend(RunDir(root), f)) for f in found]
        commands = [mend.split("`")[1] for _, mend in advised if "`" in mend]
        if not commands:
            break
        for words in parts(commands[0]):
            if words[1] != "verify":
                for name in files(whole):
                    if not os.path.lexists(root / name):
                        (root / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(whole / name, root / name)
    lost = [f for f, mend in advised if "cannot be made again" in mend and f.unit.startswith(MADE_ONCE)]
    return [f"{f}; {mend}" for f, mend in advised if f not in lost]


def parts(command):
    """Carry out what a command has of deleting and verifying; returns its calls of propose, in words."""
    calls = [shlex.split(part) for part in command.split(" && ")]
    for words in calls:
        if words[0] == "rm":
            shutil.rmtree(words[2]) if os.path.isdir(words[2]) else os.unlink(words[2])
        elif words[1] == "verify":
            propose(*words[1:])
    return [words for words in calls if words[0] != "rm"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_that_goes_on_builds_on_nothing_that_is_damaged(begun, tmp_path, nothing_starts, damage):
    root = tmp_path / "run"
    missed, built_on, left = [], [], []
    for name in damaged(begun, root, damage):
        found = verify.verify(RunDir(root))
        if not found:
            missed.append(name)
        _, _, err = propose("run", "--run-dir", str(root))
        if needed(found) and "Ray would start here" in err:
            built_on.append(name)
        if wrong := gone_on(root):
            left.append((name, wrong))
    assert (missed, built_on, left) == ([], [], [])


def needed(found):
    """What the next stage needs of what is damaged."""
    return [str(f) for f in found if "synthesize" in verify.dependents(f)]


def gone_on(root):
    """Do what the lines of `run` say, to the letter, until it starts; returns what keeps it from that, if anything."""
    for _ in range(8):
        code, _, err = propose("run", "--run-dir", str(root))
        if "Ray would start here" in err:
            return needed(verify.verify(RunDir(root)))
        commands = re.findall("`([^`]*)`", err)
        if code != 2 or not commands:
            break
        if re.fullmatch(r"propose verify \S+", commands[0]):  # it says what mends
            commands = re.findall("`([^`]*)`", propose(*shlex.split(commands[0])[1:])[1])
        parts(commands[0])
    return err


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_bits_flipped_at_random_are_all_noticed(whole, tmp_path, seed):
    """Half of them in files at random, half in bytes at random."""
    root, rng = shutil.copytree(whole, tmp_path / "run"), random.Random(seed)
    names = files(root)
    sizes = [(root / name).stat().st_size for name in names]
    missed = []
    for i in range(1000):
        (name,) = rng.choices(names, sizes if i % 2 else None)
        before = (root / name).read_bytes()
        bit = rng.randrange(8 * len(before))
        flip(root / name, bit)
        if not verify.verify(RunDir(root)):
            missed.append((name, bit))
        (root / name).write_bytes(before)
    assert missed == [] and verify.verify(RunDir(root)) == []
