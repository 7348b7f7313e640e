"""Verifying a run: what was changed is found and named, what depends on it is said, and what is advised mends it."""

import json
import os
import shlex
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.commands import audit, rework
from pipeline.commands import verify as command
from pipeline.config import loading
from pipeline.domains.base import Prompts
from pipeline.flow.steps import judged_in
from pipeline.records import Failure
from pipeline.skills.extraction import SkillLibrary
from pipeline.store import accounts, manifest, metrics, verify
from pipeline.store.digests import MANIFEST
from pipeline.store.identity import config_text, default_root
from pipeline.store.manifest import Damage, seal_folder
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from tests.pipeline import made
from tests.pipeline.damage import files, flip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and the mirror that it had."""
    root = tmp_path_factory.mktemp("whole")
    made.make(root / "run").close()
    return root / "run"


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def propose(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main([*args, *(made.AS_SET if args[0] not in ("report", "ledger") else ())])
    out, err = capsys.readouterr()
    return end.value.code, out, err


def found(root):
    return [str(f) for f in verify.verify(RunDir(root))]


def test_a_run_as_it_was_written_has_no_findings(capsys, root):
    assert found(root) == []
    code, out, _ = propose(capsys, "verify", str(root), "--json")
    assert code == 0 and json.loads(out)["findings"] == [] and json.loads(out)["files"] == len(files(root))


def test_it_says_the_file_what_is_wrong_who_needs_it_and_what_mends_it(capsys, root):
    flip(root / "dataset" / "problems.jsonl", 99)
    code, out, _ = propose(capsys, "verify", str(root))
    assert code == 2
    assert "dataset/problems.jsonl: has SHA-256" in out and "needed by solve" in out
    assert f"`propose verify {root} --repair` makes it again" in out


def test_verdicts_are_those_of_their_episodes_whatever_the_order_of_the_rows(root):
    """Reversed, with digests to match: paired by order, the wrong problems would be taken for accepted."""
    step = root / "steps" / "synthesize" / "000001"
    before = list(judged_in(step))
    for name in ("verdicts", "probes"):
        table = pq.read_table(step / f"{name}.parquet")
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), step / f"{name}.parquet")
    seal_folder(step, "steps/synthesize/000001", [p.name for p in step.iterdir() if p.name != MANIFEST])
    assert list(judged_in(step)) == before
    assert [j.verdict.problem_id for j in before] == [j.episode.submitted.id for j in before]


def test_a_verdict_on_another_problem_is_refused_although_digests_match(root):
    step = root / "steps" / "synthesize" / "000001"
    table = pq.read_table(step / "verdicts.parquet")
    names = table.column("episode_id").to_pylist()
    swapped = [names[1], names[0], *names[2:]]
    table = table.set_column(0, table.schema.field(0), pa.chunked_array([swapped]))
    pq.write_table(table, step / "verdicts.parquet")
    seal_folder(step, "steps/synthesize/000001", [p.name for p in step.iterdir() if p.name != MANIFEST])
    with pytest.raises(Damage, match="the verdict of synthesize-000001-"):
        list(judged_in(step))


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
        ("acquire", "steps/acquire/000002/reply.json"),
        ("sft", "skills/second/SKILL.md"),
        ("sft", "steps/sft/000001/verdicts.parquet"),
        ("mgpo", "checkpoints/sft/step-000005/model.safetensors"),
        ("mgpo", "steps/mgpo/000002/rollouts.parquet"),
        ("mgpo", "checkpoints/mgpo/step-000003/trainer/engine/mp_rank_00_model_states.pt"),
        ("mgpo", "ledger/mgpo/000002.jsonl"),
        ("synthesize", "steps/mgpo/000003/state.json"),
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
    assert verify.dependents(finding) == list(RUN_STAGES)
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


@pytest.mark.parametrize("name", ["summary.json", "adversary.json", "stages/evaluate.json", "tensorboard/*"])
def test_what_is_gone_is_noticed_where_another_file_tells_of_it(root, name):
    (path,) = root.glob(name)
    path.unlink()
    (finding,) = verify.verify(RunDir(root))
    assert finding.path == name.removesuffix("/*")
    assert f"rm -r {path}" not in verify.mend(RunDir(root), finding), "what is not there cannot be deleted"


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


@pytest.mark.parametrize("name", ["stages/mgpo.json", "steps/mgpo/000002/episodes.parquet", "metrics.jsonl"])
@pytest.mark.parametrize("what", ["verify", "ledger", "report", "run"])
def test_nobody_waits_for_whoever_writes_to_a_pipe(capsys, root, name, what):
    (root / name).unlink()
    os.mkfifo(root / name)
    code, _, err = propose(capsys, what, "--run-dir", str(root))
    assert code == 2 and f"{root / name}: is neither a file nor a folder" in err and err.count("\n") == 1


def test_a_manifest_of_another_step_takes_no_file_of_this_one_away(capsys, root):
    shutil.copy(root / "steps/synthesize/000001" / MANIFEST, root / "steps/mgpo/000001" / MANIFEST)
    assert "steps/mgpo/000001/rollouts.parquet" not in {f.path for f in verify.verify(RunDir(root))}
    propose(capsys, "verify", "--run-dir", str(root), "--repair")
    assert (root / "steps/mgpo/000001/rollouts.parquet").is_file()


def test_a_sealed_file_in_the_place_of_another_is_noticed(root):
    (root / "adversary.json").write_bytes((root / "prompts.json").read_bytes())
    (finding,) = verify.verify(RunDir(root))
    assert finding.path == "adversary.json"


def test_content_that_is_written_over_with_the_time_it_had_is_digested_again(root):
    path = root / "steps/mgpo/000002/episodes.parquet"
    assert verify.verify(RunDir(root)) == []
    at = path.stat()
    flip(path, 99)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert [f.path for f in verify.verify(RunDir(root))] == ["steps/mgpo/000002/episodes.parquet"]


@pytest.mark.parametrize("damage", [lambda path: flip(path, 99), lambda path: (path.unlink(), path.mkdir())])
def test_what_the_adversary_found_is_found_again(capsys, root, monkeypatch, damage):
    async def search(*_):  # takes minutes
        return before | {"accepted": 0, "paid": 0, "exported": 0, "exploits": 0, "examples": {}}

    before = manifest.read(root / "adversary.json")
    monkeypatch.setattr(audit, "search", search)
    damage(root / "adversary.json")
    (finding,) = verify.verify(RunDir(root))
    line = verify.mend(RunDir(root), finding)
    assert verify.dependents(finding) == []
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
     "checkpoints/mgpo/step-000003/config.json"],
)  # fmt: skip
def test_so_does_one_that_mends(whole, tmp_path, name):
    root = shutil.copytree(whole, tmp_path / "a run")
    flip(root / name, 9)
    (mend,) = {verify.mend(RunDir(root), f) for f in verify.verify(RunDir(root)) if f.path.startswith(name)}
    assert {str(root), str(root / name)} & set(shlex.split(mend.split("`")[1]))


def test_a_config_names_the_run_that_is_verified(capsys, tmp_path, monkeypatch):
    """And not the newest, which is verified where nothing is named."""
    monkeypatch.chdir(tmp_path)
    ours, other = default_root(made.config()), default_root(made.config(seed=1))
    made.make(ours).close()
    made.make(other, seed=1).close()
    os.utime(ours / "config.yaml", (1, 1))

    def place(*args):
        with pytest.raises(SystemExit):
            main(["verify", "--json", *args])
        return json.loads(capsys.readouterr().out)["place"]

    (tmp_path / "c.yaml").write_text(loading.dump(made.config()))
    assert place() == place(str(other)) == str(tmp_path / other)
    assert place("--config", "c.yaml") == place(*made.AS_SET) == str(tmp_path / ours)
    assert place(str(other), "--config", "c.yaml") == str(tmp_path / other)


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


def test_a_data_set_is_verified_anywhere_without_its_run(capsys, root, tmp_path):
    copy = shutil.copytree(root / "dataset", tmp_path / "elsewhere" / "copy")
    shutil.rmtree(root)
    made_from = json.loads((copy / MANIFEST).read_text())["made_from"]
    assert {"skills/manifest.json", "steps/synthesize/000002/manifest.json"} <= made_from.keys()
    assert propose(capsys, "verify", str(copy))[0] == 0
    (copy / "more.jsonl").write_text("{}\n")
    code, out, _ = propose(capsys, "verify", str(copy))
    assert code == 2 and "copy/more.jsonl: is in no manifest" in out and "move it away" in out
    (copy / "more.jsonl").unlink()
    (copy / MANIFEST).rename(tmp_path / "away")
    code, out, _ = propose(capsys, "verify", str(copy))
    assert code == 2 and f"copy/{MANIFEST}: is missing" in out
    (tmp_path / "away").rename(copy / MANIFEST)
    for name in ("problems.jsonl", "provenance.jsonl", MANIFEST):
        content = (copy / name).read_bytes()
        flip(copy / name, 77)
        code, out, _ = propose(capsys, "verify", str(copy))
        assert code == 2 and name in out
        (copy / name).write_bytes(content)


def test_a_data_set_whose_rows_changed_places_is_refused_although_digests_match(root):
    folder = root / "dataset"
    lines = (folder / "problems.jsonl").read_text().splitlines(keepends=True)
    (folder / "problems.jsonl").write_text("".join([lines[1], lines[0], *lines[2:]]))
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
    seal_folder(folder, "dataset", files, made_from={})
    assert "row 1" in str(next(command.dataset(folder)))


def test_a_step_of_another_run_in_the_place_of_ours_is_noticed(root, tmp_path):
    """Sound in itself, and not the one that was committed."""
    made.make(tmp_path / "other", upto="mgpo", seed=1).close()
    for stage in ("acquire", "mgpo"):
        shutil.rmtree(root / "steps" / stage / "000002")
        shutil.copytree(tmp_path / "other" / "steps" / stage / "000002", root / "steps" / stage / "000002")
    assert {"steps/acquire/000002", "steps/mgpo/000002"} <= {f.unit for f in verify.verify(RunDir(root))}


def test_a_result_that_lacks_what_it_says_it_left_is_noticed(root):
    shutil.rmtree(root / "ledger" / "sft")
    (root / "quarantine" / "mgpo" / "mgpo-000001-9.json").unlink()
    lines = found(root)
    assert any("ledger/sft" in line for line in lines) and any("quarantine/mgpo/mgpo-0" in line for line in lines)


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


@pytest.mark.parametrize("command", ["verify", "ledger", "report", "run"])
def test_a_run_of_before_there_were_digests_is_refused_with_the_way_out(capsys, root, command):
    """And kept as it is; one that has lost all its manifests has not become one."""
    for path in root.glob("steps/*/*/manifest.json"):
        path.unlink()
    if command in ("verify", "ledger"):
        assert "manifest.json: is missing" in "".join(propose(capsys, command, "--run-dir", str(root))[1:])
    for path in root.glob("stages/*.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    config = root / "config.yaml"
    config.write_text(config.read_text().rpartition("# sha256")[0])
    before = {name: (root / name).read_bytes() for name in files(root)}
    code, out, err = propose(capsys, command, "--run-dir", str(root))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "made by a version that wrote no digests" in err and "take another --run-dir" in err
    assert {name: (root / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("command", ["verify", "ledger", "report"])
def test_files_that_changed_places_are_no_fault_of_ours(capsys, root, command):
    step = root / "steps" / "mgpo" / "000001"
    for one, other in (("rollouts", "verdicts"), ("episodes", "probes")):
        (step / f"{one}.parquet").rename(step / "aside")
        (step / f"{other}.parquet").rename(step / f"{one}.parquet")
        (step / "aside").rename(step / f"{other}.parquet")
    code, out, err = propose(capsys, command, "--run-dir", str(root))
    assert code == 2 and "steps/mgpo/000001/" in out + err
