"""Every kind of file of a run, damaged in every way that disks, people and other processes do: it is noticed, no
command takes it for a fault of ours, and the command in the line, followed to the letter, mends it.

What is followed is carried out as it stands (`advice`). Only the work of a stage is that of `made`, which needs neither
Ray nor a model, and goes on from what is on disk as real stages do."""

import functools
import os
import random
import shutil
from copy import deepcopy
from itertools import pairwise

import datasketch.lsh
import pytest
import typer.main

from pipeline.commands import doctor_config
from pipeline.config import loading
from pipeline.store import verify
from pipeline.store.mirror import MANIFEST, manifests
from pipeline.store.remote import RemoteStore
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.snapshot import CHECKPOINTS, registered
from tests.pipeline import made
from tests.pipeline.advice import World
from tests.pipeline.damage import DAMAGES, delete, elsewhere, empty, files, flip, flipped, garbage, half, kind, last_bit

PAGES = ("tensorboard", "report.html", "summary.json")
"""What is made again says when."""
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
    """What thousands of commands do alike is done once: building their tree, reading the YAML of a config, looking at
    the bundled models, and the bands of an index of texts."""
    read = functools.cache(loading.parse)
    monkeypatch.setattr(loading, "parse", lambda text: deepcopy(read(text)))
    for module, name in ((typer.main, "get_command"), (doctor_config, "_model"), (datasketch.lsh, "_optimal_param")):
        monkeypatch.setattr(module, name, functools.cache(getattr(module, name)))


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Where stages do what `made` does."""
    monkeypatch.chdir(tmp_path)
    return World(monkeypatch)


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
            assert not elsewhere(self.root).exists(), name


@pytest.fixture
def copy(tmp_path):
    return lambda run: Copy(run, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_matrix(whole, copy, world, damage):
    run = copy(whole)
    world.propose("report", str(run.root))
    summary, missed, faults = (run.root / "summary.json").read_bytes(), [], []
    for name in run.damaged(damage):
        for command in ("verify", "ledger", "report", "run"):
            code, _, err = world.propose(command, str(run.root))
            if code not in (0, 2) or (code == 2 and not err.strip() and command != "verify"):
                faults.append((name, command, err[-200:]))
            other = (command, code) == ("report", 0) and (run.root / "summary.json").read_bytes() != summary
            if (command in ("verify", "ledger") and code != 2) or (other and name not in err):
                missed.append((name, command))
    assert (missed, faults) == ([], [])


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_advised_mends_a_run_that_is_done(whole, copy, world, damage):
    """Whoever gives the advice."""
    run, left = copy(whole), []
    for name in run.damaged(damage):
        said = [world.followed("report", run.root), world.followed("run", run.root)]
        run.whole()
        damage(run.root / name, run.root)
        if wrong := [*filter(None, said), *unmended(world, run)]:
            left.append((name, wrong))
    assert (left, world.built_on, world.codes - {0, 2}) == ([], [], set())


def unmended(world, run):
    """What is left when all that `verify` advises is followed, and the run has come to its end once more."""
    world.followed("verify", run.root)
    if wrong := world.followed("run", run.root):
        yield wrong
    yield from map(str, not_lost(run.root))
    problems = "dataset/problems.jsonl"
    if (run.root / problems).read_bytes() != (run.of / problems).read_bytes():
        yield "the data set is another"


def not_lost(root):
    """Findings but for those of what nothing makes again."""
    found = verify.verify(RunDir(root))
    return [
        f for f in found
        if not f.unit.startswith(MADE_ONCE) or "cannot be made again" not in verify.mend(RunDir(root), f)
    ]  # fmt: skip


@pytest.mark.parametrize("stage", RUN_STAGES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_that_goes_on_builds_on_nothing_that_is_damaged(begun, copy, world, stage, damage):
    run, world.until = copy(begun[stage]), after(stage)
    missed, left = [], []
    for name in run.damaged(damage, *touched_in(stage)):
        if not verify.verify(RunDir(run.root)) and not of_a_crash(stage, name, damage) and not of_no_reader(run, name):
            missed.append(name)
        if wrong := world.followed("run", run.root):
            left.append((name, wrong))
    assert (missed, world.built_on, left, world.codes - {0, 2}) == ([], [], [], set())


def after(stage):
    return dict(pairwise([*RUN_STAGES, None]))[stage]


def touched_in(stage):
    """What can come to other ends in this stage than in a run that is whole: all but what earlier ones have made."""
    before = list(RUN_STAGES)[: list(RUN_STAGES).index(stage)][-1:]
    own = [f"{top}/{name}" for name in (stage, *before) for top in ("steps", "ledger", "quarantine", "checkpoints")]
    made_by = {RUN_STAGES[name].makes for name in (stage, *before)} - {None}
    return (*(f"{name}/" for name in own), *made_by, "stages", "metrics", "events", "prompts", "config", "tensor")


def of_a_crash(stage, name, damage):
    """Attempts that are out are lost with the end of their journal, as when a machine dies. A board lacks a row of each
    process that died, and that of the first steps has no more."""
    out = f"ledger/{stage}/{made.STEPS.get(stage, 0) + 1:06d}.jsonl"
    of_the_first = stage == "sft" and name.startswith("tensorboard")
    return of_the_first or (name == out and damage.__name__ in ("delete", "empty", "half"))


def of_no_reader(run, name):
    """Ray Train overwrites its list while a stage is going on, and nobody reads more of it than the names."""
    if not name.endswith(CHECKPOINTS):
        return False
    return registered((run.root / name).read_bytes()) == registered((run.of / name).read_bytes())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_between_two_stages_the_result_of_the_last_is_missed(between, world, damage):
    missed, left = [], []
    for stage, of in between.items():
        run, world.until = Copy(of, of.with_name(damage.__name__)), after(stage)
        for name in run.damaged(damage, "stages"):
            if not any(f.unit == name for f in verify.verify(RunDir(run.root))):
                missed.append((stage, name))
            if wrong := world.followed("run", run.root):
                left.append((stage, name, wrong))
    assert (missed, world.built_on, left, world.codes - {0, 2}) == ([], [], [], set())


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A run, and the folder of its mirror."""
    folder = tmp_path_factory.mktemp("mirrored")
    made.make(folder / "run", mirror=f"file://{folder}/mirror").close()
    return folder / "run", folder / "mirror"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_with_a_mirror_is_mended_from_it_to_the_byte(mirrored, copy, world, damage):
    run, missed, left = copy(mirrored[0]), [], []
    for name in run.damaged(damage):
        if not verify.verify(RunDir(run.root)):
            missed.append(name)
        told = [*made.AS_SET, "--set", f"mirror=file://{mirrored[1]}"] if name == "config.yaml" else []
        world.propose("verify", str(run.root), "--repair", *told)
        there = run.root / name
        same = there.is_file() and there.read_bytes() == (mirrored[0] / name).read_bytes()
        if verify.verify(RunDir(run.root)) or not (same or name.startswith(PAGES)):
            left += [world.followed("verify", run.root), *verify.verify(RunDir(run.root))]
            shutil.rmtree(f"{run.root}.away", ignore_errors=True)  # there is one where the run was restored whole
    assert (missed, [*filter(None, left)], world.codes - {0, 2}) == ([], [], set())


