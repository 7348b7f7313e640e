"""What README and pages tell a reader to type or to write: every command parses, what needs no cluster is tried, every
YAML is a config, every row is a problem, every link leads somewhere.

`-m slow`: the whole loop with small counts, as `./deploy/run.sh --quick` runs it, to its end and once more.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from pipeline.cli import app
from pipeline.commands import doctor_config
from pipeline.config.loading import load
from pipeline.scoring import problems
from tests.pipeline import made
from tests.pipeline.test_cli import propose

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in ROOT.rglob("*.md") if ".venv" not in p.parts and "runs" not in p.relative_to(ROOT).parts)
README = (ROOT / "README.md").read_text(encoding="utf-8")
A_RUN = "runs/mini-1a2b3c4d"
HEAVY = ("doctor", "chaos", "replay", "audit-verifiers", "ablate", "build", "redo", "serve")
"""Parsed, and not run: they start engines, ask endpoints, or work for minutes."""
STANDS_FOR = {
    "FILE": "my.yaml", "SECTION": "mgpo", "RUN": A_RUN, "…": "", "runs/…": A_RUN,
    "my-copy-of/dataset": f"{A_RUN}/dataset", "steps/mgpo/000007": "steps/mgpo/000003",
}  # fmt: skip


def blocks(text):
    """Indented and fenced commands, each in one line: one that a deeper indentation continues is joined."""
    lines = re.sub(r"```yaml.*?```", "", text, flags=re.S).splitlines()
    found = []
    for line in lines:
        if line.startswith("        ") and found and found[-1][1]:
            found[-1][0] += " " + line.strip()
        elif re.match(r"    (\.venv/bin/)?propose ", line) or re.match(r"    \./deploy/run\.sh", line):
            found.append([line.strip(), True])
        elif found:
            found[-1][1] = False
    return [command for command, _ in found]


def arguments(command):
    """Of each command of a line, as a shell would give them."""
    for part in re.split(r";\s+", re.sub(r"\s+#\s.*", "", command)):
        program, *words = shlex.split(part)
        yield program, [w for word in words if (w := STANDS_FOR.get(word, word))]


COMMANDS = [
    (page, program, words)
    for page in PAGES
    for command in blocks(page.read_text(encoding="utf-8"))
    for program, words in arguments(command)
]
INLINE = sorted(
    {
        (page, words)
        for page in PAGES
        for words in re.findall(r"`(?:\.venv/bin/)?propose ([a-z][^`]*)`", page.read_text(encoding="utf-8"))
    }
)


def parsed(words):
    """(command path, its parameters), parsed as the command line would. Raises what it would raise."""
    group = typer.main.get_command(app)
    ctx = group.make_context("propose", list(words))
    while hasattr(group, "commands"):
        rest = [*ctx._protected_args, *ctx.args]
        name, group, left = group.resolve_command(ctx, rest)
        ctx = group.make_context(name, left, parent=ctx)
    return name, ctx.params


@pytest.fixture(scope="module")
def a_finished_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "run"
    made.make(root).close()
    return root


@pytest.fixture
def as_in_the_readme(tmp_path, monkeypatch, a_finished_run):
    """A folder with the README's own config and a finished run. Nobody asks the config's endpoints, which are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor_config, "_endpoints", lambda *_: [])
    (tmp_path / "my.yaml").write_text(yaml_of(README)[0])
    shutil.copytree(a_finished_run, tmp_path / A_RUN)


def yaml_of(text):
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.S)


def test_commands_are_found():
    assert len([1 for page, _, _ in COMMANDS if page.name == "README.md" and page.parent == ROOT]) > 15
    assert any(page.name == "OPERATIONS.md" and "ray.num_cpus=2" in words for page, _, words in COMMANDS)
    assert len(INLINE) > 20


