"""`propose acquire RUN --with proposer`: a run of its own, by the run's own last checkpoint, and the comparison."""

from __future__ import annotations

import json

import pytest

from pipeline.cli import main
from pipeline.commands import extract
from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.skills import candidates
from pipeline.skills.extraction import SkillLibrary
from pipeline.store.rundir import RunDir
from tests.pipeline.scoring.test_extractions import extraction


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs" / "mine"


def begun(root, *stages):
    run = RunDir.open(root, load(None, ["proposer.pool.max_ongoing=7"]))
    for stage in stages:
        run.finish(stage, {"checkpoint": f"/c/{stage}/step-000004"}, 1.0)
    run.close()


def test_the_last_checkpoint_of_the_run_reads_with_the_runs_engine(root):
    begun(root, "sft")
    config, place = extract.run_of(root, ["acquire.corpus=[new.jsonl]"], "proposer")
    model = config.acquire.proposer
    assert model is not None and (model.path, model.pool.max_ongoing) == ("/c/sft/step-000004", 7)
    assert config.acquire.corpus == ("new.jsonl",) and config.mirror is None
    assert place.parent == root.parent and place.name.startswith("mini-by-proposer-")
    again = extract.run_of(root, ["acquire.corpus=[new.jsonl]"], "proposer")
    assert again == (config, place)
    taught, other = extract.run_of(root, ["acquire.corpus=[new.jsonl]"], "teacher")
    assert taught.acquire.proposer is None and other != place
    begun(root, "mgpo")
    better, elsewhere = extract.run_of(root, [], "proposer")
    assert better.acquire.proposer is not None and better.acquire.proposer.path == "/c/mgpo/step-000004"
    assert elsewhere != place


def test_a_run_without_a_trained_proposer_is_told_how_to_get_one(root, capsys):
    begun(root)
    with pytest.raises(Failure, match="no proposer is trained there; run `propose sft"):
        extract.run_of(root, [], "proposer")
    for by in ("proposer", "both"):
        with pytest.raises(SystemExit) as ended:
            main(["acquire", str(root), "--with", by])
        assert ended.value.code == 2 and "no proposer is trained there" in capsys.readouterr().err


def read(place, documents, *of, **how):
    made = extraction(*of, **how)
    run = RunDir.open(place, load())
    SkillLibrary(made.library).save(run.path("skills"), candidates=candidates.written(made.candidates))
    run.finish("acquire", {"documents": documents}, 1.0)
    run.close()
    return place


def test_both_readings_are_compared_by_document(root, capsys, monkeypatch):
    begun(root, "sft")
    teacher = read(root.parent / "t", 3, ["sums", "roots"], ["lenses"])
    proposer = read(root.parent / "p", 3, ["sums"], ["lenses"], renamed=True)
    made = {"teacher": (load(), teacher), "proposer": (load(), proposer)}
    monkeypatch.setattr(extract, "run_of", lambda root, sets, by: made[by])
    with pytest.raises(SystemExit) as ended:
        main(["acquire", str(root), "--with", "both", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and (found["teacher_per_document"], found["proposer_per_document"]) == (1, 2 / 3)
    assert (found["recall"], found["precision"]) == (2 / 3, 1)
    with pytest.raises(Failure, match="expected the same corpus"):
        extract.compared(teacher, read(root.parent / "q", 4, ["sums"]))
