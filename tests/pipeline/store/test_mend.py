"""Mending a run: what is advised, followed to the letter, makes again what can be, and nothing else."""

import os
import shlex
import shutil
import subprocess

import pytest

from pipeline.commands import audit, rework
from pipeline.commands import verify as command
from pipeline.domains.base import Prompts
from pipeline.flow import warmup
from pipeline.records import Failure
from pipeline.skills.extraction import SkillLibrary
from pipeline.store import accounts, manifest, metrics, verify
from pipeline.store.identity import config_text
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from tests.pipeline import made
from tests.pipeline.advice import World
from tests.pipeline.damage import files, flip
from tests.pipeline.store.verifying import found, propose


@pytest.mark.parametrize("unit", ["dataset", "skills", "report.html", "tensorboard"])
def test_what_is_derived_is_made_again_to_the_byte(capsys, root, unit):
    names = [n for n in files(root) if n.startswith(unit)]
    before = {n: (root / n).read_bytes() for n in names}
    for name in names:
        (root / name).unlink()
    if unit == "tensorboard":
        (root / names[0]).write_bytes(before[names[0]][:40] + b"x" + before[names[0]][41:])
    assert found(root)
    code, _, err = propose(capsys, "verify", str(root), "--repair")
    assert code == 0 and f"{unit}: made again" in err
    if unit != "tensorboard":  # has the time in its name
        assert {n: (root / n).read_bytes() for n in names} == before


def _with_another_license(root):
    """The card says it; a run may go on with another one."""
    old = made.config()
    new = old.model_copy(update={"acquire": old.acquire.model_copy(update={"license": "cc-by-4.0"})})
    (root / "config.yaml").write_text(config_text(new))
    flip(root / "dataset" / "README.md", 99)


def test_a_data_set_with_another_card_is_made_again_and_its_result_says_so(capsys, root):
    before = (root / "dataset" / "problems.jsonl").read_bytes()
    _with_another_license(root)
    assert found(root)
    code, _, err = propose(capsys, "verify", str(root), "--repair")
    assert code == 0 and "dataset: made again" in err and found(root) == []
    assert "cc-by-4.0" in (root / "dataset" / "README.md").read_text()
    assert (root / "dataset" / "problems.jsonl").read_bytes() == before


def test_a_result_is_not_made_to_name_what_nobody_knows_to_be_the_same(capsys, root):
    _with_another_license(root)
    (root / "dataset" / "manifest.json").unlink()
    result = (root / "stages" / "synthesize.json").read_bytes()
    code, _, err = propose(capsys, "verify", str(root), "--repair")
    assert code == 2 and "dataset: cannot be made again: the steps make other files" in err
    assert (root / "stages" / "synthesize.json").read_bytes() == result


def test_it_makes_nothing_of_steps_that_are_damaged(capsys, root):
    flip(root / "dataset" / "problems.jsonl", 99)
    flip(root / "steps" / "synthesize" / "000002" / "episodes.parquet", 999)
    content = (root / "dataset" / "problems.jsonl").read_bytes()
    code, _, err = propose(capsys, "verify", str(root), "--repair")
    assert code == 2 and "dataset: cannot be made again" in err
    assert (root / "dataset" / "problems.jsonl").read_bytes() == content


@pytest.mark.parametrize("also", [None, "dataset/problems.jsonl"])
@pytest.mark.parametrize("name", ["manifest.json", "probes.parquet"])
def test_a_data_set_is_mended_with_the_step_that_it_is_made_from(capsys, root, name, also):
    """Whichever line is followed."""
    (root / "steps" / "synthesize" / "000001" / name).write_bytes(b"\xff\x00[]{}")
    if also:
        flip(root / also, 99)
    findings = verify.verify(RunDir(root))
    mends = {verify.mend(RunDir(root), f) for f in findings if f.unit.startswith(("steps", "dataset"))}
    assert len(mends) == 1 and any(f.unit == "dataset" for f in findings) == bool(also)
    follow(capsys, mends.pop())
    assert verify.verify(RunDir(root)) == [] and not (root / "dataset").exists()


def test_the_data_set_of_a_synthesis_that_ended_early_is_made_again(capsys, tmp_path):
    root = tmp_path / "run"
    made.make(root, upto="synthesize", done=False).close()
    names = [n for n in files(root) if n.startswith("dataset/")]
    before = {n: (root / n).read_bytes() for n in names}
    for name in names:
        (root / name).write_bytes(b"[]")
        assert any(name in line for line in found(root))
        (finding, *_) = verify.verify(RunDir(root))
        follow(capsys, verify.mend(RunDir(root), finding))
        assert {n: (root / n).read_bytes() for n in names} == before and found(root) == []


