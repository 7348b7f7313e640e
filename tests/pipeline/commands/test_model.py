"""What leaves a run as a model: its card tells what was measured and nothing else, and only vouched files go out."""

import base64
import json
import random
from pathlib import Path

import pytest
import yaml

from pipeline.commands import model
from pipeline.commands.keys import MODEL_CARD_KEYS, MODEL_EXPORT_KEYS
from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store import manifest
from pipeline.store.digests import write_manifest
from pipeline.store.rundir import RunDir
from tests.pipeline import runs
from tests.pipeline.dataset.test_push import TOKEN, hub  # noqa: F401  # a fixture
from tests.pipeline.test_cli import propose

WEIGHTS = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}
PAIRED = {"problems": 240, "difference": 0.075, "interval": [0.03, 0.12], "p": 0.001, "better": 60, "worse": 20}
SCORE = {"before": {"mean": 0.425, "interval": [0.38, 0.47]}, "after": {"mean": 0.5, "interval": [0.46, 0.54]}}


def checkpoint(run, stage, number):
    """As ranks leave one: the model, and the trainer's own state beside it; returns its folder."""
    folder = run.path("checkpoints", stage, f"step-{number:06d}")
    (folder / "trainer" / "engine").mkdir(parents=True)
    for name, content in (WEIGHTS | {"trainer/engine/optimizer.pt": b"moments", "trainer/state.json": b"{}"}).items():
        (folder / name).write_bytes(content)
    write_manifest(folder, "checkpoint", [*WEIGHTS, "trainer/state.json"], "trainer/manifest-0.json")
    write_manifest(folder, "checkpoint", ["trainer/engine/optimizer.pt"], "trainer/manifest-1.json")
    (folder / "stray.txt").write_text("of nobody")
    return str(folder)


@pytest.fixture
def run(tmp_path):
    """A run that has trained both, and has a place of this machine wherever a config may hold one."""
    config = Config(
        domain="mini", name="mine", proposer={"path": "Qwen/Qwen3-4B@abc"},
        solve={"base": {"path": "/some/where/Small"}},
        acquire={"corpus": ["/home/me/notes"], "license": "cc-by-4.0"},
    )  # fmt: skip
    run = RunDir.open(tmp_path / "run", config)
    run.write_sealed("prompts.json", {"proposer": "abc"})
    run.finish(
        "sft", {"accepted": 180, "trajectories": 200, "steps": 40, "checkpoint": checkpoint(run, "sft", 40)}, 1.0
    )
    run.close()
    return run.root


def done(root, stage, **result):
    run, config = RunDir.read(root)
    run = RunDir.open(root, config)
    if stage != "evaluate":
        result["checkpoint"] = checkpoint(run, stage, result["steps"])
    run.finish(stage, result, 1.0)
    run.close()


def front(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_solvers_card_has_its_results_with_intervals_and_no_place_of_this_machine(run):
    done(run, "solve", steps=24, problems=60)
    before = model.card_of(str(run), "solver", None)
    assert before.count("not measured") == 2 and "Each problem" not in before
    done(run, "evaluate", problems=240, samples=4, paired=PAIRED, **SCORE)
    card = model.card_of(str(run), "solver", "apache-2.0")
    assert front(card) == {
        "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["reasoning", "agentic-proposing"],
    }  # fmt: skip
    assert "| after training | 50.0 % | 46.0 to 54.0 % | mini:heldout, Mean@4 |" in card
    assert "the trained model is better: +7.5 points (95 % +3.0 to +12.0, p 0.001) on 240 problems" in card
    assert "Base model: Small" in card and "60 problems, written by Qwen/Qwen3-4B@abc, trained by MGPO" in card
    assert all(f"| {line} |" in card for line in ("objective | grpo", "optimizer steps | 24", "group size | 8"))
    assert "Of this model: apache-2.0. Of what the data were made from: cc-by-4.0." in card
    assert "| prompts | " in card and "| code | " in card
    assert not any(place in card for place in ("/some", "/home", str(run.parent)))


def test_a_proposer_is_the_one_that_was_trained_last_and_figures_of_another_are_not_its_own(run):
    _, config = RunDir.read(run)
    opened = RunDir.open(run, config)
    runs.step(opened, "synthesize", 1, random.Random(1))
    opened.close()
    card = model.card_of(str(run), "proposer", None)
    assert "| objective | sft |" in card and "trained by SFT." in card and card.count("not measured") == 2
    assert front(card)["base_model"] == "Qwen/Qwen3-4B" and front(card)["license"] == "unknown"
    done(run, "mgpo", steps=3, episodes=72)
    card = model.card_of(str(run), "proposer", None)
    assert "| objective | mgpo |" in card and "MGPO: 72 episodes of its own" in card
    assert "| validity: accepted of judged | 60.0 % | 31.3 to 83.2 % |" in card  # 6 of 10 judged


def test_what_is_exported_is_the_model_alone_as_it_was_written(run, tmp_path, capsys):
    done(run, "solve", steps=24, problems=60)
    code, out, err = propose(capsys, "model", "export", run, tmp_path / "out", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == set(MODEL_EXPORT_KEYS) and (found["model"], found["stage"]) == ("solver", "solve")
    here = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert here == {*WEIGHTS, "README.md", "manifest.json"} == set(found["files"])
    assert {name: (tmp_path / "out" / name).read_bytes() for name in WEIGHTS} == WEIGHTS
    assert (tmp_path / "out" / "README.md").read_text() == model.card_of(str(run), "solver", None)
    manifest.verified_folder(tmp_path / "out")
    code, out, _ = propose(capsys, "model", "card", run, "--of", "solver", "--json")
    assert code == 0 and set(json.loads(out)) == set(MODEL_CARD_KEYS)
    with pytest.raises(Failure, match="holds something"):
        model.export(str(run), tmp_path / "out", "solver", None)
    Path(run, "checkpoints/solve/step-000024/model.safetensors").write_bytes(b"weighty")
    with pytest.raises(manifest.Damage, match=r"model\.safetensors"):
        model.export(str(run), tmp_path / "new", "solver", None)
    assert not (tmp_path / "new").exists()


def test_what_is_not_trained_is_refused_by_the_command_that_trains_it(run, tmp_path):
    with pytest.raises(Failure, match=r"no solver is trained there; run `propose solve"):
        model.export(str(run), tmp_path / "out", "solver", None)


def test_a_model_goes_to_the_hub_whole(run, tmp_path, hub, capsys):  # noqa: F811
    done(run, "solve", steps=24, problems=60)
    hub.there = ["model-00001-of-00002.safetensors", "model.safetensors", "notes.txt"]
    code, out, err = propose(capsys, "model", "export", run, tmp_path / "out", "--push", "me/set", "--license", "mit")
    assert code == 0, err
    created = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert (created["name"], created["visibility"], created.get("type", "model")) == ("set", "private", "model")
    assert any(path.startswith("/api/models/me/set/commit/") for path, _, _ in hub.asked)
    (commit,) = hub.commits
    sent = {c["value"]["path"]: base64.b64decode(c["value"]["content"]) for c in commit if c["key"] == "file"}
    assert sent == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert [c["value"]["path"] for c in commit if c["key"] == "deletedFile"] == ["model-00001-of-00002.safetensors"]
    assert TOKEN not in out + err
    with pytest.raises(Failure, match="no name of a model"):
        model.export(str(run), tmp_path / "new", "solver", None, "set")
    with pytest.raises(Failure, match="--public"):
        from pipeline.commands.groups.models import _export

        _export(str(run), tmp_path / "new", public=True)
    assert not (tmp_path / "new").exists()
