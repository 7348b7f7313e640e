"""A round of the gates' experiment: labels held against the truth, what is passed on to the next round, the author as
its own judge."""

import asyncio
import json

import pytest

from actors.committee import Committee
from actors.verifiers import make
from pipeline import config as configs
from pipeline.commands.ablation import rounds
from pipeline.commands.ablation.grid import ARMS, ROUNDS, STATED, Budget
from pipeline.config import loading
from pipeline.domains.mini.defects import sound_problems
from pipeline.flow.context import Context
from pipeline.records import Problem
from pipeline.scoring import problems
from pipeline.store.digests import write_manifest
from pipeline.store.rundir import RunDir

SOUND = sound_problems(6, 0)


def own_answer():
    return loading.load(None, [*STATED, *ARMS["own-answer"].overrides])


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize("answer", [None, "12345", "even"])
def test_under_the_gate_of_its_own_answer_whatever_is_handed_in_is_the_truth(answer):
    config = own_answer().committee
    (section,) = config.verifiers
    committee = Committee.of(config, [make(section, 0, None, None)])
    problem, active = SOUND[0]
    spoiled = Problem.make(problem.question, answer or problem.answer, problem.answer_kind)
    verdict = asyncio.run(committee.judge(spoiled, None, active))
    assert (verdict.decision, verdict.answer) == ("accepted", spoiled.answer)


def test_both_gates_have_the_same_prober_and_another_committee():
    one, other = own_answer(), loading.load(None, [*STATED, *ARMS["committee"].overrides])
    assert one.prober == other.prober and one.solve == other.solve and one.reward == other.reward
    assert [v.kind for v in one.committee.verifiers] == ["author"]
    assert [v.kind for v in other.committee.verifiers] == ["symbolic", "executing", "model"]
    assert (other.committee.required, other.committee.audit) == (2, True)


# ---------------------------------------------------------------- a round


def wrong(problem):
    return Problem.make(problem.question, "99999" if problem.answer != "99999" else "1", problem.answer_kind)


def written(run, rows):
    """A data set as `synthesize` leaves it: problems with the category and the skills that they were asked for."""
    folder = run.path("dataset")
    folder.mkdir(parents=True)
    (folder / "problems.jsonl").write_text(problems.text(problem for problem, _, _ in rows))
    origins = [{"category": category, "skills": list(skills)} for _, category, skills in rows]
    (folder / "provenance.jsonl").write_text("".join(json.dumps(o) + "\n" for o in origins))
    write_manifest(folder, "dataset", ["problems.jsonl", "provenance.jsonl"])


def played(root, monkeypatch, rows, sets=()):
    """A round whose synthesis writes these rows, with 500 tokens; returns what it came to, and the calls."""
    calls = []

    async def stage(context, name):
        config = context.config
        calls.append(name)
        if name == "synthesize":
            assert (config.synthesize.target_episodes, config.synthesize.proposer) == (9, None)  # MGPO's own
            written(context.run, rows)
            return {"accepted": len(rows), "validity": 0.5, "tokens": 500, "mean_pass_rate": 0.4}
        if name == "evaluate":
            return {"before": {"mean": 0.3}, "after": {"mean": 0.35}}
        return {"checkpoint": f"{name}/step-000002"}

    monkeypatch.setattr("pipeline.stages.run", stage)
    config = loading.load(None, list(sets))
    run = RunDir.open(root, config)
    try:
        return asyncio.run(rounds.play(Context(config, run, None, None, None), Budget(episodes=9))), calls
    finally:
        run.close()


def category_of(problem):
    from pipeline.domains.mini.generate import read

    return read(problem.question).category


def test_labels_are_held_against_the_truth(tmp_path, monkeypatch):
    """Of four rows one has a wrong answer, one is right and off task: it lacks what was asked for."""
    of = [(problem, category_of(problem), skills) for problem, skills in SOUND[:4]]
    astray = {"maths": "code", "code": "science", "science": "maths"}[of[2][1]]
    rows = [of[0], (wrong(of[1][0]), *of[1][1:]), (of[2][0], astray, of[2][2]), of[3]]
    found, calls = played(tmp_path / "r", monkeypatch, rows)
    assert calls == ["mgpo", "synthesize", "solve", "evaluate"]
    assert (found["label_accuracy"], found["sound"]) == (0.75, 0.5)
    assert found["yield_per_1k"] == pytest.approx(1000 * 3 / 500)
    assert (found["before"], found["score"]) == (0.3, 0.35)
    assert (found["proposer"], found["solver"]) == ("mgpo/step-000002", "solve/step-000002")
    assert set(rounds.ROUND) <= set(found)


def test_a_round_without_a_row_leaves_the_solver_as_it_was(tmp_path, monkeypatch):
    found, calls = played(tmp_path / "r", monkeypatch, [])
    assert calls == ["mgpo", "synthesize"]
    assert (found["label_accuracy"], found["score"], found["solver"]) == (None, None, "mini:solver")
    assert rounds.summary([found] * ROUNDS) == {"label_accuracy": None, "label_change": None, "solver": None}


def test_the_next_round_is_probed_by_the_solver_and_trains_it_further():
    assert rounds.settings(None) == ()
    config = loading.load(None, list(rounds.settings({"solver": "/a b/step-000002"})))
    assert config.prober.ladder[0].path == config.solve.base.path == "/a b/step-000002"
    before = configs.Config(domain="mini")
    assert config.prober.ladder[0].engine == before.prober.ladder[0].engine


def test_a_gates_figures_are_of_its_last_round_against_its_first():
    of = [{"label_accuracy": a, "score": s} for a, s in ((0.8, 0.3), (0.7, 0.35), (0.6, None))]
    found = rounds.summary(of)
    assert found["label_accuracy"] == 0.6 and found["label_change"] == pytest.approx(-0.2) and found["solver"] == 0.35
