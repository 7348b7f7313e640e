"""What a config names is tried: each thing there and not there."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from actors.openai_client import ChatClient
from pipeline import domains
from pipeline.commands.doctor_config import named, prompt
from pipeline.config.loading import load
from pipeline.records import Failure
from tests.mini import MINI


def look(name, *settings):
    return [c for c in named(load(None, settings)) if c.name == name]


@pytest.fixture
def model(tmp_path):
    shutil.copytree(domains.of(MINI.domain).resolve("mini:solver"), tmp_path / "model")
    return tmp_path / "model"


def test_the_defaults_are_there():
    expected = {"model": "ok", "corpus": "ok", "benchmark": "ok"}
    assert {c.name: c.status for c in named(load())} == expected
    assert [(c.name, c.status) for c in prompt(load())] == [("prompts", "ok")]
    assert list(prompt(load(None, ["proposer.path=/no/model"]))) == []


def test_a_prompt_that_leaves_too_little_to_the_work_is_told():
    told = " ".join(["word"] * 120)
    (found,) = prompt(load(None, [f"system_prompt={told}"]))
    assert (found.name, found.status) == ("prompts", "warn") and "of episode.limits.max_tokens (900)" in found.found
    assert "expected at most 15%" in found.todo


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: shutil.rmtree(f), "no such file or folder"),
        (lambda f: (f / "config.json").unlink(), "config.json: No such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "an empty file"),
        (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"), "pointer"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"w": "a.safetensors"}}'),
            "a.safetensors: No such file",
        ),
    ],
)  # fmt: skip
def test_a_model_folder_that_no_engine_could_load(model, spoil, said):
    setting = f"proposer.path={model}"
    assert [c.status for c in look("model", setting)] == ["ok", "ok"]
    spoil(model)
    broken = look("model", setting)[0]
    assert broken.status == "fail" and said in broken.found and "proposer.path" in broken.todo


def test_corpus_and_benchmark_are_read(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.txt").write_text("text")
    (tmp_path / "c" / "b.docx").write_bytes(b"PK")
    (corpus,) = look("corpus", f"acquire.corpus=[{tmp_path / 'c'}]")
    assert corpus.status == "ok" and "1 documents; 1 left out: .docx" in corpus.found
    assert look("corpus", "acquire.corpus=[absent]")[0].status == "fail"
    assert look("corpus", "acquire.corpus=['']")[0].status == "fail"
    rows = tmp_path / "b.jsonl"
    rows.write_text('{"question": "q", "answer": "a"}\n')
    assert look("benchmark", f"evaluate.benchmark={rows}", "evaluate.problems=1")[0].status == "ok"
    assert look("benchmark", f"evaluate.benchmark={rows}")[0].status == "warn"
    rows.write_text('{"question": "q", "answer": ""}\n')
    (broken,) = look("benchmark", f"evaluate.benchmark={rows}")
    assert broken.status == "fail" and f"{rows}:1: answer is empty" in broken.found


ENDPOINT = ("teacher.kind=openai", "teacher.base_url=http://x/v1", "teacher.model=m", "teacher.api_key_env=MY_KEY")


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (None, "ok"),
        (Failure("the reply holds no text", "model_error"), "ok"),
        (Failure("http://x: HTTP 401 for model 'm'", "data_error"), "fail"),
        (Failure("http://x: ConnectError (1 tries)", "infra_error"), "fail"),
    ],
)
def test_an_endpoint_is_asked_with_its_key(monkeypatch, answers, status):
    asked = []

    async def complete(self, messages, **kwargs):
        await asyncio.sleep(0)
        asked.append(messages)
        if answers is not None:
            raise answers
        return "yes"

    monkeypatch.setattr(ChatClient, "complete", complete)
    monkeypatch.delenv("MY_KEY", raising=False)
    (check,) = look("endpoint", *ENDPOINT)
    assert check.status == status and len(asked) == 1
    assert "$MY_KEY is not set" in check.found + check.todo
    monkeypatch.setenv("MY_KEY", "secret")
    (check,) = look("endpoint", *ENDPOINT)
    assert "$MY_KEY is set" in check.found + check.todo and "secret" not in str(check)


def test_the_same_endpoint_is_asked_once(monkeypatch):
    asked = []

    async def complete(self, messages, **kwargs):
        asked.append(messages)
        return "yes"

    monkeypatch.setattr(ChatClient, "complete", complete)
    judge = ("committee.verifiers.2.base_url=http://x/v1", "committee.verifiers.2.model=m",
             "committee.verifiers.2.api_key_env=MY_KEY")  # fmt: skip
    (check,) = look("endpoint", *ENDPOINT, *judge)
    assert len(asked) == 1 and check.detail["fields"] == ["teacher", "committee.verifiers.2"]
