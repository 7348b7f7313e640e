"""A model measured alone, on a file of problems: its score, and its answer to every item."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipeline.commands import measured
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
        return [[(rf"\boxed{{{a if i % 2 == 0 else 77}}}", False) for i in range(n)] for a in right]

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
    assert [figures[name] for name in ("samples", "truncated", "no_answer", "unknown")] == [24, 0, 0, 0]
    (step,) = RunDir.look(tmp_path / "run").steps("evaluate")
    table = items.read(step / items.FILE).to_pylist()
    assert [(t["sample"], t["given"], t["judged"]) for t in table[4:8]] == [
        (0, "2", "equal"), (1, "77", "different"), (2, "2", "equal"), (3, "77", "different")
    ]  # fmt: skip
    with pytest.raises(Failure, match="no field problem"):
        run(tmp_path / "other", cluster, path, *settings[:1], "evaluate.preset=math-500")


class Several(Cluster):
    """Models that are served in turn: `good` is always right; `cut` is cut off, with an answer to even numbers only;
    `mute` says nothing to the point; any other is right every second time."""

    dies_at = None

    async def _answers(self, questions, n, sampling, seed, kinds):
        name = self.asked[-1].path
        if name == self.dies_at:
            raise Failure("no more", "infra_error")
        plain = await super()._answers(questions, n, sampling, seed, kinds)
        if name == "good":
            return [[given[0]] * n for given in plain]
        if name == "cut":
            even = [int(q.split()[2]) % 2 == 0 for q in questions]
            return [[(given[0][0] if e else "Let", True)] * n for given, e in zip(plain, even, strict=True)]
        return [[("I do not know.", False)] * n for _ in plain] if name == "mute" else plain


SEVERAL = "evaluate.models=[{path: plain}, {path: good}, {endpoint: {base_url: http://x/v1, model: cut}}, {path: mute}]"


def test_several_models_are_each_told_and_compared_with_those_before(tmp_path, benchmark):
    cluster = Several()
    result = run(tmp_path / "run", cluster, benchmark, SEVERAL)
    assert [m.path for m in cluster.asked] == ["plain", "good", "cut", "mute"]
    assert set(result) == set(STAGE_KEYS["evaluate"])
    assert {n: r["mean"] for n, r in result["models"].items()} == {"plain": 0.5, "good": 1, "cut": 0.5, "mute": 0}
    assert [result[name] for name in ("before", "after", "gain", "paired", "score")] == [None] * 5
    apart = {n: [r["measures"][k] for k in ("truncated", "no_answer", "unknown")] for n, r in result["models"].items()}
    assert apart == {"plain": [0, 0, 0], "good": [0, 0, 0], "cut": [200, 0, 0], "mute": [0, 200, 0]}
    assert list(result["pairs"]) == [
        "plain ~ good", "plain ~ cut", "plain ~ mute", "good ~ cut", "good ~ mute", "cut ~ mute"
    ]  # fmt: skip
    won, lost, even = (result["pairs"][f"{pair}"] for pair in ("plain ~ good", "good ~ cut", "plain ~ cut"))
    assert (won["difference"], won["better"], won["worse"]) == (0.5, 50, 0) and won["p"] < 0.01
    assert won["verdict"].startswith("good is better: +50.0 points")
    assert (lost["better"], lost["worse"]) == (0, 25) and lost["verdict"].startswith("cut is worse")
    assert (even["difference"], even["better"], even["worse"]) == (0, 25, 25) and "no difference" in even["verdict"]
    for name, found in result["models"].items():
        kept = items.items_of(items.read(Path(found["items"])))
        assert sum(item.share for item in kept.values()) / 50 == found["mean"], name
    steps = RunDir.look(tmp_path / "run").steps("evaluate")
    assert not (steps[0] / items.CHANGED_FILE).exists()
    changed = pq.read_table(steps[2] / items.CHANGED_FILE).to_pylist()
    assert [sum(row["against"] == name for row in changed) for name in ("plain", "good")] == [50, 25]
    by_question = {row["question"]: (row["before"], row["after"]) for row in changed if row["against"] == "good"}
    assert by_question == {f"What is {n} + 1?": (1.0, 0.0) for n in range(1, 50, 2)}


def test_a_model_that_is_measured_is_not_asked_again(tmp_path, benchmark):
    first = Several()
    first.dies_at = "cut"
    with pytest.raises(Failure, match="no more"):
        run(tmp_path / "run", first, benchmark, SEVERAL)
    second = Several()
    result = run(tmp_path / "run", second, benchmark, SEVERAL)
    assert [m.path for m in second.asked] == ["cut", "mute"]
    whole = run(tmp_path / "other", Several(), benchmark, SEVERAL)
    assert result["pairs"] == whole["pairs"]
    one, other = (
        pq.read_table(RunDir.look(tmp_path / name).steps("evaluate")[2] / items.CHANGED_FILE)
        for name in ("run", "other")
    )
    assert one == other


def test_one_model_twice_has_two_names_and_two_ways_to_say_what_is_measured_are_refused(tmp_path, benchmark):
    twice = "evaluate.models=[{path: plain}, {path: plain, engine: {dtype: float32}}]"
    result = run(tmp_path / "run", Several(), benchmark, twice)
    assert list(result["models"]) == ["plain", "plain (2)"] and result["pairs"]["plain ~ plain (2)"]["difference"] == 0
    with pytest.raises(Failure, match="model and models"):
        run(tmp_path / "other", Several(), benchmark, twice, "evaluate.model={path: plain}")


def test_the_command_line_names_models_of_every_sort_and_leaves_the_run_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(None, ["name=mine", "solve.base.engine.kv_cache_gb=2", "solve.base.pool.max_ongoing=7"])
    root = tmp_path / "runs" / "a-run"
    RunDir.open(root, config).close()
    named = ["some/folder", "owner/name@main", "Qwen@4@http://h:8/v1"]
    made, place = measured.of(str(root), None, ["seed=3"], None, named)
    models = made.evaluate.models
    assert [m.path for m in models] == ["some/folder", "owner/name@main", "Qwen@4"]
    assert [(m.engine.kv_cache_gb, m.pool.max_ongoing) for m in models[:2]] == [(2, 7)] * 2
    assert (models[2].endpoint.base_url, models[2].endpoint.model) == ("http://h:8/v1", "Qwen@4")
    assert (made.seed, made.name, place.parent) == (3, "mine-measured", root.parent) and place.name.startswith(
        made.name
    )
    RunDir.open(place, made).close()
    assert measured.of(None, None, None, str(place), named) == (made, place), "the same again goes on"
    for wrong in ("", "http://h:8/v1"):
        with pytest.raises(Failure, match="expected a folder, a name on the Hub, or MODEL@http"):
            measured.of(str(root), None, None, None, [wrong])
    with pytest.raises(Failure, match="expected one of the two"):
        measured.of(None, None, ["evaluate.model={path: x}"], None, ["y"])
