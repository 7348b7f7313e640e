"""The habits of a command line, each as a test: help, version, suggestions, usage, completion, exit codes; and that a
command looks before it makes anything. The help screens are held against `screens/help-<columns>.txt`; after a change
that is meant, `python -m tests.pipeline.test_front_door` writes those again."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline.cli import app, main
from pipeline.commands import preflight
from pipeline.commands.groups.base import CLUSTER, DATA, DIAGNOSIS, EVERYDAY
from pipeline.config import Config
from pipeline.records import Failure, Lost
from pipeline.store.rundir import RunDir
from tests.pipeline import runs
from tests.pipeline.test_cli import propose, refused, written

SCREENS = Path(__file__).parent / "screens"
ROOT = Path(__file__).parents[2]


def commands(group=None, path=()):
    """(words, command) of the whole tree, the root first."""
    group = group or typer.main.get_command(app)
    yield path, group
    for name, inner in getattr(group, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*path, name))
        else:
            yield (*path, name), inner


def screens(columns):
    """All help screens as a terminal of so many columns shows them."""
    import typer.rich_utils

    typer.rich_utils.FORCE_TERMINAL = False
    os.environ["COLUMNS"] = str(columns)
    found = []
    for words, _ in commands():
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([*words, "--help"])
        lines = "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")
        found.append(f"$ {' '.join(('propose', *words))} --help\n{lines}\n")
    return "\n".join(found)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("columns", [60, 120])
def test_help_screens(columns, monkeypatch):
    shown = screens(columns)
    assert "<bool>" not in shown  # every group is a `screens.Group`
    assert shown == (SCREENS / f"help-{columns}.txt").read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= columns


def test_commands_stand_in_groups_in_order(capsys):
    _, out, _ = propose(capsys, "--help")
    assert out.index(EVERYDAY) < out.index(DATA) < out.index(CLUSTER) < out.index(DIAGNOSIS)
    everyday = out[out.index(EVERYDAY) : out.index(DATA)]
    assert all(f"│ {name} " in everyday for name in ("run", "runs", "status", "report", "redo", "fork", "config"))


@pytest.mark.parametrize("arguments", [(), ("config",), ("mini",)])
def test_a_command_that_needs_more_shows_its_help(capsys, arguments):
    code, out, err = propose(capsys, *arguments)
    assert code == 2 and "Usage: " + " ".join(("propose", *arguments)) in out and err == ""


def test_short_help_and_version(capsys):
    assert propose(capsys, "run", "-h") == propose(capsys, "run", "--help")
    assert propose(capsys, "--version")[:2] == (0, "propose 0.1.0\n")


def test_a_module_to_run():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "propose 0.1.0\n"), done.stderr


def test_help_loads_nothing_heavy():
    heavy = ("ray", "torch", "vllm", "transformers", "deepspeed", "tensorboard", "psutil")
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('loaded', *(m for m in {heavy!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "loaded", done.stdout[-300:] + done.stderr


# ---------------------------------------------------------------- what was meant


@pytest.mark.parametrize(
    ("arguments", "meant", "usage"),
    [
        (("rpeort",), "'report'", "propose "),
        (("stauts",), "'status'", "propose "),
        (("config", "vaildate"), "'validate'", "propose config "),
        (("run", "--run-dri", "x"), "--run-dir", "propose run "),
        (("ledger", "--step"), "--steps", "propose ledger "),
        (("evaluate", "--jsn"), "--json", "propose evaluate "),
    ],
)
def test_a_slip_is_answered_with_what_was_meant_and_the_usage(capsys, arguments, meant, usage):
    code, out, err = propose(capsys, *arguments)
    said, used, more = err.splitlines()
    assert (code, out) == (2, "")
    assert said.startswith("propose: ") and f"Did you mean {meant}" in said
    assert used.startswith(f"Usage: {usage}") and more.startswith(f"`{usage.strip()} --help`")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("run", "my.yml"), "did you mean my.yaml?"),
        (("status", "runs/min"), "expected the directory of a run"),
        (("config", "show", "mgop"), "did you mean mgpo?"),
        (("config", "show", "mgpo.stps"), "did you mean steps?"),
        (("config", "show", "--docs", "benchmark"), "did you mean evaluate.benchmark?"),
        (("config", "show", "group_sizes"), "did you mean mgpo.group_size?"),
        (("run", "--set", "mgpo.stps=1"), "did you mean steps?"),
        (("redo", "slove", "r"), "did you mean solve?"),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_nearest(capsys, tmp_path, arguments, meant):
    (tmp_path / "my.yaml").write_text("domain: mini")
    assert meant in refused(capsys, *arguments)
    assert written(tmp_path) == ["my.yaml"]


@pytest.mark.parametrize("command", ["report", "ledger", "replay", "status"])
def test_what_only_reads_a_run_takes_no_settings(capsys, command):
    code, _, err = propose(capsys, command, "--set", "seed=1")
    assert code == 2 and "No such option: --set" in err and f"Usage: propose {command} " in err


def test_a_thing_is_said_once(capsys, tmp_path):
    runs.upto(tmp_path / "r", "acquire").close()
    (tmp_path / "c.yaml").write_text("domain: mini")
    assert "said twice" in refused(capsys, "run", "r", "--run-dir", "s")
    assert "said twice" in refused(capsys, "run", "c.yaml", "--config", "c.yaml")
    assert "said twice" in refused(capsys, "ledger", "r", "--run-dir", "s")
    assert "said twice" in refused(capsys, "ledger", "r", "--config", "c.yaml")


def test_a_run_that_a_config_made_elsewhere_is_looked_at_by_the_options_that_made_it(capsys, tmp_path):
    runs.upto(tmp_path / "elsewhere", "acquire").close()
    (tmp_path / "c.yaml").write_text("domain: mini")
    code, _, err = propose(capsys, "ledger", "--config", "c.yaml", "--run-dir", "elsewhere")
    assert (code, err) == (0, "")


def test_a_section_of_the_config_is_meant_although_a_folder_is_called_like_it(capsys, tmp_path):
    (tmp_path / "sandbox").mkdir()
    code, out, err = propose(capsys, "config", "show", "sandbox")
    assert (code, err) == (0, "") and out.startswith("sandbox:\n  ") and "minimum" in out


# ---------------------------------------------------------------- completion


def completed(capsys, monkeypatch, *words):
    """What bash is offered after these words, the last of which is begun."""
    with monkeypatch.context() as shell:
        shell.setenv("_PROPOSE_COMPLETE", "complete_bash")
        shell.setenv("COMP_WORDS", " ".join(("propose", *words)))
        shell.setenv("COMP_CWORD", str(len(words)))
        return propose(capsys)[1].split()


def test_completion_of_commands_options_runs_and_fields(capsys, monkeypatch, tmp_path):
    RunDir.open(tmp_path / "runs" / "mini-1", Config(domain="mini")).close()
    assert completed(capsys, monkeypatch, "re") == ["report", "redo", "replay"]
    assert "--run-dir" in completed(capsys, monkeypatch, "run", "--r")
    assert completed(capsys, monkeypatch, "status", "ru") == ["runs/mini-1"]
    assert completed(capsys, monkeypatch, "redo", "s") == ["sft", "synthesize", "solve"]
    assert completed(capsys, monkeypatch, "config", "show", "mg") == ["mgpo"]
    assert "mgpo.steps=" in completed(capsys, monkeypatch, "run", "--set", "mgpo.st")


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (Failure("seed: no"), 2, "propose: seed: no\n"),
        (Failure("endpoint away", "infra_error"), 75, "propose: endpoint away (worth a retry: exit code 75)\n"),
        (Lost("trainer gone"), 75, "propose: trainer gone (worth a retry: exit code 75)\n"),
        (RuntimeError("oh"), 1, "propose: RuntimeError: oh (this is a fault in propose; traceback: "),
    ],
)
def test_exit_codes(capsys, monkeypatch, raised, code, said):
    def fail(*_):
        raise raised

    monkeypatch.setattr("pipeline.config.loading.load", fail)
    ended, out, err = propose(capsys, "run")
    assert (ended, out) == (code, "") and err.startswith(said) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "last"),
    [
        (Failure("seed: no"), "propose: exit code 2: wrong input"),
        (Failure("endpoint away", "infra_error"), "propose: exit code 75: worth a retry"),
        (RuntimeError("oh"), "propose: exit code 1: a fault of ours"),
    ],
)
def test_a_submitted_job_says_how_it_ended_in_its_last_line(capsys, monkeypatch, raised, last):
    def fail(*_):
        raise raised

    monkeypatch.setattr("pipeline.config.loading.load", fail)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    _, _, err = propose(capsys, "run")
    assert err.splitlines()[-1] == last and len(err.splitlines()) == 2


def test_the_exit_code_of_an_interrupt():
    code = (
        "import pipeline.config.loading as l\ndef stop(*_): raise KeyboardInterrupt\nl.load = stop\n"
        "from pipeline.cli import main\nmain(['run'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "propose: interrupted; the same command goes on from here\n")


def test_after_an_interrupt_of_redo_another_command_goes_on(monkeypatch, tmp_path):
    """Redo would set aside once more what was done since."""
    code = (
        "from pipeline.commands import rework\nfrom pipeline.commands.groups import everyday\n"
        "def stop(*_): raise KeyboardInterrupt\neveryday.work = stop\n"
        "rework.redo, rework.render_redo = lambda *_, **__: {}, lambda *_: 'set aside'\n"
        "from pipeline.cli import main\nmain(['redo', 'sft', 'runs/a b'])"
    )
    runs.upto(tmp_path / "runs" / "a b", "sft").close()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=env)
    told = "set aside\npropose: interrupted; `propose run 'runs/a b'` goes on from here\n"
    assert (done.returncode, done.stderr) == (130, told)


def test_a_config_that_is_begun_says_what_lies_beside_it(capsys, tmp_path):
    _, out, _ = propose(capsys, "config", "init", "my.yaml")
    assert "`propose config validate my.yaml`; propose.schema.json beside it" in out


def test_gpus_that_are_not_there_are_told_by_a_dry_run_as_by_doctor(capsys, monkeypatch):
    monkeypatch.setattr("pipeline.commands.doctor._gpus", lambda: [])
    wanted = ("--set", "trainer.use_gpu=true", "--set", "proposer.pool.num_gpus=1")
    code, out, _ = propose(capsys, "run", "--dry-run", *wanted)
    assert code == 2 and "would be refused: reserved: " in out and "this machine has 0" in out
    assert propose(capsys, "acquire", "--dry-run", *wanted)[0] == 0, "which needs none"


# ---------------------------------------------------------------- nothing is made before everything is checked


@pytest.mark.parametrize("command", ["run", "acquire", "evaluate"])
def test_a_folder_that_is_no_run_never_becomes_one(capsys, tmp_path, command):
    runs.upto(tmp_path / "runs" / "mini-1", "solve").close()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    before = written(tmp_path)
    assert "did you mean runs/mini-1?" in refused(capsys, command, "--run-dir", "runs")
    assert "photos: no run, but holds a.png" in refused(capsys, command, "--run-dir", "photos")
    assert written(tmp_path) == before and not (tmp_path / "runs" / ".lock").exists()


def test_all_that_keeps_a_run_from_starting_is_told_at_once(capsys, tmp_path):
    code, out, err = propose(
        capsys, "run", "--run-dir", "r", "--set", "acquire.corpus=[absent]", "--set", "proposer.path=/no/model",
        "--set", "evaluate.benchmark=b.jsonl",
    )  # fmt: skip
    assert (code, out) == (2, "")
    first, *others = err.splitlines()
    assert first == "propose: 3 things keep this run from starting"
    assert [name for name in ("absent", "/no/model", "b.jsonl") if any(name in line for line in others)] == [
        "absent", "/no/model", "b.jsonl",
    ]  # fmt: skip
    assert written(tmp_path) == []


def test_a_stage_needs_only_what_it_uses(tmp_path):
    from pipeline.config.loading import load

    config = load(None, ["evaluate.benchmark=b.jsonl", "proposer.path=/no/model"])
    assert [c.name for c in preflight.problems(config, tmp_path / "r", ["acquire"])] == []
    assert [c.name for c in preflight.problems(config, tmp_path / "r", ["acquire", "sft"])] == ["model"]


def test_a_model_behind_an_endpoint_is_not_trained(tmp_path):
    from pipeline.config.loading import load

    there = "{endpoint: {base_url: 'http://127.0.0.1:9/v1', model: m}}"
    for field, stages in (("proposer", ["acquire", "sft"]), ("solve.base", ["solve"])):
        config = load(None, [f"{field}={there}", "solve.data=p.jsonl"])
        (check,) = (c for c in preflight.problems(config, tmp_path / "r", stages) if c.name == "model")
        assert check.found == f"{field}.endpoint: a model behind an endpoint cannot be trained"
        assert f"expected {field}.path" in check.todo
    config = load(None, [f"proposer={there}"])
    assert not [c for c in preflight.problems(config, tmp_path / "r", ["acquire"]) if c.name == "model"]


def test_room_on_the_disk_is_asked_for(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10**9 - 1})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    (check,) = preflight.problems(Config(domain="mini"), tmp_path / "r", ["acquire"])
    assert check.name == "disk" and "this run needs about 1 GB" in check.found
    with pytest.raises(Failure) as caught:
        preflight.check(Config(domain="mini"), tmp_path / "r", ["acquire"])
    assert caught.value.kind == "infra_error"


def test_a_run_in_what_ray_unpacked_is_refused(tmp_path):
    package = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    package.mkdir(parents=True)
    with pytest.raises(Failure, match="goes with it; give a --run-dir on storage that all nodes share"):
        preflight.check(Config(domain="mini"), package / "runs" / "x", ["acquire"])


# ---------------------------------------------------------------- a finished run


def state(root):
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in (root, *root.rglob("*"))}


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_a_finished_run_answers_from_its_disk_and_writes_nothing(capsys, tmp_path, json_):
    runs.upto(tmp_path / "r", "evaluate").close()
    propose(capsys, "report", "r")
    before = state(tmp_path / "r")
    code, out, err = propose(capsys, "run", "r", *json_)
    assert code == 0 and "evaluate · done before, skipped" in err
    assert json.loads(out)["solver_gain"] == pytest.approx(0.075) if json_ else "it got better" in out
    assert state(tmp_path / "r") == before


def test_a_finished_run_loads_nothing_heavy(tmp_path):
    runs.upto(tmp_path / "r", "evaluate").close()
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['run', 'r', '--json', '-q'])\nexcept SystemExit as e: print(e.code)\n"
        "print('loaded', *(m for m in ('ray', 'torch', 'vllm', 'transformers', 'tensorboard') if m in sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["0", "loaded"] and done.stderr == ""


def test_a_run_goes_on_by_its_own_config(capsys, tmp_path):
    """`propose run RUN` needs neither the config file nor the settings that it was begun with."""
    root = tmp_path / "r"
    propose(capsys, "acquire", "--run-dir", "r", "--set", "seed=5", "-q")
    code, out, err = propose(capsys, "acquire", "r", "--json")
    assert code == 0 and json.loads(out)["kept"] > 0, err
    assert RunDir.read(root)[1].seed == 5
    assert "seed was 5, is now 6" in refused(capsys, "acquire", "r", "--set", "seed=6")


if __name__ == "__main__":
    SCREENS.mkdir(exist_ok=True)
    for width in (60, 120):
        (SCREENS / f"help-{width}.txt").write_text(screens(width), encoding="utf-8")
