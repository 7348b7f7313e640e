"""What an arm of the ablation is worth: episodes measured, interrupted and resumed; solvers of its problems."""

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.commands.ablation import measure
from pipeline.commands.ablation.grid import Budget, counts
from pipeline.commands.ablation.measure import METRICS
from pipeline.config import loading
from pipeline.domains.mini import generate as mini
from pipeline.domains.mini.combinations import is_heldout
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.records import Episode, Failure, Lost, Skill, Stalled
from pipeline.scoring import problems
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages import synthesize
from pipeline.store.ledger import Journal, journal_path
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from pipeline.watch.progress import Progress
from tests.pipeline.judged import verdict
from tests.pipeline.stages.test_synthesize import Pools


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Arm(Pools):
    """Pools as a cluster that notes its restarts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, seconds=lambda n: 0.001 * (7 - n % 7), **kwargs)  # they end in another order
        self.restarts = []

    async def guarded(self, work):
        return await work

    async def restart(self, whole):
        self.restarts.append(whole)


def measured(root, pools, downstream=0, sets=(), name="measure"):
    config = loading.load(None, ["synthesize.in_flight=4", *sets])
    run = RunDir.open(root, config)
    try:
        with Metrics(run) as metrics, Progress() as progress:
            SkillLibrary(
                Skill(
                    id=s.id, category=s.category, intent=s.id, method="a\n\nb", difficulty="d", tool_hint="t",
                    score=0.9, source="s",
                )
                for s in SKILLS
            ).save(run.path("skills"))  # fmt: skip
            context = Context(config, run, pools, metrics, progress)
            figures = asyncio.run(measure.run(context, Path("nowhere"), 12, name))
            if downstream:
                found = asyncio.run(measure.solver(context, Path("nowhere"), Budget(episodes=downstream)))
                figures |= {"solver": found.pop("score"), "source": found}
            return figures
    finally:
        run.close()


def test_an_arm_is_worth_what_its_episodes_say(tmp_path):
    """Of twelve episodes of ten tokens every third is rejected; a prober gets half of its samples of the others right,
    and has a Pass@k of 0.25."""
    pools = Arm(lambda n: n)
    found = measured(tmp_path / "r", pools)
    assert (found["verified_rate"], found["difficulty"]) == (pytest.approx(8 / 12), 0.75)
    assert found["hard_yield_per_1k"] == pytest.approx(1000 * 8 * 0.75 / (12 * 10))
    assert found["solved_yield_per_1k"] == pytest.approx(1000 * 8 * 0.5 / (12 * 10))  # the rate pays
    assert found["unsolved_rate"] == 0
    assert found["diversity"] == 0  # "Problem 1?", "Problem 2?"
    assert set(METRICS) - {"solver"} <= set(found)
    assert pools.waiting == set()
    assert measured(tmp_path / "r", Arm(break_at=0)) == found  # read back, not played again


def test_what_an_interrupted_measurement_had_played_is_played_again(tmp_path):
    with pytest.raises(RuntimeError, match="interrupted"):
        measured(tmp_path / "r", Arm(lambda n: n, break_at=7))
    assert measured(tmp_path / "r", Arm(lambda n: n))["verified_rate"] == pytest.approx(8 / 12)


def test_a_measurement_that_loses_a_process_begins_again_with_new_pools(tmp_path):
    """As a stage does: what dies costs what one arm had played, not the grid."""

    class Forgets(Arm):
        async def _clear(self):
            if not self.restarts:
                raise Lost("rollout buffer: ActorDiedError")
            await super()._clear()

    pools = Forgets(lambda n: n)
    assert measured(tmp_path / "r", pools)["verified_rate"] == pytest.approx(8 / 12)
    assert pools.restarts == [True]
    events = Journal.read(journal_path(RunDir(tmp_path / "r"), "measure", 1)).events
    assert [e["attempt"] for e in events if e["event"] == "issue"] == [1] * 12 + [2] * 12


def test_a_measurement_that_hangs_says_where_and_what_failed_was_no_progress(tmp_path):
    class Hangs(Arm):
        async def _episode(self, task, attempt):
            if task.id.endswith("-0001-00"):
                raise Failure("chat format: no such token", "data_error")
            return await super()._episode(task, attempt)

        async def _judge(self, problem, played, active):
            await asyncio.sleep(60)

    line = r"^measure: no progress for 1 s; waited for the first result; committee 4; oldest measure-000001-"
    with pytest.raises(Stalled, match=line):
        measured(tmp_path / "r", Hangs(), sets=["watchdog_s=1", "on_stall=fail"])


def test_the_solver_gets_the_distinct_problems_of_combinations_that_are_not_held_out(tmp_path, monkeypatch):
    async def stage(context, name):
        return await synthesize.run(context) if name == "synthesize" else {"after": {"mean": 0.4}}

    monkeypatch.setattr("pipeline.stages.run", stage)
    pools = Arm(wave=4)
    found = measured(tmp_path / "r", pools, downstream=9)
    assert found["solver"] == 0.4
    assert found["source"] == {"problems": 5, "episodes": 9, "tokens": 90, "validity": pytest.approx(6 / 9)}
    rows = [json.loads(line) for line in (tmp_path / "r/dataset/problems.jsonl").read_text().splitlines()]
    accepted = [n for n in range(9) if n % 3]
    assert [r["question"] for r in rows] == [f"Problem {i}?" for i in dict.fromkeys(n // 2 for n in accepted)]
    heldout = {
        stage: [
            is_heldout([s.id for s in e.task.skills])
            for folder in sorted((tmp_path / "r/steps" / stage).iterdir())
            for e in read_records(folder / "episodes.parquet", Episode)
        ]
        for stage in ("measure", "synthesize")
    }
    assert all(heldout["measure"]) and not any(heldout["synthesize"])


def test_an_arm_without_data_is_the_base_solver(tmp_path, monkeypatch):
    async def stage(context, name):
        assert (name, context.config.evaluate.model) == ("evaluate", context.config.solve.base)
        return {"score": {"mean": 0.3}}

    monkeypatch.setattr("pipeline.stages.run", stage)
    context = Context(loading.load(None), None, None, None, None)
    assert asyncio.run(measure.untrained(context)) == {"score": 0.3}


def test_the_generators_problems_are_right_and_of_no_combination_of_the_benchmark(tmp_path, monkeypatch):
    learned = {}

    async def stage(context, name):
        if name == "solve":
            learned["rows"] = problems.read(Path(context.config.solve.data))
            assert context.config.solve.band == (0.0, 1.0)
        return {"after": {"mean": 0.5}}

    monkeypatch.setattr("pipeline.stages.run", stage)
    config = loading.load(None, ["solve.band=[0.1, 0.9]"])
    run = RunDir.open(tmp_path / "r", config)
    try:
        found = asyncio.run(measure.of_generator(Context(config, run, None, None, None), 60))
        assert asyncio.run(measure.of_generator(Context(config, run, None, None, None), 0))["score"] is None
    finally:
        run.close()
    assert found == {"score": 0.5, "problems": 60, "validity": 1.0}
    texts = [mini.read(row["question"]) for row in learned["rows"]]
    assert len(texts) == len({t.question for t in texts}) == 60
    assert all(
        (t.answer, t.answer_kind) == (r["answer"], r["answer_kind"])
        for t, r in zip(texts, learned["rows"], strict=True)
    )
    assert not any(is_heldout(t.skills) for t in texts)


def test_tasks_and_their_seeds_are_the_same_whatever_is_measured(tmp_path):
    """Common random numbers: of an arm's end, of an arm at equal tokens, of another arm."""
    found = []
    for number, name in enumerate(("measure", "measure-rho")):
        pools = Arm(lambda n: n)
        measured(tmp_path / str(number), pools, name=name)
        (step,) = (tmp_path / str(number) / "steps" / name).iterdir()
        found.append([e.task for e in read_records(step / "episodes.parquet", Episode)])
    assert found[0] == found[1] and len({task.seed for task in found[0]}) == 12


def test_a_budget_ends_synthesis_by_itself():
    assert Budget(episodes=9).settings == {"target": 9, "max_episodes": 9, "target_episodes": 9}
    assert Budget(tokens=500).settings == {"target": 500, "max_episodes": 500, "target_tokens": 500}
    assert not Budget() and not counts(None, None, 0, None, False).downstream
    own = counts(1, 5, None, 700, True)
    assert (own.seeds, own.episodes, own.downstream) == (1, 5, Budget(tokens=700))
    with pytest.raises(Failure, match="expected one of the two"):
        counts(None, None, 4, 700, False)


def test_an_arm_that_writes_nothing_sound_has_no_solver(tmp_path, monkeypatch):
    async def stage(context, name):
        assert name == "synthesize"
        return await synthesize.run(context)

    monkeypatch.setattr("pipeline.stages.run", stage)

    class Hopeless(Arm):
        async def _judge(self, problem, played, active):
            return verdict(played, "rejected")

    found = measured(tmp_path / "r", Hopeless(wave=4), downstream=4)
    assert (found["verified_rate"], found["hard_yield_per_1k"]) == (0, 0)
    assert (found["difficulty"], found["diversity"], found["solver"]) == (None, None, None)
