"""A model measured alone, on a file of problems: its score, and its answer to every item."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.commands.keys import STAGE_KEYS
from pipeline.config.loading import load
from pipeline.flow.context import Context
from pipeline.records import Failure
from pipeline.scoring import items
from pipeline.stages import evaluate
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress
from tests.pipeline.judged import Remote


class Cluster:
    """A model that knows how to add one, every second time."""

    def __init__(self):
        self.asked = []

    async def measured(self, model):
        self.asked.append(model)
        return SimpleNamespace(answers_many=Remote(self._answers))

    async def sandbox(self):
        return SimpleNamespace(run_batch=Remote(self._never))

    async def _answers(self, questions, n, sampling, seed, kinds):
        right = [str(int(q.split()[2]) + 1) for q in questions]
        return [[rf"\boxed{{{a if i % 2 == 0 else 77}}}" for i in range(n)] for a in right]

    async def _never(self, requests):
        raise AssertionError("numbers are compared without a sandbox")


def run(root, cluster, benchmark, *settings):
    config = load(None, [f"evaluate.benchmark={benchmark}", "evaluate.samples=4", "evaluate.problems=null", *settings])
    directory = RunDir.open(root, config)
    try:
        with Metrics(directory) as metrics, Progress() as progress:
            return asyncio.run(evaluate.run(Context(config, directory, cluster, metrics, progress)))
    finally:
        directory.close()


@pytest.fixture
def benchmark(tmp_path):
    path = tmp_path / "b.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "setting, name",
    [
        ("evaluate.model={path: mini:solver}", "mini:solver"),
        ("evaluate.model={endpoint: {base_url: http://x/v1, model: big}}", "big"),
    ],
)
def test_any_model_on_any_benchmark_to_a_score_and_its_answers(tmp_path, benchmark, setting, name):
    cluster = Cluster()
    result = run(tmp_path / "run", cluster, benchmark, setting)
    assert [m.path for m in cluster.asked] == [name]
    assert set(result) == set(STAGE_KEYS["evaluate"])
    assert (result["problems"], result["samples"], result["score"]["mean"]) == (50, 4, 0.5)
    assert (result["before"], result["after"], result["gain"]) == (None, None, None)
    (file,) = result["answers"]
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert [r["question"] for r in rows] == [f"What is {n} + 1?" for n in range(50)]
    assert rows[41]["outputs"] == [
        {"text": r"\boxed{42}", "judged": "equal"},
        {"text": r"\boxed{77}", "judged": "different"},
    ] * 2  # fmt: skip
    again = Cluster()
    assert run(tmp_path / "run", again, benchmark, setting) == result and again.asked == []


class Solver(Cluster):
    """The run's solver: before it is trained it adds one right in every second answer, afterwards in all answers to the
    problems from number 10 on."""

    def __init__(self):
        super().__init__()
        self.version, self.seeds = 0, []

    async def student(self):
        return SimpleNamespace(
            answers_many=Remote(self._answers), broadcast=lambda *_: SimpleNamespace(results_async=self._synced)
        )

    def weights(self, name):
        return None

    async def _synced(self):
        self.version += 1
        return []

    async def _answers(self, questions, n, sampling, seed, kinds):
        self.seeds.append((self.version, seed))
        known = [int(q.split()[2]) >= 10 and self.version > 1 for q in questions]
        plain = await super()._answers(questions, n, sampling, seed, kinds)
        return [[given[0]] * n if all_right else given for given, all_right in zip(plain, known, strict=True)]


def test_before_and_after_answer_with_the_same_seeds_and_the_gain_is_problem_by_problem(
    tmp_path, benchmark, monkeypatch
):
    monkeypatch.setattr(evaluate, "publish_checkpoint", lambda *_: 1)
    config = load(None, [f"evaluate.benchmark={benchmark}", "evaluate.samples=4", "evaluate.problems=null"])
    directory = RunDir.open(tmp_path / "run", config)
    directory.finish("solve", {"checkpoint": str(tmp_path)}, 1.0)
    directory.close()
    solver = Solver()
    result = run(tmp_path / "run", solver, benchmark)
    first, second = ([seed for version, seed in solver.seeds if version == v] for v in (1, 2))
    assert first == second and len(set(first)) == 2  # two calls of at most 40 problems, each with a seed of its own
    assert set(result) == set(STAGE_KEYS["evaluate"])
    assert result["gain"] == pytest.approx(0.4)
    found = result["paired"]
    assert (found["problems"], found["better"], found["worse"]) == (50, 40, 0)
    assert found["difference"] == pytest.approx(0.4)
    half = 1.96 * 0.2 / 50**0.5  # of 40 differences of 1/2 and 10 of 0
    assert found["interval"] == pytest.approx([0.4 - half, 0.4 + half], abs=0.01)


def test_without_a_model_it_needs_the_runs_solver(tmp_path, benchmark):
    with pytest.raises(Failure, match="stage solve is not done"):
        run(tmp_path / "run", Cluster(), benchmark)


def test_a_preset_reads_the_publishers_file_with_shots_and_keeps_every_sample(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": f"It is <<{n}+1={n + 1}>>.\n#### {n + 1}"} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cluster = Cluster()
    settings = ("evaluate.model={path: mini:solver}", "evaluate.preset=gsm8k")
    result = run(tmp_path / "run", cluster, path, *settings)
    figures = result["score"]["measures"]
    assert figures["mean@4"]["value"] == figures["maj@4"]["value"] == 0.5
    assert figures["pass@2"]["value"] == pytest.approx(5 / 6) and figures["best@4"]["value"] == 1.0
    assert (figures["samples"], figures["no_answer"], figures["unknown"]) == (24, 0, 0)
    (step,) = RunDir.look(tmp_path / "run").steps("evaluate")
    table = items.read(step / items.FILE).to_pylist()
    assert [(t["sample"], t["given"], t["judged"]) for t in table[4:8]] == [
        (0, "2", "equal"), (1, "77", "different"), (2, "2", "equal"), (3, "77", "different")
    ]  # fmt: skip
    with pytest.raises(Failure, match="no field problem"):
        run(tmp_path / "other", cluster, path, *settings[:1], "evaluate.preset=math-500")
