"""What a user can get wrong without a cluster: one line on stderr that names it, exit code 2, nothing half-written."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands.keys import CHAOS_KEYS, DOCTOR_KEYS, LEDGER_KEYS, STAGE_KEYS, VALID_KEYS
from pipeline.config import Config
from pipeline.records import Failure
from pipeline.report import SUMMARY_KEYS
from pipeline.store.rundir import RunDir
from tests.pipeline import runs

COMMANDS = ("run", "mgpo", "audit-verifiers", "chaos", "ablate", "replay", "mini", "build")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def propose(capsys, *arguments):
    """(exit code, stdout, stderr) of a command run in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def refused(capsys, *arguments):
    """The one line with which a command refuses."""
    code, out, err = propose(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("propose: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err


def misused(capsys, *arguments):
    """The line that says what is wrong with how a command was called; the usage of that command follows."""
    code, out, err = propose(capsys, *arguments)
    assert (code, out) == (2, "")
    said, usage, more = err.splitlines()
    called = " ".join(["propose", *[a for a in map(str, arguments) if a in COMMANDS]])
    assert said.startswith("propose: ") and usage.startswith(f"Usage: {called} "), err
    assert more == f"`{called} --help` lists what there is"
    return said


def written(root):
    """Every file below `root`, but for the lock."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != ".lock")


# ---------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mgpo.stepz=3", ["mgpo.stepz", "unknown field", "steps"]),
        ("nothing.at.all=1", ["nothing", "unknown field"]),
        ("mgpo.steps=many", ["mgpo.steps", "'many'", "whole number"]),
        ("mgpo.steps=0", ["mgpo.steps", "got 0", "at least 1"]),
        ("acquire.on_bad_record=ask", ["acquire.on_bad_record", "'ask'", "'stop', 'skip'"]),
        ("prober.k=99", ["prober", "k (99)", "n (16)"]),
        ("trainer.workers", ["trainer.workers", "dotted.field=value"]),
        ("seed=[1", ["seed", "not a YAML value"]),
        ("name=2024-13-45", ["name", "'2024-13-45' is not a YAML value"]),
        ("name=!!bool maybe", ["name", "not a YAML value"]),
        ("proposer.pool.resources={gpu: many}", ["proposer.pool.resources.gpu", "expected a number", "'many'"]),
        ("sandbox.pool.resources.spot=x", ["sandbox.pool.resources.spot", "expected a number", "'x'"]),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["mgpo"], ["config", "validate"]])
def test_a_wrong_field_is_named_with_what_is_accepted(capsys, tmp_path, command, override, said):
    line = refused(capsys, *command, "--set", override)
    assert all(part in line for part in said), line
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("mgpo: {steps: 3", "not YAML"),
        ("name: 2024-13-45", "not YAML"),
        ("- 1\n- 2", "expected a mapping"),
        ("domain: mini\nmgpo:\n  stepz: 3\n", "mgpo.stepz: unknown field"),
        ("mgpo:\n  steps: 3\n", "domain: required"),
        (b"name: caf\xe9", "not UTF-8"),
    ],
)
def test_a_config_file_is_named(capsys, tmp_path, content, said):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(capsys, "run", "--config", path)
    assert said in line and str(path) in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: 1\nname: x\nseed: 2\n", "c.yaml:4:1: not YAML (key 'seed' twice)"),
        ("trainer: {workers: 1, workers: 2}", "key 'workers' twice"),
        ("trainer: {workers: true}", "trainer.workers"),
        ("trainer: {workers: yes}", "trainer.workers"),
        ("trainer: {zero_stage: true}", "trainer.zero_stage"),
        ("mgpo: {lr: on}", "mgpo.lr"),
        ("ray: {num_cpus: true}", "ray.num_cpus"),
        ("sandbox: {pool: {resources: {spot: true}}}", "sandbox.pool.resources.spot"),
    ],
)
def test_a_key_twice_and_truth_for_a_number_are_refused(capsys, tmp_path, content, said):
    (tmp_path / "c.yaml").write_text(f"domain: mini\n{content}")
    assert said in refused(capsys, "run", "--config", "c.yaml")
    sound = "domain: mini\ntrainer: {use_gpu: true, workers: 1}\nmgpo: {objective: {importance_cap: null}}"
    (tmp_path / "c.yaml").write_text(sound)
    assert told(capsys, "config", "show", "--config", "c.yaml")["trainer"]["use_gpu"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        *(("audit-verifiers", "--problems", n) for n in ("0", "-1", "1.5", "true", "many", "", "9" * 400)),
        ("chaos", "--kills=-1"),
        ("chaos", "--driver-kills=-1"),
        *(("chaos", "--patience", s) for s in ("0", "nan", "inf", "-3")),
        ("ablate", "--seeds", "0"),
        ("ablate", "--episodes", "0"),
        ("ablate", "--downstream=-1"),
        ("replay", "--step", "0"),
        ("mini", "build", "--out", "x", "--scale", "0"),
        ("mini", "build", "--out", "x", "--threads", "0"),
    ],
)
def test_a_count_out_of_range_is_one_line_before_anything_starts(capsys, tmp_path, arguments):
    line = misused(capsys, *arguments)
    option = next(a.partition("=")[0] for a in reversed(arguments) if a.startswith("--"))
    assert option in line and "expected" in line
    assert written(tmp_path) == []


# ---------------------------------------------------------------- the corpus


def corpus(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_a_broken_line_of_the_corpus_is_named(capsys, tmp_path):
    path = corpus(tmp_path / "qa.jsonl", '{"question": "q", "answer": "a"}', '{"question": ')
    line = refused(capsys, "acquire", "--run-dir", "r", "--set", f"acquire.corpus=[{path}]")
    assert f"{path}:2:" in line and "acquire.on_bad_record=skip" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["absent.jsonl", "mini:nothing", "picture.png"])
def test_a_corpus_that_is_none_is_named(capsys, tmp_path, name):
    (tmp_path / "picture.png").touch()
    line = refused(capsys, "acquire", "--run-dir", "r", "--set", f"acquire.corpus=['{name}']")
    assert name in line
    assert not (tmp_path / "r").exists()


# ---------------------------------------------------------------- the run directory


def test_a_run_directory_of_another_config(capsys, tmp_path):
    runs.upto(tmp_path / "r", "acquire").close()
    before = {name: (tmp_path / "r" / name).read_bytes() for name in written(tmp_path / "r")}
    line = refused(capsys, "run", "--run-dir", "r", "--set", "seed=5")
    assert "r: made with another config: seed was 0, is now 5" in line
    assert {name: (tmp_path / "r" / name).read_bytes() for name in written(tmp_path / "r")} == before


def test_a_run_directory_in_use(capsys, tmp_path):
    run = RunDir.open(tmp_path / "r", Config(domain="mini"))
    line = refused(capsys, "acquire", "--run-dir", "r")
    assert f"in use by process {os.getpid()}" in line
    run.close()


def test_a_run_directory_that_cannot_be(capsys, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert "file" in refused(capsys, "run", "--run-dir", "file/r")
    assert "file" in refused(capsys, "run", "--run-dir", "file")
    assert written(tmp_path) == ["file"]


def test_a_run_directory_in_object_storage():
    with pytest.raises(Failure, match="expected a local path"):
        RunDir.open(Path("s3://bucket/r"), Config(domain="mini"))


def test_a_stage_whose_input_is_not_there_names_the_command_that_makes_it(capsys):
    for stage, before in (("mgpo", "sft"), ("synthesize", "mgpo"), ("solve", "synthesize"), ("evaluate", "solve")):
        line = refused(capsys, stage, "--run-dir", "r")
        assert f"stage {before} is not done; run `propose {before}` first" in line
        assert not os.path.exists("r")


def test_a_report_on_nothing(capsys, tmp_path):
    assert "absent: holds no config.yaml" in refused(capsys, "report", "--run-dir", "absent")
    assert written(tmp_path) == []


# ---------------------------------------------------------------- what it prints


def told(capsys, *arguments):
    code, out, err = propose(capsys, *arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def documented(capsys, *command):
    """The keys that --help lists."""
    code, out, _ = propose(capsys, *command, "--help")
    assert code == 0
    return re.findall(r"^  (\w+)", out.partition("keys of --json:")[2], re.MULTILINE)


def test_acquire_tells_what_its_help_lists_and_is_then_skipped(capsys, tmp_path):
    result = told(capsys, "acquire", "--run-dir", "r")
    assert list(result) == documented(capsys, "acquire") == list(STAGE_KEYS["acquire"])
    assert result["kept"] == len(list((tmp_path / "r" / "skills").glob("*/"))) == sum(result["skills"].values()) >= 16
    assert result["candidates"] == result["kept"] + result["duplicates"] + result["dropped_low_score"]
    code, out, err = propose(capsys, "acquire", "--run-dir", "r", "--json")
    assert (code, json.loads(out)) == (0, result)
    assert "acquire · done before, skipped" in err


def test_bad_lines_of_the_corpus_can_be_skipped_and_are_counted(capsys, tmp_path):
    bundled = Path(__file__).parents[2] / "pipeline" / "domains" / "mini" / "corpus"
    path = corpus(tmp_path / "qa.jsonl", "{", "[]", '{"question": "q"}')
    settings = ["--set", f"acquire.corpus=['{bundled}', '{path}']", "--set", "acquire.on_bad_record=skip"]
    assert told(capsys, "acquire", "--run-dir", "r", *settings)["skipped_records"] == 3


@pytest.mark.parametrize("last", ["nothing", "mgpo", "evaluate"])
def test_the_report_tells_what_its_help_lists(capsys, tmp_path, last):
    runs.upto(tmp_path / "r", last).close()
    result = told(capsys, "report", "--run-dir", "r")
    assert list(result) == documented(capsys, "report") == documented(capsys, "run") == list(SUMMARY_KEYS)
    assert documented(capsys, "redo") == list(SUMMARY_KEYS)
    assert (tmp_path / "r" / "report.html").is_file()


def test_evaluate_tells_what_its_help_lists(capsys, tmp_path):
    run = runs.upto(tmp_path / "r", "solve")
    run.finish("solve", {"checkpoint": "c"}, 1.0)
    for number, mean in ((1, 0.25), (2, 0.75)):
        with run.new_step("evaluate", number) as folder:
            (folder / "score.json").write_text(json.dumps({"mean": mean}))
    run.close()
    result = told(capsys, "evaluate", "--run-dir", "r")
    assert list(result) == documented(capsys, "evaluate")
    assert result["gain"] == 0.5


def test_the_config_can_be_told_and_read_back(capsys, tmp_path):
    assert told(capsys, "config", "show", "--set", "seed=4") == Config(domain="mini", seed=4).model_dump(mode="json")
    (tmp_path / "c.yaml").write_text(propose(capsys, "config", "show", "--set", "seed=4")[1])
    assert list(told(capsys, "config", "validate", "--config", "c.yaml")) == list(VALID_KEYS)
    assert told(capsys, "config", "show", "--config", "c.yaml")["seed"] == 4
    assert documented(capsys, "config", "validate") == list(VALID_KEYS)
    assert documented(capsys, "doctor") == list(DOCTOR_KEYS)


def test_every_stage_has_a_help_that_lists_keys(capsys):
    for stage, keys in (STAGE_KEYS | {"ledger": LEDGER_KEYS, "chaos": CHAOS_KEYS}).items():
        assert documented(capsys, stage) == list(keys)


def test_a_fault_of_ours_keeps_its_traceback_in_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.config.loading.load", lambda *_: {}["secret cause"])
    code, out, err = propose(capsys, "run")
    assert (code, out, err.count("\n")) == (1, "", 1)
    (log,) = tmp_path.glob("propose-error-*.log")
    assert str(log) in err and "secret cause" in log.read_text()


def test_its_traceback_goes_to_the_temporary_files_where_the_folder_takes_none(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.config.loading.load", lambda *_: {}["secret cause"])
    monkeypatch.setattr("pipeline.cli.tempfile.gettempdir", lambda: str(tmp_path))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, err = propose(capsys, "run")
    monkeypatch.chdir(tmp_path)
    (log,) = tmp_path.glob("propose-error-*.log")
    assert code == 1 and str(log) in err and "secret cause" in log.read_text()


# ---------------------------------------------------------------- as a process


def process(*arguments, code="from pipeline.cli import main; main()", **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        **kwargs,
    )  # fmt: skip


def test_a_refusal_is_one_line_of_the_whole_process_too(tmp_path):
    """And it is there soon: what trains nothing does not load torch."""
    code = "import sys; sys.modules['torch'] = None; from pipeline.cli import main; main()"
    ended = process("acquire", "--run-dir", "r", "--set", "acquire.corpus=[absent]", code=code, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith("propose: ") and "absent" in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if not line.startswith(("run ·", "acquire ·"))]) == 1


def without_privileges(code):
    """Root, too, is refused what the bits of a file refuse its owner."""
    return "from sandbox import kernel; kernel.drop_capabilities()\n" + code


def unprivileged(folder, *arguments):
    """The last line with which a command ends that no privilege lets into closed folders."""
    code = without_privileges("from pipeline.cli import main; main()")
    ended = process(*arguments, code=code, cwd=folder)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended.stderr
    return ended.stderr.splitlines()[-1]


@pytest.fixture
def closed(tmp_path):
    folder = tmp_path / "closed"
    (folder / "r").mkdir(parents=True)
    (folder / "r" / "config.yaml").touch()
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


def test_what_lies_in_a_closed_folder_is_one_line(closed, tmp_path):
    assert "closed/a.md: Permission denied" in unprivileged(
        tmp_path, "acquire", "--run-dir", "r", "--set", "acquire.corpus=[closed/a.md]"
    )
    assert "closed/r: Permission denied" in unprivileged(tmp_path, "report", "--run-dir", "closed/r")
    look = (
        "from pathlib import Path; from pipeline.commands import doctor; "
        "print(doctor._disk('run', Path('closed/r')).found)"
    )
    assert process(code=without_privileges(look), cwd=tmp_path).stdout == f"{closed} is not writable\n"


def test_a_folder_of_the_corpus_that_is_closed_is_named_or_counted(closed, tmp_path):
    (tmp_path / "a.md").write_text("text")
    code = """
        from pathlib import Path
        from pipeline.skills import corpus
        found = corpus.Corpus([corpus.Place(Path())], "skip", 1000)
        print(len(list(found)), found.skipped)
        list(corpus.Corpus([corpus.Place(Path())], "stop", 1000))
    """
    ended = process(code=without_privileges(textwrap.dedent(code)), cwd=tmp_path)
    assert ended.stdout == "1 1\n"
    assert "Failure: corpus file closed: Permission denied" in ended.stderr.splitlines()[-1]


def test_a_name_that_is_too_long_is_one_line(capsys):
    name = "n" * 300
    assert f"{name}: File name too long" in refused(capsys, "acquire", "--run-dir", name)
    assert f"{name}: File name too long" in refused(capsys, "report", "--run-dir", name)
    assert f"{name}: File name too long" in refused(
        capsys, "acquire", "--run-dir", "r", "--set", f"acquire.corpus=[{name}]"
    )


def test_a_package_of_the_stack_that_is_not_installed_is_named(tmp_path):
    code = "import sys; sys.modules['psutil'] = None; from pipeline.cli import main; main()"
    ended = process("run", "--run-dir", "r", code=code, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert "package psutil: not installed" in ended.stderr and "./deploy/run.sh" in ended.stderr
    assert not (tmp_path / "r").exists()


def test_no_space_is_one_line(tmp_path):
    """Files may not grow: as a full disk, every write of more than nothing fails."""
    full = """
        import errno, os, sys
        from pathlib import Path
        def full(*_): raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync = full
        from pipeline.cli import main
        main()
    """
    ended = process("acquire", "--run-dir", "r", code=textwrap.dedent(full), cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (75, ""), ended.stderr
    assert "no space left on the device" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "r" / "config.yaml").exists()


def test_a_reader_that_has_gone_is_not_our_fault(tmp_path):
    code = "from pipeline.cli import main; main()"
    shell = f'{sys.executable} -c "{code}" config show | true; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert ended.stderr == ""


def test_a_cluster_that_does_not_answer_is_named_at_once():
    from pipeline.pools.cluster import Cluster

    with pytest.raises(Failure, match=r"ray\.address '127\.0\.0\.1:9': no Ray cluster answers"):
        Cluster(Config.model_validate({"domain": "mini", "ray": {"address": "127.0.0.1:9"}}), None).start()


def test_an_audit_of_free_text_wants_problems_with_known_answers(capsys, tmp_path):
    config = Path(__file__).parents[2] / "deploy" / "configs" / "text.yaml"
    assert "expected --from FILE" in refused(capsys, "audit-verifiers", "--config", config)
    assert "none.jsonl" in refused(capsys, "audit-verifiers", "--config", config, "--from", "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"question": "What is 2 + 2?"}')
    assert "bad.jsonl:1: no field answer" in refused(
        capsys, "audit-verifiers", "--config", config, "--from", "bad.jsonl"
    )