@pytest.mark.parametrize(
    ("page", "program", "words"), COMMANDS, ids=[f"{p.relative_to(ROOT)}: {' '.join(w)[:50]}" for p, _, w in COMMANDS]
)
def test_every_command_parses_and_what_can_be_tried_is(as_in_the_readme, capsys, page, program, words):
    if program.endswith("run.sh"):
        assert (ROOT / program).is_file()
        words = ["run", *words] if not words or words[0].startswith("-") else words
        words = [w for w in words if w != "--quick"]
    if "--install-completion" in words:
        return
    name, params = parsed(words)
    if name in HEAVY or any(word.startswith("s3://") for word in words):
        return
    if words[:2] == ["config", "init"]:
        os.unlink("my.yaml")
    code, _, err = propose(capsys, *words, *(["--dry-run"] if "dry_run" in params and "--dry-run" not in words else []))
    err = "".join(line for line in err.splitlines(True) if not line.startswith("verify · "))  # what it did
    assert err == "" and (code == 0 or (code == 2 and "my.yaml" in words and "dry_run" in params)), err


@pytest.mark.parametrize("page", ["README.md", "deploy/CLUSTER.md"])
def test_the_job_that_is_submitted_is_a_command_and_what_it_brings_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = re.findall(r"^    (ray job submit .*)$", text, flags=re.M)
    ray, python = (part.split() for part in line.split(" -- "))
    env = yaml.safe_load((ROOT / ray[ray.index("--runtime-env") + 1]).read_text())
    assert python[:3] == ["python", "-m", "pipeline"]
    name, params = parsed(python[3:])
    assert name == "run" and (ROOT / params["name"]).is_file()
    assert Path(params["run_dir"]).is_absolute()
    assert env["working_dir"] == "."
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    needed = [
        f for f in tracked if f.partition("/")[0] in ("pipeline", "actors", "trainers", "sandbox", "pyproject.toml")
    ]
    assert len(needed) > 150
    taken_away = {name.strip("*/") for name in env["excludes"]}
    assert not [f for f in needed if taken_away & set(Path(f).parts) or f.endswith(".egg-info")]


@pytest.mark.parametrize(("page", "words"), INLINE, ids=[f"{p.relative_to(ROOT)}: {w[:50]}" for p, w in INLINE])
def test_every_command_in_a_sentence_is_one(page, words):
    group = typer.main.get_command(app)
    for word in re.sub(r"[|>].*", "", words).split():
        commands = getattr(group, "commands", None)
        if commands is None or word.startswith(("-", "…")):
            break
        assert word in commands, f"{page}: propose {words}"
        group = commands[word]
    options = {o for p in getattr(group, "params", []) for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    assert set(re.findall(r"(?<=\s)--[a-z-]+", words)) <= options, f"{page}: propose {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_yaml_is_a_config_and_every_link_leads_somewhere(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    for number, block in enumerate(yaml_of(text)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        assert load(path).name
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


def test_the_readme_is_about_a_hundred_lines_and_its_row_is_a_problem(tmp_path):
    assert len(README.splitlines()) <= 125
    row = re.search(r'    (\{"question".*?\})', README, flags=re.S).group(1)
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(json.loads(row)) + "\n")
    assert problems.of_row(problems.read(path)[0]).answer == "odd"


def test_the_readmes_config_needs_nothing_of_the_mini_world():
    tree = yaml.safe_load(yaml_of(README)[0])
    assert tree["domain"] == "text" and "mini" not in json.dumps(tree)


# ---------------------------------------------------------------- for real


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.timeout(1800)
def test_the_quick_run_shows_the_whole_loop_and_then_answers_at_once(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        str(ROOT / "deploy/configs/quick.yaml"),
        "--run-dir",
        str(tmp_path / "q"),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(f"\n{stage} " in done.stdout for stage in ("acquire", "sft", "mgpo", "synthesize", "solve", "evaluate"))
    assert "A short run: " in done.stdout and (tmp_path / "q" / "report.html").is_file()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "q").rglob("*")}
    again = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "q").rglob("*")} == before
