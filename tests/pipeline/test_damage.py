"""Every kind of file of a run, damaged in every way that disks, people and other processes do: it is noticed, no
command takes it for a fault of ours, and the command in the line, followed to the letter, mends it.

What a run would make again (a stage without its result, steps set aside) is put back from an undamaged copy here, and
made by a real run in `test_recovery`."""

import contextlib
import functools
import io
import os
import random
import re
import shlex
import shutil
from copy import deepcopy

import pytest
import typer.main

from pipeline import stages
from pipeline.cli import main
from pipeline.config import loading
from pipeline.records import Failure
from pipeline.store import verify
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.snapshot import CHECKPOINTS, registered
from tests.pipeline import made
from tests.pipeline.damage import DAMAGES, delete, empty, files, flip, flipped, garbage, half, kind, last_bit

WOULD_START = "Ray would start here for "
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
    """Stage -> a run that was stopped in the middle of it: it has steps, attempts that are out, and no result."""
    return {
        stage: _made(tmp_path_factory.mktemp(f"begun-{stage}") / "run", upto=stage, done=False) for stage in RUN_STAGES
    }


@pytest.fixture(scope="module")
def between(tmp_path_factory):
    """Stage -> a run that was stopped after it: nothing of the next one is there."""
    return {stage: _made(tmp_path_factory.mktemp(f"after-{stage}") / "run", upto=stage) for stage in RUN_STAGES}


def _made(root, **how):
    made.make(root, **how).close()
    return root


@pytest.fixture(autouse=True)
def commands_are_quick(monkeypatch):
    """What thousands of commands do alike is done once: building their tree, and reading the YAML of a config."""
    read = functools.cache(loading.parse)
    monkeypatch.setattr(loading, "parse", lambda text: deepcopy(read(text)))
    monkeypatch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))


@pytest.fixture
def nothing_starts(monkeypatch, tmp_path):
    async def with_restarts(context, stage, work):
        raise Failure(f"{WOULD_START}{stage}")

    monkeypatch.setattr(stages, "with_restarts", with_restarts)
    monkeypatch.chdir(tmp_path)