def test_config_yaml_is_written_again_from_the_config_of_the_run_and_from_no_other(capsys, root):
    content = (root / "config.yaml").read_bytes()
    for damaged in (b"", content[:700], content.replace(b"seed: 0", b"seed: 1")):
        (root / "config.yaml").write_bytes(damaged)
        for args in (["report"], ["run"]):
            code, _, err = propose(capsys, *args, "--run-dir", str(root))
            assert code == 2 and "config.yaml" in err and "propose verify --repair" in err
        code, _, err = propose(capsys, "verify", str(root), "--repair", "--set", "seed=1")
        assert code == 2 and "another config" in err and (root / "config.yaml").read_bytes() == damaged
        assert propose(capsys, "verify", str(root), "--repair")[0] == 0
        assert (root / "config.yaml").read_bytes() == content
    (root / "config.yaml").unlink()
    assert propose(capsys, "run", "--run-dir", str(root))[0] == 2 and not (root / "config.yaml").exists()
    assert propose(capsys, "verify", str(root), "--repair")[0] == 0


@pytest.mark.parametrize(
    ("upto", "name"),
    [
        ("acquire", "steps/acquire/000002/replies.jsonl"),
        ("sft", "skills/second/SKILL.md"),
        ("sft", "steps/sft/000001/verdicts.parquet"),
        ("mgpo", "checkpoints/sft/step-000005/model.safetensors"),
        ("mgpo", "steps/mgpo/000002/rollouts.parquet"),
        ("mgpo", "checkpoints/mgpo/step-000003/trainer/engine/mp_rank_00_model_states.pt"),
        ("mgpo", "ledger/mgpo/000002.jsonl"),
        ("synthesize", "steps/mgpo/000003/state.json"),
        ("synthesize", "steps/mgpo/000001/episodes.parquet"),
        ("synthesize", "steps/sft/000001/verdicts.parquet"),
        ("synthesize", "checkpoints/mgpo/step-000003/tokenizer.json"),
        ("synthesize", "steps/synthesize/000001/probes.parquet"),
        ("solve", "dataset/problems.jsonl"),
        ("solve", "stages/synthesize.json"),
        ("evaluate", "checkpoints/solve/step-000002/config.json"),
        ("evaluate", "steps/evaluate/000001/score.json"),
    ],
)
def test_a_stage_looks_first_at_what_it_builds_on(tmp_path, monkeypatch, capsys, upto, name):
    """Before Ray starts; and the command in the line, followed to the letter, leaves a run that goes on."""
    root = tmp_path / "run"
    made.make(root, upto=upto, done=False).close()
    verify.preflight(RunDir(root), upto)
    before = (root / name).read_bytes()
    flip(root / name, 8 * len(before) // 2)
    monkeypatch.setattr("pipeline.pools.cluster.Cluster.start", lambda self: pytest.fail("Ray was started"))
    code, out, err = propose(capsys, "run", "--run-dir", str(root))
    assert (code, out) == (2, "")
    line = err.strip().splitlines()[-1]
    assert name in line, err
    follow(capsys, line)
    verify.preflight(RunDir(root), first_undone(root))
    assert [f for f in found(root) if "is missing, and" not in f] == []


def follow(capsys, line):
    """Run the first command of a line as it stands, but for the `propose` that would start Ray."""
    for part in line.split("`")[1].split(" && "):
        words = shlex.split(part)
        if words[:2] == ["rm", "-r"]:
            os.unlink(words[2])
        elif words[:2] == ["propose", "verify"]:
            propose(capsys, *words[1:])
        else:
            assert words[0] == "propose" and words[1] in ("run", *RUN_STAGES)


def first_undone(root):
    return next(stage for stage in RUN_STAGES if not (root / "stages" / f"{stage}.json").exists())


def test_prompts_that_are_damaged_keep_a_stage_from_starting_until_they_are_written_again(
    tmp_path, monkeypatch, capsys
):
    root = tmp_path / "a run"
    made.make(root, upto="sft", done=False).close()
    flip(root / "prompts.json", 99)
    (finding,) = verify.verify(RunDir(root))
    assert verify.dependents(RunDir(root), finding) == list(RUN_STAGES)
    monkeypatch.setattr("pipeline.pools.cluster.Cluster.start", lambda self: pytest.fail("Ray was started"))
    code, out, err = propose(capsys, "run", "--run-dir", str(root))
    assert (code, out) == (2, "") and "prompts.json: is not what was written" in err
    line = err.strip().splitlines()[-1]
    assert line.endswith(verify.mend(RunDir(root), finding))

    def would_start(self):
        raise Failure("Ray would start here")

    monkeypatch.setattr("pipeline.pools.cluster.Cluster.start", would_start)
    follow(capsys, line)
    assert "Ray would start here" in propose(capsys, "run", "--run-dir", str(root))[2]
    assert (root / "prompts.json").is_file() and verify.verify(RunDir(root)) == []


@pytest.mark.parametrize("damage", [lambda path: flip(path, 99), lambda path: path.unlink()])
def test_prompts_that_are_lost_are_only_those_that_stages_were_made_with(capsys, root, monkeypatch, damage):
    before = (root / "prompts.json").read_bytes()
    damage(root / "prompts.json")
    (finding,) = verify.verify(RunDir(root))
    follow(capsys, verify.mend(RunDir(root), finding))
    assert (root / "prompts.json").read_bytes() == before and verify.verify(RunDir(root)) == []
    damage(root / "prompts.json")
    monkeypatch.setattr(Prompts, "digests", lambda self: {"proposer": "another"})
    _, out, err = propose(capsys, "verify", "--run-dir", str(root), "--repair")
    assert "prompts.json: cannot be made again" in err and "acquire was made with other prompts" in err
    assert "prompts.json" in out
    (root / "prompts.json").unlink(missing_ok=True)
    run = RunDir.open(root, made.config())
    with pytest.raises(Failure, match="acquire was made with other prompts"):
        run.adopt_prompts({"proposer": "another"})
    run.close()


@pytest.mark.parametrize(
    "name",
    [
        "dataset/more.jsonl",
        "skills/fourth/SKILL.md",
        "steps/mgpo/000002/more.parquet",
        "checkpoints/mgpo/step-000003/more.safetensors",
    ],
)
def test_what_nobody_vouches_for_is_named_and_taken_out_of_the_way_and_kept(capsys, root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("precious")
    (finding,) = verify.verify(RunDir(root))
    assert finding.path == name and finding.what == verify.NOT_LISTED
    before = set(files(root))
    follow(capsys, verify.mend(RunDir(root), finding))
    assert verify.verify(RunDir(root)) == [] and set(files(root)) == before - {name}
    assert (root / ".set-aside/1" / name).read_text() == "precious"
    assert len(SkillLibrary.load(root / "skills")) == 3


@pytest.mark.parametrize(
    "copy", ["steps/mgpo/000002 (copy)", "steps/mgpo/0000002", "steps/mgpo/000000", "steps/mgpo.bak"]
)
def test_a_copy_beside_steps_is_no_step(root, copy):
    """Of another stage it is one, and what mends it takes no step of ours."""
    shutil.copytree(root / "steps/mgpo/000002", root / copy / ("000001" if copy.endswith("bak") else ""))
    assert [step.name for step in RunDir(root).steps("mgpo")] == ["000001", "000002", "000003"]
    for finding in verify.verify(RunDir(root)):
        words = shlex.split(verify.mend(RunDir(root), finding).split("`")[1].partition(" && ")[0])
        command.verify_and_mend(root, made.config(), False, words[-1])
    assert {f.path for f in verify.verify(RunDir(root))} <= {"report.html"}
    assert (root / "steps/mgpo/000002").is_dir()


@pytest.mark.parametrize("damage", [lambda path: flip(path, 99), lambda path: (path.unlink(), path.mkdir())])
def test_what_the_adversary_found_is_found_again(capsys, root, monkeypatch, damage):
    async def search(*_):  # takes minutes
        return before | {"accepted": 0, "paid": 0, "exported": 0, "exploits": 0, "examples": {}}

    before = manifest.read(root / "adversary.json")
    monkeypatch.setattr(audit, "search", search)
    damage(root / "adversary.json")
    (finding,) = verify.verify(RunDir(root))
    line = verify.mend(RunDir(root), finding)
    assert verify.dependents(RunDir(root), finding) == []
    assert line in propose(capsys, "report", "--run-dir", str(root))[2]
    away, again = (shlex.split(part) for part in line.split("`")[1].split(" && "))
    assert away == ["rm", "-r", str(root / "adversary.json")]
    assert again[:3] == ["propose", "audit-verifiers", "--adversary"]
    subprocess.run(away, check=True)
    assert propose(capsys, *again[1:])[0] == 0
    assert verify.verify(RunDir(root)) == []


def _gap(root):
    shutil.rmtree(root / "steps" / "mgpo" / "000002")
    RunDir(root).steps("mgpo")


def _broken_config(root):
    (root / "config.yaml").write_bytes(b"")
    RunDir.read(root)


def _begun_with_a_broken_config(root):
    (root / "config.yaml").write_bytes(b"")
    RunDir.open(root, made.config())


def _accounts(root):
    flip(root / "ledger" / "mgpo" / "000002.jsonl", 99)
    accounts.check(RunDir(root), "mgpo")


def _mirror(root):
    uri = f"file://{root.parent}/mirror"
    RunDir.open(root, made.config(uri)).close()
    (root / "steps" / "mgpo" / "000002" / "episodes.parquet").unlink()
    RunDir.open(root, made.config(uri)).close()


def _lock(root):
    (root / ".lock").unlink()
    (root / ".lock").mkdir()
    RunDir.open(root, made.config())


def _nothing_to_redo(root):
    for stage in ("solve", "evaluate"):
        rework.redo(root, stage, False)
    rework.redo(root, "solve", False)


def _fork_that_is_there(root):
    rework.fork(root, ["solve.lr=1e-4"], root.parent / "a fork", False)
    rework.fork(root, ["solve.lr=1e-4"], root.parent / "a fork", False)


@pytest.mark.parametrize(
    "fail",
    [_gap, _broken_config, _begun_with_a_broken_config, _accounts, _mirror, _lock, _nothing_to_redo,
     _fork_that_is_there],
)  # fmt: skip
def test_a_command_that_is_advised_works_as_it_stands_whatever_the_run_is_called(whole, tmp_path, fail):
    root = shutil.copytree(whole, tmp_path / "a run")
    with pytest.raises(Failure) as caught:
        fail(root)
    words = [word for advice in str(caught.value).split("`")[1::2] for word in shlex.split(advice)]
    assert {str(root), str(root / ".lock"), str(tmp_path / "a fork")} & set(words), caught.value


@pytest.mark.parametrize(
    "name",
    ["dataset/problems.jsonl", "stages/mgpo.json", "steps/mgpo/000002/state.json", "prompts.json", "adversary.json",
     "checkpoints/mgpo/step-000003/config.json", "trajectories/extraction.parquet"],
)  # fmt: skip
def test_so_does_one_that_mends(whole, tmp_path, name):
    root = shutil.copytree(whole, tmp_path / "a run")
    flip(root / name, 9)
    (mend,) = {verify.mend(RunDir(root), f) for f in verify.verify(RunDir(root)) if f.path.startswith(name)}
    assert {str(root), str(root / name)} & set(shlex.split(mend.split("`")[1]))


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "prompts.json", "stages/mgpo.json", "steps/solve/000002/rollouts.parquet", "report.html",
     "checkpoints/mgpo/step-000003/config.json", "trajectories/extraction.parquet", "dataset/provenance.jsonl",
     "stages/solve.warmup.json", "checkpoints/solve.warmup/step-000003/config.json", "solutions/warmup.parquet"],
)  # fmt: skip
def test_a_run_is_whole_again_once_what_is_advised_is_done(whole, root, monkeypatch, name):
    """To the letter; of all kinds of files and damages: `test_damage`, nightly."""
    world = World(monkeypatch)
    flip(root / name, 99)
    assert world.followed("verify", root) == "" == world.followed("run", root)
    assert verify.verify(RunDir(root)) == [] == world.built_on and world.codes == {0, 2}
    for same in ("dataset/problems.jsonl", "config.yaml", "prompts.json"):
        assert (root / same).read_bytes() == (whole / same).read_bytes()


