"""Models by their name on the Hub: from its cache, or downloaded into it, from a Hub of our own."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from pipeline import domains
from pipeline.commands import doctor_config, preflight
from pipeline.config.loading import load
from pipeline.domains import hub
from pipeline.records import Failure
from tests.pipeline.domains.a_hub import SHA, Repo, serving

TEXT = domains.of(load(None).domain)


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A Hub with one model, the mini world's solver under another name, and an empty cache."""
    folder = domains.of(load(None).domain).resolve("mini:solver")
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    other = {"model.gguf": b"the same weights for somebody else"}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with serving(Repo("models", "us/small", files | other), monkeypatch) as repo:
        yield SimpleNamespace(files=files, asked=repo.asked, cache=tmp_path / "cache")


def test_a_model_is_downloaded_once_without_what_nothing_here_reads(ours, monkeypatch):
    folder = TEXT.model("us/small")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == ours.files
    asked = len(ours.asked)
    assert TEXT.model("us/small") == folder and TEXT.model(f"us/small@{SHA}") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert TEXT.model("us/small") == folder
    assert len(ours.asked) == asked


def test_what_an_interrupt_left_of_a_download_is_no_model(ours):
    folder = TEXT.model("us/small")
    weights = folder / "model.safetensors"
    blob = weights.resolve()
    weights.unlink()
    blob.unlink()
    assert hub.cached("us/small") is None
    with pytest.raises(Failure, match="not downloaded yet"):
        TEXT.model("us/small", download=False)
    assert (TEXT.model("us/small") / "model.safetensors").read_bytes() == ours.files["model.safetensors"]


def test_a_tokenizer_that_others_put_there_is_no_model(ours):
    snapshot = ours.cache / "models--us--small" / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (ours.cache / "models--us--small" / "refs").mkdir()
    (ours.cache / "models--us--small" / "refs" / "main").write_text(SHA)
    (snapshot / "tokenizer.json").write_bytes(ours.files["tokenizer.json"])
    assert hub.cached("us/small") is None
    assert {p.name for p in TEXT.model("us/small").iterdir()} == set(ours.files)


def test_a_folder_of_that_name_comes_first(ours, tmp_path):
    shutil.copytree(TEXT.resolve("mini:solver"), tmp_path / "us" / "small")
    assert TEXT.model("us/small").resolve() == tmp_path / "us" / "small" and not ours.asked


@pytest.mark.parametrize(
    "name, kind, said",
    [
        ("us/nothing", "data_error", "the Hub knows no such model"),
        ("us/private", "data_error", "expected HF_TOKEN of somebody who may read it"),
        ("us/small@v9", "data_error", "RevisionNotFound"),
        ("a/b/c", "data_error", "no such file or folder"),
        ("../small", "data_error", "no such file or folder"),
        ("us/a--b", "data_error", "HFValidationError"),
    ],
)
def test_what_cannot_be_had_is_one_line_that_names_it(ours, name, kind, said):
    with pytest.raises(Failure) as caught:
        TEXT.model(name)
    assert caught.value.kind == kind and said in str(caught.value) and str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_offline_and_not_in_the_cache(ours, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Failure, match=r"^us/small: .*not in the Hub's cache .*HF_HUB_OFFLINE is set"):
        TEXT.model("us/small")
    assert not ours.asked


def test_a_hub_that_is_away_is_worth_a_retry(ours, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Failure) as caught:
        TEXT.model("us/small")
    assert caught.value.kind == "infra_error" and "the Hub gave no model" in str(caught.value)
    with pytest.raises(Failure) as caught:
        preflight.check(load(None, ["proposer.path=us/small"]), tmp_path / "r", ["acquire", "sft"])
    assert caught.value.kind == "infra_error"


def test_looking_downloads_nothing_and_a_run_what_its_stages_load(ours):
    config = load(None, ["proposer.path=us/small"])
    checks = doctor_config.named(config, lambda field: field == "proposer.path", ())
    (found,) = [c for c in checks if "us/small" in c.found]
    gigabytes = sum(map(len, ours.files.values())) / 1e9
    assert found.status == "ok" and f"on the Hub, {gigabytes:.1f} GB to download" in found.found
    assert hub.size("us/small") == sum(map(len, ours.files.values())) and hub.cached("us/small") is None
    assert list(preflight.download(config, ["acquire"])) == []
    (line,) = preflight.download(config, ["sft"])
    assert "us/small" in line and hub.cached("us/small") is not None
    assert list(preflight.download(config, ["sft"])) == []