@pytest.mark.parametrize(
    "damage", [delete, empty, half, flipped, last_bit, garbage], ids=lambda damage: damage.__name__
)
def test_a_mirror_is_mended_from_its_run(tmp_path, world, damage):
    """Objects that its last manifest names: those that only the one before names wait to be deleted."""
    run, uri = tmp_path / "run", f"file://{tmp_path}/mirror"
    made.make(run, mirror=uri, upto="synthesize").close()
    assert world.propose("run", str(run))[0] == 0  # another process, so there are two manifests at least
    run_kept, mirror = (Copy(p.rename(p.with_suffix(".of")), p) for p in (run, tmp_path / "mirror"))
    missed, left = [], []
    last, _ = manifests(RemoteStore(uri))
    named = [*(MANIFEST.format(i) for i in (0, 1)), *sorted(name for _, _, name in last.files.values())]
    tops = {name.partition("/")[0] for name in last.files if name[0] != "."}
    for top in ("manifest-0.json", "manifest-1.json", *(f"files/{top}" for top in sorted(tops))):
        run_kept.whole()  # it knows what it has sent
        mirror.whole()
        name = next(name for name in named if name.startswith(top))
        damage(mirror.root / name, mirror.root)
        if world.propose("verify", uri)[0] != 2:
            missed.append(name)
        world.propose("verify", str(run), "--repair")
        world.propose("run", str(run))  # what the manifest before the last does not name
        if (end := world.propose("verify", uri))[0]:
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