def test_a_warm_up_whose_result_is_gone_is_missed_once_its_stage_has_begun(tmp_path):
    run = made.make(tmp_path / "run", upto="solve", done=False)
    run.close()
    result = run.path("stages", f"{warmup.NAME}.json")
    result.unlink()
    (missed,) = verify.verify(run)
    assert missed.unit == f"stages/{warmup.NAME}.json" and "propose solve --config" in verify.mend(run, missed)
    for step in run.steps("solve"):
        shutil.rmtree(step)
    shutil.rmtree(run.path("ledger", "solve"))
    shutil.rmtree(run.path("checkpoints", "solve"))
    assert verify.verify(run) == [], "before, a process may have died over it"


@pytest.mark.parametrize(
    "name", ["quarantine/mgpo/mgpo-000001-3.json", "checkpoints/mgpo/step-000002/trainer/manifest-0.json"]
)
def test_a_stage_ends_without_a_note_that_cannot_be_read_and_not_without_a_manifest(tmp_path, name):
    run = made.make(tmp_path / "run", upto="mgpo", done=False)
    run.path(*name.split("/")).unlink()
    run.path(*name.split("/")).mkdir()
    if name.startswith("quarantine"):
        run.finish("mgpo", {}, 1.0)
        assert name not in run.finished("mgpo")["files"] and name in [f.path for f in verify.verify(run)]
    else:
        with pytest.raises(
            Failure, match=r"manifest-0.json: cannot be read \(Is a directory\); `propose verify .*` says"
        ):
            run.finish("mgpo", {}, 1.0)
    run.close()


