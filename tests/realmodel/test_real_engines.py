"""Real engines end to end: SmolLM2-135M is proposer, prober and solver of the text domain.

It is far too weak to write problems. What is shown is that nothing else stands in the way: a real template, a real
vocabulary and messy replies pass through every stage, each failure is counted under its kind, and what is interrupted
goes on. Teacher and judges are an endpoint that knows trajectories written by hand.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pipeline.records import Episode
from pipeline.skills.extraction import SkillLibrary
from pipeline.store import accounts
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from tests.actors.endpoint import serving
from tests.realmodel.smollm import model_dir
from tests.realmodel.truth import SKILLS, TRAJECTORIES, completion

pytestmark = [pytest.mark.realmodel, pytest.mark.nightly, pytest.mark.timeout(7200)]

EPISODES = int(os.environ.get("REALMODEL_EPISODES", "32"))
"""Trajectories that are learned from; each takes about a minute of one CPU core to train on."""
PROMPTS = os.environ.get("REALMODEL_PROMPTS")
"""A folder of shorter prompts, for a slow machine."""
ROWS = [
    {"question": "What is 3 times 4?", "answer": "12", "category": "maths"},
    {"question": "What is 12 plus 30?", "answer": "42", "category": "maths"},
    {"question": "What is 5 plus 2?", "answer": "7", "category": "maths"},
    {"question": "Which is heavier, a kilogram or a gram?", "answer": "a kilogram", "answer_kind": "text"},
    {
        "question": "Write a Python function add(a, b) that returns the sum of a and b.",
        "answer": "def add(a, b):\n    return a + b",
        "answer_kind": "code",
        "checks": [{"entry": "add", "args": [2, 3], "expected": 5}, {"entry": "add", "args": [0, 0], "expected": 0}],
    },
]


def config(folder: Path, url: str, **more: Any) -> Path:
    """The config of a run over documents that name the skills, in `folder`."""
    model = str(model_dir())
    engine = {"max_model_len": 3072, "max_num_seqs": 8, "kv_cache_gb": 0.5, "start_timeout_s": 1200, "dtype": "float32"}
    endpoint = {"base_url": url, "timeout_s": 120}
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for skill in SKILLS:
        (corpus / f"{skill.id}.md").write_text(f"{skill.id}: {skill.intent}.\n")
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tree = {
        "domain": {"kind": "text", "prompts": PROMPTS},
        "ray": {"num_cpus": 4, "object_store_mb": 512},
        "proposer": {"path": model, "engine": engine},
        "teacher": {"kind": "openai", "model": "teacher", **endpoint},
        "acquire": {"corpus": [str(corpus)]},
        "episode": {
            "limits": {"max_turns": 6, "max_tokens": 2600, "max_turn_tokens": 300, "wall_s": 1200},
            "sampling": {"max_tokens": 300},
        },
        "committee": {
            "verifiers": [
                {"kind": "program", "style": "python", "model": "a", **endpoint},
                {"kind": "program", "style": "sympy", "model": "b", **endpoint},
                {"kind": "model", "model": "c", **endpoint},
            ],
        },
        "prober": {"n": 4, "k": 2, "sampling": {"max_tokens": 128}, "ladder": [{"path": model, "engine": engine}]},
        "trainer": {"num_cpus": 1, "micro_batch_tokens": 2600, "step_timeout_s": 3600, "dtype": "float32"},
        "sft": {"trajectories": EPISODES, "epochs": 1, "batch": 4, "lr": 1e-4, "warmup_steps": 1},
        "mgpo": {
            "steps": 2, "groups": 2, "group_size": 2, "curriculum": {"min_skills": 2, "max_skills": 2},
        },
        "solve": {
            "data": str(folder / "problems.jsonl"), "steps": 2, "problems": 3, "group_size": 4,
            "sampling": {"max_tokens": 128}, "base": {"path": model, "engine": engine},
        },
        "evaluate": {"benchmark": str(folder / "problems.jsonl"), "samples": 2, "sampling": {"max_tokens": 128}},
        **more,
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def command(stage: str, folder: Path) -> list[str]:
    run = ["--config", str(folder / "run.yaml"), "--run-dir", str(folder / "run"), "--json"]
    return [sys.executable, "-m", "pipeline.cli", stage, *run]


def propose(stage: str, folder: Path, code: int = 0) -> tuple[dict[str, Any], str]:
    """(result, what was told) of a stage."""
    done = subprocess.run(command(stage, folder), capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real")
    with serving(completion) as (url, asked):
        config(folder, url)
        propose("acquire", folder)
        yield folder
        assert asked["teacher"]


def test_a_proposer_is_trained_on_trajectories_written_by_hand(world: Path) -> None:
    skills = sorted(skill.id for skill in SkillLibrary.load(world / "run" / "skills"))
    assert skills == sorted(s.id for s in SKILLS)
    sft, _ = propose("sft", world)
    assert sft["accepted"] == sft["trajectories"] == EPISODES and sft["loss_last"] < sft["loss_first"]
    played = read_records(world / "run" / "steps" / "sft" / "000001" / "episodes.parquet", Episode)
    kinds = {e.submitted.answer_kind for e in played if e.submitted}
    assert kinds >= {"math", "code"} and {e.task.category for e in played} == {"maths", "code", "science"}
    known = {t["question"] for t in TRAJECTORIES}
    assert {e.submitted.question for e in played if e.submitted} <= known
    assert all(not turn.notes for e in played for turn in e.turns)


def test_two_steps_of_mgpo_are_played_and_every_failure_has_a_kind(world: Path) -> None:
    """Interrupted while it plays, it goes on."""
    process = subprocess.Popen(command("mgpo", world), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 3000
    while process.poll() is None and not (world / "run" / "steps" / "mgpo" / "000001").exists():
        assert time.monotonic() < deadline
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said[-3000:]
    result, _ = propose("mgpo", world)
    run, _ = RunDir.read(world / "run")
    played = [e for s in run.steps("mgpo") for e in read_records(s / "episodes.parquet", Episode)]
    assert result["steps"] == 2 and len(played) == 8
    assert {e.outcome.kind for e in played} <= {"ok", "model_error"}
    assert all(e.outcome.reason for e in played if e.outcome.kind != "ok")
    found = accounts.check(run, "mgpo")
    assert found["issued"] >= 8


def test_a_solver_learns_from_a_given_file_and_is_measured(world: Path) -> None:
    solve, _ = propose("solve", world)
    assert solve["steps"] == 2 and solve["problems"] == len(ROWS)
    evaluated, _ = propose("evaluate", world)
    assert evaluated["problems"] == len(ROWS) and 0 <= evaluated["after"]["mean"] <= 1
    subprocess.run([sys.executable, "-m", "pipeline.cli", "report", str(world / "run")], check=True)
    assert (world / "run" / "report.html").stat().st_size > 10_000


# ---------------------------------------------------------------- the real model as a teacher


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def server() -> Iterator[str]:
    """vLLM's own OpenAI server with the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--port", str(port), "--served-model-name", "smol", "--max-model-len", "4096", "--enforce-eager"]
    arguments += ["--dtype", "float32"]  # what this CPU is quick in
    arguments.append("--no-enable-chunked-prefill")  # on a CPU, requests with a seed kill the server under it
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen(
        # Not `vllm serve`: it asks for the version of a package by another name than the CPU build's.
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir()), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 1200
        while not _healthy(port):
            if process.poll() is not None:
                pytest.fail(f"vLLM's server ended with code {process.returncode} before it answered")
            if time.monotonic() > deadline:
                pytest.fail("vLLM's server did not answer within 1200 s")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with suppress(ProcessLookupError):  # it has ended, and all of its group
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def test_a_teacher_that_is_far_too_weak_costs_its_documents_only(tmp_path: Path) -> None:
    """Its replies are read for what they are: skills that hold something, or a fault each, counted."""
    with server() as url:
        teacher = {"kind": "openai", "base_url": url, "model": "smol", "max_tokens": 300, "timeout_s": 600}
        config(tmp_path, url, teacher=teacher)
        done = subprocess.run(command("acquire", tmp_path), capture_output=True, text=True)
    shards = (tmp_path / "run" / "steps" / "acquire").glob("*/replies.jsonl")
    replies = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    assert {r["document"] for r in replies} == set(range(len(SKILLS)))
    # One that is cut off is asked for once more, and told of.
    assert all("cut off at 300 tokens" in r["failure"] if "failure" in r else r["reply"].strip() for r in replies)
    if done.returncode == 0:
        assert json.loads(done.stdout)["documents"] == len(SKILLS)
    else:
        assert "no skill in the replies" in done.stderr or "acquire: none of" in done.stderr