def propose(*args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([*args, *(made.AS_SET if args[0] not in ("report", "ledger") else ())])
    return end.value.code, out.getvalue(), err.getvalue()


class Copy:
    """Of a run, to damage. Only what was changed in it is written again, so that the rest is not digested again."""

    def __init__(self, of, root):
        self.of, self.root = of, shutil.copytree(of, root)
        self._content = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        self._folders = {parent for path in self._content for parent in path.parents}

    def whole(self):
        for path in sorted(self.root.rglob("*"), reverse=True):
            kept = path in (self._content if path.is_file() else self._folders) and os.access(path, os.R_OK)
            if path.is_symlink() or not kept:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path, content in self._content.items():
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def damaged(self, damage, *tops):
        """For each kind of file its name, while that file is damaged."""
        for name in sorted({kind(name): name for name in reversed(files(self.of))}.values()):
            if tops and not name.startswith(tops):
                continue
            self.whole()
            if damage(self.root / name, self.root) is not False:
                yield name


@pytest.fixture
def copy(tmp_path):
    return lambda run: Copy(run, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_matrix(whole, copy, nothing_starts, damage):
    run = copy(whole)
    missed, faults = [], []
    for name in run.damaged(damage):
        for command in ("verify", "ledger", "report", "run"):
            code, _, err = propose(command, "--run-dir", str(run.root))
            if code not in (0, 2) or (code == 2 and not err.strip() and command != "verify"):
                faults.append((name, command, err[-200:]))
            if command in ("verify", "ledger") and code != 2:
                missed.append((name, command))
    assert (missed, faults) == ([], [])


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_advised_mends_a_run_that_is_done(whole, copy, nothing_starts, damage):
    run = copy(whole)
    left = [(name, wrong) for name in run.damaged(damage) if (wrong := mended(run.root, whole))]
    assert left == []


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
                put_back(root, whole)
    lost = [f for f, mend in advised if "cannot be made again" in mend and f.unit.startswith(MADE_ONCE)]
    return [f"{f}; {mend}" for f, mend in advised if f not in lost]


def put_back(root, whole, stage=None):
    """What is not there and a stage would make again; without one, a whole run."""
    for name in files(whole):
        top, _, rest = name.partition("/")
        of = rest.partition("/")[0].removesuffix(".json")
        if (stage is None or of == stage or top == RUN_STAGES[stage].makes) and not os.path.lexists(root / name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole / name, root / name)


def parts(command):
    """Carry out what a command has of deleting and verifying; returns its calls of propose, in words."""
    calls = [shlex.split(part) for part in command.split(" && ")]
    for words in calls:
        if words[0] == "rm":
            shutil.rmtree(words[2]) if os.path.isdir(words[2]) else os.unlink(words[2])
        elif words[0] == "mv":
            os.rename(words[1], words[2])
        elif words[1] == "verify":
            propose(*words[1:])
    return [words for words in calls if words[0] == "propose"]


@pytest.mark.parametrize("stage", RUN_STAGES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_that_goes_on_builds_on_nothing_that_is_damaged(begun, copy, nothing_starts, stage, damage):
    run = copy(begun[stage])
    missed, built_on, left = [], [], []
    for name in run.damaged(damage, *touched_in(stage)):
        before = verify.verify(RunDir(run.root))
        if not before and not of_a_crash(stage, name, damage) and not of_no_reader(run, name):
            missed.append(name)
        _, _, err = propose("run", "--run-dir", str(run.root))
        if needed(run.root, [f for f in verify.verify(RunDir(run.root)) if f in before], err):
            built_on.append(name)
        if wrong := gone_on(run.root, begun[stage]):
            left.append((name, wrong))
    assert (missed, built_on, left) == ([], [], [])


def touched_in(stage):
    """What can come to other ends in this stage than in a run that is whole: all but what earlier ones have made."""
    before = list(RUN_STAGES)[: list(RUN_STAGES).index(stage)][-1:]
    own = [f"{top}/{name}" for name in (stage, *before) for top in ("steps", "ledger", "quarantine", "checkpoints")]
    made_by = {RUN_STAGES[name].makes for name in (stage, *before)} - {None}
    return (*(f"{name}/" for name in own), *made_by, "stages", "metrics", "events", "prompts", "config", "tensor")


def of_a_crash(stage, name, damage):
    """Attempts that are out are lost with the end of their journal, as when a machine dies."""
    out = f"ledger/{stage}/{made.STEPS.get(stage, 0) + 1:06d}.jsonl"
    return name == out and damage.__name__ in ("delete", "empty", "half")


def of_no_reader(run, name):
    """Ray Train overwrites its list while a stage is going on, and nobody reads more of it than the names."""
    if not name.endswith(CHECKPOINTS):
        return False
    return registered((run.root / name).read_bytes()) == registered((run.of / name).read_bytes())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_between_two_stages_the_result_of_the_last_is_missed(between, copy, nothing_starts, damage):
    missed, left = [], []
    for stage, of in between.items():
        run = Copy(of, of.with_name(damage.__name__))
        for name in run.damaged(damage, "stages"):
            if not any(f.unit == name for f in verify.verify(RunDir(run.root))):
                missed.append((stage, name))
            if wrong := gone_on(run.root, of):
                left.append((stage, name, wrong))
    assert (missed, left) == ([], [])


def needed(root, found, err):
    """What the stage that would start needs of what is damaged."""
    starts = err.partition(WOULD_START)[2].split()
    return [str(f) for f in found if starts and starts[0] in verify.dependents(RunDir(root), f)]


def gone_on(root, whole):
    """Do what the lines of `run` say, to the letter, until a stage starts; what that makes again is put back. Returns
    what keeps it from going on, if anything."""
    err = ""
    for _ in range(8):
        code, _, err = propose("run", "--run-dir", str(root))
        found = verify.verify(RunDir(root))
        if WOULD_START in err:
            if wrong := needed(root, found, err):
                return wrong
            stage = err.partition(WOULD_START)[2].split()[0]
            result = f"stages/{stage}.json"
            if (root / result).exists() or not (whole / result).exists():
                return ""
            put_back(root, whole, stage)
            continue
        commands = re.findall("`([^`]*)`", err)
        if code != 2 or not commands:
            return err if code else ""
        if re.fullmatch(r"propose verify \S+", commands[0]):  # it says what mends
            commands = re.findall("`([^`]*)`", propose(*shlex.split(commands[0])[1:])[1])
        parts(commands[0])
    return err


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A run, and the folder of its mirror."""
    folder = tmp_path_factory.mktemp("mirrored")
    made.make(folder / "run", mirror=f"file://{folder}/mirror").close()
    return folder / "run", folder / "mirror"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_with_a_mirror_is_mended_from_it_to_the_byte(mirrored, copy, nothing_starts, damage):
    run, mirror = copy(mirrored[0]), ("--set", f"mirror=file://{mirrored[1]}")
    missed, left = [], []
    for name in run.damaged(damage):
        if not verify.verify(RunDir(run.root)):
            missed.append(name)
        propose("verify", str(run.root), "--repair", *mirror)
        there = run.root / name
        same = there.is_file() and there.read_bytes() == (mirrored[0] / name).read_bytes()
        if verify.verify(RunDir(run.root)) or not (same or name.startswith("tensorboard")):
            (finding, *_) = verify.verify(RunDir(run.root))
            parts(verify.mend(RunDir(run.root), finding).split("`")[1])
            assert propose("run", "--run-dir", str(run.root), *mirror)[0] == 0
            left += verify.verify(RunDir(run.root))
            shutil.rmtree(f"{run.root}.away")
    assert (missed, left) == ([], [])


@pytest.mark.parametrize(
    "damage", [delete, empty, half, flipped, last_bit, garbage], ids=lambda damage: damage.__name__
)
def test_a_mirror_is_mended_from_its_run(mirrored, copy, damage):
    mirror = copy(mirrored[1])
    uri, missed, left = f"file://{mirror.root}", [], []
    told = ("--set", f"mirror={uri}")
    tops = {name.partition("/")[0] for name in files(mirrored[0]) if name[0] != "."}
    for top in ("manifest-0.json", "manifest-1.json", *(f"files/{top}" for top in sorted(tops))):
        mirror.whole()
        name = next(name for name in files(mirror.root) if name.startswith(top))
        damage(mirror.root / name, mirror.root)
        if propose("verify", uri)[0] != 2:
            missed.append(name)
        propose("verify", str(mirrored[0]), "--repair", *told)
        if (end := propose("verify", uri))[0]:
            left.append((name, end))
    assert (missed, left) == ([], [])


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_bits_flipped_at_random_are_all_noticed(whole, tmp_path, seed):
    """Half of them in files at random, half in bytes at random. One finding is enough."""
    root, rng = shutil.copytree(whole, tmp_path / "run"), random.Random(seed)
    sized = {name: size for name in files(root) if (size := (root / name).stat().st_size)}
    names, sizes = list(sized), list(sized.values())
    missed = []
    for i in range(1000):
        (name,) = rng.choices(names, sizes if i % 2 else None)
        before = (root / name).read_bytes()
        bit = rng.randrange(8 * len(before))
        flip(root / name, bit)
        if next(verify._all(RunDir(root)), None) is None:
            missed.append((name, bit))
        (root / name).write_bytes(before)
    assert missed == [] and verify.verify(RunDir(root)) == []