def test_what_is_set_aside_takes_with_it_all_that_tells_of_it(capsys, root):
    before = metrics.read(RunDir(root))
    assert {"mgpo", "synthesize", "solve", "evaluate"} <= before.keys()
    content = (root / "metrics.jsonl").read_bytes()
    code, out, _ = propose(capsys, "verify", str(root), "--set-aside", "steps/synthesize/000002")
    assert code == 0, out
    after = metrics.read(RunDir(root))
    assert {stage: len(rows) for stage, rows in after.items()} == {
        stage: len(rows) for stage, rows in before.items() if stage not in ("solve", "evaluate")
    } | {"synthesize": 1}
    aside = root / ".set-aside" / "1"
    assert (aside / "metrics.jsonl").read_bytes() == content
    for name in ("summary.json", "report.html", "stages/evaluate.json", "dataset", "steps/synthesize/000002"):
        assert (aside / name).exists() and not (root / name).exists()


def test_damage_found_in_the_mirror_is_mended_from_the_run_and_the_other_way_round(capsys, tmp_path):
    root, uri = tmp_path / "run", f"file://{tmp_path}/mirror"
    made.make(root, mirror=uri).close()
    settings = ["--set", f"mirror={uri}"]
    assert propose(capsys, "verify", uri)[0] == 0
    (episodes,) = (tmp_path / "mirror" / "files" / "steps" / "mgpo" / "000002").glob("episodes*")
    flip(episodes, 999)
    code, out, _ = propose(capsys, "verify", uri)
    assert code == 2 and "steps/mgpo/000002/episodes.parquet: object" in out
    code, _, err = propose(capsys, "verify", str(root), "--repair", *settings)
    assert code == 0 and "steps/mgpo/000002/episodes.parquet: sent to the mirror again" in err
    assert propose(capsys, "verify", uri)[0] == 0

    names = ["steps/mgpo/000002/rollouts.parquet", "checkpoints/mgpo/step-000003/model.safetensors",
             "stages/sft.json", "ledger/mgpo/000001.jsonl", "steps/acquire/000001/manifest.json"]  # fmt: skip
    before = {name: (root / name).read_bytes() for name in names}
    for name in names:
        flip(root / name, 99)
    code, _, err = propose(capsys, "verify", str(root), "--repair", *settings)
    assert code == 0 and err.count("restored from the mirror") == len(names)
    assert {name: (root / name).read_bytes() for name in names} == before

    short, long = sorted((root / "ledger" / "mgpo").glob("*.jsonl"), key=lambda path: path.stat().st_size)[::2]
    before = short.read_bytes()
    short.write_bytes(long.read_bytes())  # longer, and not for lines that were appended since
    assert propose(capsys, "verify", str(root), "--repair", *settings)[0] == 0 and short.read_bytes() == before


def test_a_mirror_does_not_follow_a_run_into_its_damage(tmp_path):
    root, uri = tmp_path / "run", f"file://{tmp_path}/mirror"
    made.make(root, mirror=uri, upto="mgpo").close()
    for name in ("steps/mgpo/000002/rollouts.parquet", "steps/mgpo/000001/verdicts.parquet"):
        path = root / name
        content = path.read_bytes()
        flip(path, 99) if "rollouts" in name else path.unlink()
        run = RunDir.open(root, made.config(uri))
        with pytest.raises(Failure, match=f"keeps what it has, for .*{name}"):
            run.close()
        path.write_bytes(content)
    RunDir.open(root, made.config(uri)).close()
