"""The whole chain of the text domain: teacher, proposer, judges, prober and the evaluated model are an endpoint that
knows the truth and errs at stated rates in stated ways (text_world.py); a random small model is what is trained.

What comes of each episode follows from the draws of who played and judged it, problem by problem, and how often from
the rates. Counts are held against the rates within four standard deviations; draws and theory are the test's own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from pipeline.flow.steps import judged_in
from pipeline.records import Episode, Rollout
from pipeline.scoring.judged import Judged
from pipeline.scoring.styles import style
from pipeline.skills.extraction import SkillLibrary
from pipeline.store import metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from tests.actors.endpoint import serving
from tests.actors.tiny_model import make_model
from tests.pipeline.text_world import (
    CATEGORIES,
    ENDS,
    FAULTS,
    GRADUATE,
    MALFORMED,
    PROPOSED,
    SPOILED,
    UNBOXED,
    UNFIT,
    UNREADABLE,
    Plan,
    World,
    acceptance,
    accepted,
    document,
    number_of,
    problem,
    result_of,
    share,
)
from tests.realmodel.truth import SKILLS

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(1800)]

PROMPTS = Path(__file__).parents[2] / "pipeline" / "domains" / "text" / "prompts"
TRAJECTORIES, TARGET, TRIES, SAMPLES = 48, 20, 8, 4
CONTEXT, TURN = 4096, 640
BENCHMARK = [problem(category, Random(f"benchmark {category} {i}")) for category in CATEGORIES for i in range(5)]


def config(folder: Path, url: str) -> Path:
    corpus, benchmark, model = folder / "notes", folder / "benchmark.jsonl", folder / "model"
    corpus.mkdir()
    for name in PROPOSED:
        (corpus / f"{name}.md").write_text(document(name))
    rows = [
        {"question": p.question, "answer": p.answer, "answer_kind": p.answer_kind}
        | ({"checks": [json.loads(check) for check in p.checks]} if p.checks else {})
        for p in (item.problem for item in BENCHMARK)
    ]
    benchmark.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_model(model, texts=[path.read_text() for path in PROMPTS.glob("*.md")])
    engine = {"max_model_len": CONTEXT, "max_num_seqs": 4, "kv_cache_gb": 0.25, "dtype": "float32"}
    trained = {"path": str(model), "engine": engine}
    step = {"steps": 1, "group_size": 2, "warmup_steps": 0, "checkpoint_every": 1}

    def asked(name: str) -> dict[str, Any]:
        return {"base_url": url, "model": name, "timeout_s": 300}

    tree = {
        "domain": "text",
        "ray": {"num_cpus": 2, "object_store_mb": 256},
        "sandbox": {"minimum": "unsafe"},
        "acquire": {"corpus": [str(corpus)]},
        "teacher": {"kind": "openai", **asked("teacher")},
        "proposer": trained,
        "episode": {
            "limits": {"max_turns": 8, "max_tokens": CONTEXT, "max_turn_tokens": TURN},
            "sampling": {"max_tokens": TURN},
        },
        "committee": {
            "verifiers": [
                {"kind": "program", "style": "python", **asked("plain")},
                {"kind": "program", "style": "sympy", **asked("symbolic")},
                {"kind": "model", **asked("reviewer")},
            ],
            "auditor": {"kind": "model", **asked("auditor")},
        },
        "prober": {"n": TRIES, "k": 4, "ladder": [{"endpoint": asked("student")}]},
        "trainer": {"dtype": "float32", "num_cpus": 0.5, "micro_batch_tokens": 2 * CONTEXT},
        "sft": {"trajectories": TRAJECTORIES, "epochs": 2, "batch": 8, "lr": 3e-3, "warmup_steps": 0},
        "mgpo": step | {"groups": 2, "curriculum": {"min_skills": 2, "max_skills": 3}},
        "synthesize": {
            "proposer": {"endpoint": asked("proposer")}, "target": TARGET, "in_flight": 8, "max_episodes": 200,
        },
        "solve": step | {"problems": 2, "sampling": {"max_tokens": 24}, "base": trained},
        "evaluate": {
            "benchmark": str(benchmark), "samples": SAMPLES, "model": {"endpoint": asked("graduate")},
        },
    }  # fmt: skip
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@dataclass(frozen=True)
class Chain:
    root: Path
    world: World
    said: dict[str, Any]
    """What `propose run` says."""

    def result(self, stage: str) -> dict[str, Any]:
        return json.loads((self.root / "stages" / f"{stage}.json").read_text())["result"]

    def judged(self, stage: str) -> list[Judged]:
        return [j for folder in RunDir.read(self.root)[0].steps(stage) for j in judged_in(folder)]

    def played(self) -> list[tuple[Plan, Judged]]:
        """What the teacher and the proposer behind the endpoint played, each with its plan, drawn again."""
        return [
            (self.plan(role, j.episode), j)
            for role, stage in (("teacher", "sft"), ("proposer", "synthesize"))
            for j in self.judged(stage)
        ]

    def plan(self, role: Any, episode: Episode) -> Plan:
        number = number_of(episode.turns[0].text)
        asked = self.world.plans[number].style if role == "teacher" else None  # the prompt said it
        return Plan.of(role, number, episode.task.category, tuple(s.id for s in episode.task.skills), asked)


def propose(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipeline.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def run_in(folder: Path) -> Chain:
    world = World()
    for item in BENCHMARK:
        world.know(item)
    with serving(world.reply) as (url, _):
        said = propose("run", "--config", str(config(folder, url)), "--run-dir", str(folder / "run"))
    return Chain(folder / "run", world, said)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return run_in(tmp_path_factory.mktemp("chain"))


def as_stated(what: str, found: float, chances: Iterable[float]) -> None:
    """`found` successes of draws with these chances."""
    chances = list(chances)
    expected, spread = sum(chances), math.sqrt(sum(p * (1 - p) for p in chances))
    print(f"{what:44s} {found:5.0f} of {len(chances):4d}   theory {expected:6.1f} +- {spread:.1f}")
    assert abs(found - expected) <= 4 * spread + 1e-9, what


# ---------------------------------------------------------------- skills


def test_the_library_is_what_the_documents_teach(chain: Chain) -> None:
    found = chain.result("acquire")
    assert {s.id for s in SkillLibrary.load(chain.root / "skills")} == {s.id for s in SKILLS}
    assert found["skills"] == dict.fromkeys(sorted(CATEGORIES), 3)
    proposed = sum(map(len, PROPOSED.values()))
    counts = {"candidates": proposed, "refused": 1, "dropped_low_score": 1, "duplicates": 1, "unscored": 0}
    assert {name: found[name] for name in counts} == counts
    assert (found["documents"], found["failed_replies"], found["malformed_replies"]) == (len(PROPOSED), 0, 0)


# ---------------------------------------------------------------- episodes


def test_each_episode_ends_as_its_writer_s_form_says(chain: Chain) -> None:
    played = chain.played()
    assert len(chain.judged("sft")) == TRAJECTORIES and len(chain.judged("synthesize")) > TARGET
    for plan, j in played:
        episode, cut = j.episode, plan.fault == "cut" and plan.role == "teacher"
        malformed = sum(t.tool is not None and t.tool.status == "malformed" for t in episode.turns)
        notes = Counter(note for t in episode.turns for note in t.notes)
        assert malformed == (plan.fault in MALFORMED and not cut), plan
        assert sum(t.truncated for t in episode.turns) == (plan.fault == "cut" and not cut), plan
        assert notes["no header"] == (plan.fault == "no header") and notes["repeated"] == 2 * (plan.fault == "repeats")
        if plan.end:
            assert (episode.outcome.kind, episode.submitted, j.verdict) == ("model_error", None, None), plan
            assert plan.end in episode.outcome.reason
            continue
        assert episode.outcome.kind == "ok" and episode.submitted is not None, (plan, episode.outcome)
        p = plan.item.problem
        handed_in = episode.submitted
        assert (handed_in.question, handed_in.answer, handed_in.answer_kind) == (p.question, p.answer, p.answer_kind)
        assert list(map(json.loads, handed_in.checks)) == list(map(json.loads, p.checks))
        assert (episode.active, style(episode)) == (plan.item.active, plan.style)
    for fault, rate in FAULTS.items():
        as_stated(f"form: {fault}", sum(plan.fault == fault for plan, _ in played), [rate] * len(played))
    as_stated("spoiled problems", sum(bool(plan.item.defect) for plan, _ in played), [SPOILED] * len(played))
    rates = [sum(FAULTS[f] for f in ENDS if f != "cut" or plan.role == "teacher") for plan, _ in played]
    as_stated("episodes without a problem", sum(j.episode.submitted is None for _, j in played), rates)


def test_the_committee_accepts_what_the_rule_says_of_its_judges_errors(chain: Chain) -> None:
    judged = [(plan.item, j) for plan, j in chain.played() if j.verdict]
    for item, j in judged:
        assert j.accepted is accepted(item), (item, j.verdict)
    assert not any(j.verdict.decision == "undecided" for _, j in judged if j.verdict)
    for name, group in (
        ("sound, accepted", [(i, j) for i, j in judged if not i.defect]),
        ("spoiled, accepted", [(i, j) for i, j in judged if i.defect]),
    ):
        as_stated(name, sum(j.accepted for _, j in group), [acceptance(i) for i, _ in group])
    first = chain.world.judges.first
    as_stated("judges' first replies that are none", first[True], [UNREADABLE] * first.total())


def test_code_problems_are_judged_by_their_tests(chain: Chain) -> None:
    code = [j for _, j in chain.played() if j.problem and j.problem.answer_kind == "code"]
    assert len({j.accepted for j in code}) == 2
    for j in code:
        assert j.problem is not None and j.verdict is not None
        checks = [json.loads(check) for check in j.problem.checks]
        given = [result_of(j.problem.answer, check["entry"], *check["args"]) for check in checks]
        passed, different = given == [c["expected"] for c in checks], len({json.dumps(c["expected"]) for c in checks})
        if not passed or different < 2:
            flag = "trivial" if passed else "unsolvable"
            assert all(vote.valid is False and vote.flags == (flag,) for vote in j.verdict.votes), j.verdict
            assert not j.accepted
    assert sum(plan.item.defect in UNFIT for plan, j in chain.played() if j.verdict) > 0


# ---------------------------------------------------------------- the data set and its difficulty


def test_the_data_set_is_the_first_sound_and_solved_ones(chain: Chain) -> None:
    """In the order of the tasks: of what the committee accepts, what neither says its answer nor defeats the prober."""
    played = [(plan, j) for plan, j in chain.played() if plan.role == "proposer" and j.accepted]
    leaked = [plan for plan, _ in played if plan.item.defect == "answer_leaked"]
    solved = [(plan, j) for plan, j in played if plan not in leaked and j.probe and j.probe.correct]
    assert len(solved) == TARGET and chain.result("synthesize")["left_out"] == _counted(leaked)
    rows, unsolved = (_rows(chain.root / "dataset" / name) for name in ("problems.jsonl", "unsolved.jsonl"))
    assert [row["question"] for row in rows] == [plan.item.problem.question for plan, _ in solved]
    assert [row["answer"] for row in rows] == [plan.item.problem.answer for plan, _ in solved]
    assert len(unsolved) == len(played) - len(leaked) - TARGET
    told = _rows(chain.root / "dataset" / "provenance.jsonl")
    assert {row["category"] for row in told} == set(CATEGORIES)
    assert {"math", "code"} <= {row["answer_kind"] for row in told}
    wrong = [plan for plan, _ in solved if plan.item.problem.answer != plan.item.truth]
    assert not wrong  # a wrong answer gets past judges that err, and the prober does not give it


def _counted(leaked: list[Plan]) -> dict[str, int]:
    return {"answer stated in the question": len(leaked)} if leaked else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rho_is_the_prober_s_share(chain: Chain) -> None:
    probed = [(share(plan.item), j.probe) for plan, j in chain.played() if plan.role == "proposer" and j.probe]
    assert len(probed) >= TARGET and all((probe.n, probe.unknown) == (TRIES, 0) for _, probe in probed)
    for p, probe in probed:
        assert abs(probe.correct - TRIES * p) <= 4 * math.sqrt(TRIES * p * (1 - p)) + 1e-9
        assert probe.rate == probe.correct / TRIES
        all_wrong = math.comb(TRIES - probe.correct, 4) / math.comb(TRIES, 4)  # of four that are chosen
        assert probe.pass_at_k == pytest.approx(1 - all_wrong)
    as_stated("right answers of the prober", sum(probe.correct for _, probe in probed), _times(TRIES, probed))


def _times(n: int, probed: list[tuple[float, Any]]) -> list[float]:
    return [p for p, _ in probed for _ in range(n)]


def test_the_evaluated_model_has_its_score(chain: Chain) -> None:
    found = chain.result("evaluate")
    right, wrong = (chain.world.given["graduate", was] for was in (True, False))
    assert right + wrong == len(BENCHMARK) * SAMPLES == found["problems"] * found["samples"]
    assert found["score"]["mean"] == pytest.approx(right / (right + wrong))
    as_stated("right answers of the evaluated model", right, [GRADUATE * (1 - UNBOXED)] * (right + wrong))


# ---------------------------------------------------------------- training, and the run as a whole


def test_what_is_trained_has_learned_from_what_was_accepted(chain: Chain) -> None:
    sft = chain.result("sft")
    taught = [(plan, j) for plan, j in chain.played() if plan.role == "teacher"]
    assert sft["accepted"] == sum(j.accepted for _, j in taught) and sft["loss_last"] < sft["loss_first"]
    by_style = Counter(plan.style for plan, j in taught if j.accepted)
    assert {name: counts["accepted"] for name, counts in sft["styles"].items() if counts["accepted"]} == by_style
    run, _ = RunDir.read(chain.root)
    cloned = {r.episode_id for s in run.steps("sft") for r in read_records(s / "rollouts.parquet", Rollout)}
    assert len(cloned) == sft["cloned"] and cloned <= {j.episode.id for _, j in taught if j.accepted}
    (step,) = run.steps("mgpo")
    for episode in read_records(step / "episodes.parquet", Episode):  # so small a model writes nothing that counts
        assert episode.outcome.kind == "model_error" and episode.outcome.reason and episode.turns
    assert len(read_records(step / "rollouts.parquet", Rollout)) == 4
    (answered,) = metrics.read(run)["solve"]
    assert (answered["groups"], answered["unanswered"], answered["reward"]) == (2, 0, 0)


def test_every_stage_is_done_and_adds_up(chain: Chain) -> None:
    assert [chain.said["stages"][name]["status"] for name in RUN_STAGES] == ["done"] * len(RUN_STAGES)
    assert propose("verify", str(chain.root))["findings"] == []
    ledger = propose("ledger", str(chain.root))
    assert ledger["findings"] == []
    for stage, n in (("sft", TRAJECTORIES), ("mgpo", 4), ("solve", 4)):
        totals = ledger["stages"][stage]["totals"]
        assert (totals["issued"], totals["failed"], totals["live"]) == (n, 0, 0)
    report = (chain.root / "report.html").read_text()
    assert len(report) > 10_000 and all(category in report for category in CATEGORIES)
