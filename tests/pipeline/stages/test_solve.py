"""A step of the solver's training: what cannot be answered costs its own group, and everything has its end."""

import asyncio
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.execution import Executor
from actors.solver import Completion
from pipeline.config.loading import load
from pipeline.flow.context import Context
from pipeline.flow.mixture import Mixture, Source
from pipeline.pools.buffer import RolloutBuffer
from pipeline.records import Failure, Lost, Problem, Rollout
from pipeline.scoring.problems import of_row, read, text
from pipeline.stages import solve
from pipeline.store.ledger import Entry
from pipeline.store.manifest import seal_folder
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from pipeline.watch import retry
from tests.actors.pools import sandbox
from tests.pipeline.judged import Remote, rollout

PROBLEMS = [Problem.make(f"What is {n} + 0?", str(n)) for n in range(4)]


TWELVE = [Problem.make(f"What is {n} + 0?", str(n)) for n in range(12)]


class Student:
    """Answers right and wrong by turns, and sends its rollouts to a real buffer; fails where `fails` says how often."""

    def __init__(self, fails, right=r"\boxed{{{}}}", knows=lambda number, i: i % 2):
        self.knows = knows
        self.sample, self.fails, self.right, self.buffer = Remote(self._sample), fails, right, RolloutBuffer()
        self.drop, self.write = Remote(self.buffer.drop), Remote(self.buffer.write)

    async def _sample(self, group, question, n, sampling, seed, attempt, kind):
        number = question.split()[2]
        for i in range(n):
            await self.buffer.put(f"{group}/{i}", attempt, Rollout.to_arrow([rollout(f"{group}/{i}", attempt, group)]))
        failures = self.fails.get(number, [None])
        if failure := failures.pop(0) if len(failures) > 1 else failures[0]:
            raise failure
        right = self.right.format(number)
        return [
            Completion(f"{group}/{i}", attempt, right if self.knows(number, i) else r"\boxed{77}", 4, False)
            for i in range(n)
        ]


async def never(_):
    raise AssertionError("numbers are compared without a sandbox")


def step(root, student, monkeypatch, problems=PROBLEMS, run_batch=never, number=1, settings=()):
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)
    config = load(None, ["solve.problems=4", "solve.group_size=2", "episode.attempts=3", *settings])
    run = RunDir.open(root, config)
    with Metrics(run) as metrics:
        cluster = SimpleNamespace(buffer=lambda: student)
        context = Context(config, run, cluster, metrics, None)
        watchdog = SimpleNamespace(beat=lambda _: None)
        asked = Mixture([Source("p.jsonl", 1.0, problems)], context.rng)
        work = solve._step(context, solve.Sampler(context, student, watchdog), Executor(run_batch), asked, number, {})
        asyncio.run(asyncio.wait_for(work, 20))
    run.close()
    return run


def group_of(student, number):
    return next(group for group, question, *_ in student.sample.calls if question == PROBLEMS[number].question)


def test_a_problem_that_cannot_be_asked_costs_its_own_group(tmp_path, monkeypatch):
    student = Student({"1": [Failure("prompt of 999 tokens", "data_error")], "2": [Lost("gone")]})
    run = step(tmp_path, student, monkeypatch)
    bad, deadly = group_of(student, 1), group_of(student, 2)
    tries = [group for group, *_ in student.sample.calls]
    assert (tries.count(bad), tries.count(deadly), len(tries)) == (1, 3, 6)
    (folder,) = run.steps("solve")
    trained = read_records(folder / "rollouts.parquet", Rollout)
    assert {r.group_id for r in trained} == set(tries) - {bad, deadly}
    assert [r.terminal_reward for r in trained] == [0.0, 1.0] * 2
    assert {e.end for e in read_records(folder / "ledger.parquet", Entry)} == {"trained"}
    assert student.buffer._waiting == {}
    saved = json.loads(run.path("quarantine", "solve", f"{deadly}/0.json").read_text())
    assert Problem(**saved["problem"]) == PROBLEMS[2] and len(saved["deaths"]) == 3
    assert not run.path("quarantine", "solve", f"{bad}/0.json").exists()


def test_an_answer_that_was_lost_is_asked_for_again_under_the_next_number(tmp_path, monkeypatch):
    student = Student({"3": [Failure("student: no answer", "infra_error"), None]})
    run = step(tmp_path, student, monkeypatch)
    trained = read_records(run.steps("solve")[0] / "rollouts.parquet", Rollout)
    assert sorted(r.attempt for r in trained) == [1] * 6 + [2] * 2
    assert student.buffer._waiting == {}


def test_a_step_whose_replicas_all_died_may_begin_again(tmp_path, monkeypatch):
    student = Student({str(n): [Lost("its replica is gone")] for n in range(4)})
    with pytest.raises(Lost, match="no answer of step 1 could be judged; its replica is gone"):
        step(tmp_path, student, monkeypatch)


def test_a_step_without_any_answer_ends_the_run_with_the_cause_and_is_not_written(tmp_path, monkeypatch):
    student = Student({str(n): [Failure("prompt of 999 tokens", "data_error")] for n in range(4)})
    with pytest.raises(Failure, match=r"^solve: no answer of step 1 could be judged; prompt of 999 tokens$"):
        step(tmp_path, student, monkeypatch)
    assert RunDir(tmp_path).steps("solve") == []


def test_a_program_earns_its_reward_by_the_checks_of_its_problem(tmp_path, monkeypatch):
    """As they come out of the file of the data set."""
    numbers = range(4)
    checks = [[json.dumps({"entry": "f", "args": [x], "expected": x + n}) for x in (1, 5)] for n in numbers]
    made = [Problem.make(f"Add to {n} x: f(x).", f"def f(x): return {n} + x", "code", checks[n]) for n in numbers]
    path = tmp_path / "problems.jsonl"
    path.write_text(text(made))
    pool, handle = sandbox()
    try:
        student = Student({}, right="So:\n```python\ndef f(x):\n    return x + {}\n```")
        run = step(tmp_path / "run", student, monkeypatch, [of_row(row) for row in read(path)], handle.run_batch.remote)
    finally:
        pool.close()
    trained = read_records(run.steps("solve")[0] / "rollouts.parquet", Rollout)
    assert [r.terminal_reward for r in trained] == [0.0, 1.0] * 4


@pytest.mark.parametrize(
    "settings, why",
    [
        (["solve.data=nowhere.jsonl"], r"nowhere\.jsonl: no such file"),
        ([], "stage synthesize is not done"),
        (["solve.base={endpoint: {base_url: http://x/v1, model: m}}"], r"solve\.base\.endpoint: .* cannot be trained"),
    ],
)
def test_without_problems_or_a_model_that_can_be_trained_it_is_refused(tmp_path, settings, why):
    config = load(None, settings)
    with pytest.raises(Failure, match=why):
        asyncio.run(solve.run(Context(config, RunDir.open(tmp_path / "run", config), None, None, None)))


def test_the_problems_of_a_file_are_what_is_trained_on(tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def produce(context, base, loader, problems, *_):
        raise Seen(problems)

    async def stop():
        pass

    monkeypatch.setattr(solve, "start_trainer", lambda *_: None)
    monkeypatch.setattr(solve, "_produce", produce)
    path = tmp_path / "p.jsonl"
    path.write_text(text(PROBLEMS))
    config = load(None, [f"solve.data={path}"])
    run = RunDir.open(tmp_path / "run", config)
    cluster = SimpleNamespace(actor=lambda *_: None, stop_writing=stop, weights=lambda _: None)
    with Metrics(run) as metrics, pytest.raises(Seen) as seen:
        asyncio.run(solve.run(Context(config, run, cluster, metrics, None)))
    (mixture,) = seen.value.args
    assert sorted((mixture.at(i) for i in range(len(PROBLEMS))), key=lambda p: p.question) == PROBLEMS


def test_after_a_warm_up_student_and_trainer_begin_with_what_it_left(tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    async def warmed(context, base, posed, dev):
        assert sorted(p.question for p in posed) == sorted(p.question for p in PROBLEMS if p not in dev)
        assert (base, len(dev)) == (context.domain.model("mini:solver"), 1)
        return tmp_path / "warm"

    def produce(context, base, loader, problems, *_):
        raise Seen(base)

    async def stop():
        pass

    specs = []
    monkeypatch.setattr(solve.warmup, "warmed", warmed)
    monkeypatch.setattr(solve, "start_trainer", lambda cluster, spec, *_: specs.append(spec))
    monkeypatch.setattr(solve, "_produce", produce)
    (tmp_path / "p.jsonl").write_text(text(PROBLEMS))
    config = load(None, [f"solve.data={tmp_path / 'p.jsonl'}", "solve.dev=1", "solve.warmup={}"])
    run = RunDir.open(tmp_path / "run", config)
    cluster = SimpleNamespace(actor=lambda *_: None, stop_writing=stop, weights=lambda _: None)
    with Metrics(run) as metrics, pytest.raises(Seen) as seen:
        asyncio.run(solve.run(Context(config, run, cluster, metrics, None)))
    assert seen.value.args == (tmp_path / "warm",) and specs[0].base_model == tmp_path / "warm"


def test_of_several_files_each_is_asked_as_often_as_its_weight_says(tmp_path):
    for name, rows in (("a", PROBLEMS), ("b", TWELVE[4:])):
        (tmp_path / f"{name}.jsonl").write_text(text(rows))
    files = f"{{path: {tmp_path}/a.jsonl, weight: 3}}, {{path: {tmp_path}/b.jsonl}}"
    config = load(None, [f"solve.mixture=[{files}]", "solve.dev=2", "solve.problems=5"])
    run = RunDir.open(tmp_path / "run", config)
    context = Context(config, run, None, None, None)
    sources = solve._sources(context)
    assert [source.weight for source in sources] == [3, 1]
    train, dev = solve._split(context, [p for source in sources for p in source.problems])
    left = solve._without(sources, dev)
    assert [p for source in left for p in source.problems] == train and len(train) == 10
    asked = [Mixture(left, context.rng).at(i) for i in range(40)]
    of_a = [p in PROBLEMS for p in asked]
    assert of_a.count(True) == 30 and not set(asked) & set(dev)
    with pytest.raises(Failure, match=r"leaves none of the 4 problems of .*a\.jsonl"):
        solve._without(sources, sources[0].problems)
    run.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["solve.mixture=[{path: a}]", "solve.data=b"], "data and mixture"),
        (["solve.mixture=[{path: a}, {path: a}]"], "a is named twice"),
        (["solve.mixture=[{}, {weight: 2}]"], "the data set of this run is named twice"),
        (["solve.mixture=[{path: a}]", "solve.band=[0.1, 0.9]"], "only the run's own data set says how hard"),
        (["solve.mixture=[{path: a, weight: 0}]"], "weight"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(settings, says):
    with pytest.raises(Failure, match=says):
        load(None, settings)


def test_a_mixture_without_the_runs_own_data_set_does_not_need_it():
    own = [load(None, s).solve.on_own_data for s in (
        [], ["solve.data=a"], ["solve.mixture=[{path: a}]"], ["solve.mixture=[{path: a}, {weight: 2}]"])]  # fmt: skip
    assert own == [True, False, False, True]


def easy(number, i):
    """All right, but one of two where the number divides by 3: four of twelve problems teach."""
    return int(number) % 3 != 0 or i % 2


def accounts(run, number):
    """Ends of a step's attempts by group."""
    entries = read_records(run.path("steps", "solve", f"{number:06d}", "ledger.parquet"), Entry)
    groups = {}
    for e in entries:
        groups.setdefault(e.id.rpartition("/")[0], set()).add(e.end)
    return entries, groups


def test_groups_that_teach_nothing_are_replaced_and_every_attempt_has_its_end(tmp_path, monkeypatch):
    student = Student({}, knows=easy)
    run = step(tmp_path, student, monkeypatch, TWELVE, settings=["solve.refill=10"])
    trained = read_records(run.path("steps", "solve", "000001", "rollouts.parquet"), Rollout)
    asked = {group: int(question.split()[2]) for group, question, *_ in student.sample.calls}
    taught = {group for group, number in asked.items() if number % 3 == 0}
    assert {r.group_id for r in trained} == taught and len(taught) >= 4
    assert sorted(r.terminal_reward for r in trained) == [0.0] * len(taught) + [1.0] * len(taught)
    entries, ends = accounts(run, 1)
    assert len(entries) == 2 * len(asked) == len(student.sample.calls) * 2
    assert ends == {group: {"trained"} if group in taught else {"filtered"} for group in asked}
    assert student.buffer._waiting == {}
    position = json.loads(run.path("steps", "solve", "000001", "state.json").read_text())["position"]
    assert position == len(asked)
    again = Student({}, knows=easy)  # the next step goes on in the data where this one ended, also after a restart
    step(tmp_path, again, monkeypatch, TWELVE, number=2, settings=["solve.refill=10"])
    shown = [int(question.split()[2]) for _, question, *_ in student.sample.calls + again.sample.calls]
    assert sorted(shown[:12]) == list(range(12))


@pytest.mark.parametrize("refill, most", [(0, 4), (0.5, 6), (1, 8)])
def test_the_extra_cost_is_bounded_and_without_refill_every_group_is_trained_on(tmp_path, monkeypatch, refill, most):
    student = Student({}, knows=lambda number, i: True)
    run = step(tmp_path, student, monkeypatch, TWELVE, settings=[f"solve.refill={refill}"])
    assert len(student.sample.calls) == most
    _, ends = accounts(run, 1)
    assert set.union(*ends.values()) == {
        "trained"
    }  # none teaches: the step keeps its number, without a gradient of its own


def test_a_band_takes_the_problems_that_the_prober_found_so_hard(tmp_path):
    config = load(None, ["solve.band=[0.1, 0.9]"])
    run = RunDir.open(tmp_path, config)
    rates = [0.0, 0.1, 0.5, 1.0]
    run.write_text("dataset/provenance.jsonl", "".join(json.dumps({"pass_rate": r}) + "\n" for r in rates))
    seal_folder(run.path("dataset"), "dataset", ("provenance.jsonl",), made_from={})
    context = Context(config, run, None, None, None)
    assert solve._within_band(context, PROBLEMS) == PROBLEMS[1:3]
    narrow = Context(load(None, ["solve.band=[0.6, 0.9]"]), run, None, None, None)
    with pytest.raises(Failure, match=r"solve\.band \(0\.6, 0\.9\): no rate of the data set's 4 problems is within"):
        solve._within_band(narrow, PROBLEMS)
    run.close()


def test_dev_problems_are_apart_and_the_best_checkpoint_by_them_is_the_solver(tmp_path):
    context = Context(load(None, ["solve.dev=3"]), None, None, None, None)
    train, dev = solve._split(context, TWELVE)
    assert len(dev) == 3 and sorted(train + dev, key=lambda p: int(p.answer)) == TWELVE
    assert solve._split(context, TWELVE) == (train, dev)
    with pytest.raises(Failure, match=r"solve\.dev \(12\) must be below the number of problems \(12\)"):
        solve._split(Context(load(None, ["solve.dev=12"]), None, None, None, None), TWELVE)
    last = Path("/run/checkpoints/solve/step-000010")
    assert solve._best({}, last) == last
    assert solve._best({"0": 0.9, "4": 0.5, "8": 0.6, "10": 0.4}, last) == last.with_name("step-000008")
    assert solve._best({"0": 0.1, "4": 0.6, "8": 0.6, "10": 0.4}, last) == last.with_name("step-000008")


class Sitting:
    """A student that answers `n` times what it knows, and fails where `fails` says how often."""

    def __init__(self, fails=None):
        self.answers, self.fails = Remote(self._answers), fails or {}

    async def _answers(self, question, n, sampling, seed, kind):
        number = question.split()[2]
        if self.fails.get(number):
            raise self.fails[number].pop(0)
        return [rf"\boxed{{{number}}}"] * n


def dev_score(root, student, monkeypatch, dev=PROBLEMS):
    """(score, what is logged, how often the watchdog was told)"""
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)
    config = load(None, ["solve.dev_samples=2", "episode.attempts=3"])
    told, logged = [], []
    context = Context(config, None, None, SimpleNamespace(log=lambda *facts: logged.append(facts)), None)
    watchdog = SimpleNamespace(beat=told.append)
    found = asyncio.run(solve._dev_score(context, student, Executor(never), dev, watchdog, 3))
    return found, logged, len(told)


def test_a_dev_problem_that_is_not_answered_ends_nothing(tmp_path, monkeypatch):
    student = Sitting({"1": [Failure("prompt of 999 tokens", "data_error")], "2": [Lost("gone")] * 2})
    found, ((name, step, facts),), told = dev_score(tmp_path, student, monkeypatch)
    assert (found, name, step, facts["mean"], facts["unanswered"]) == (3 / 4, "solve-dev", 3, 3 / 4, 1.0)
    seeds = {}
    for question, n, _, seed, _ in student.answers.calls:
        assert n == 2
        seeds.setdefault(question, []).append(seed)
    assert [len(seeds[p.question]) for p in PROBLEMS] == [1, 1, 3, 1]
    assert len({seed for own in seeds.values() for seed in own}) == 4  # the same one when it is asked again
    assert told == 1 + 3


def test_a_dev_problem_that_infrastructure_fails_is_no_wrong_answer(tmp_path, monkeypatch):
    found, ((_, _, facts),), _ = dev_score(tmp_path, Sitting({"2": [Lost("gone")] * 3}), monkeypatch)
    assert (found, facts["unanswered"]) == (1.0, 1.0)
    with pytest.raises(Lost, match="gone"):
        dev_score(tmp_path, Sitting({str(n): [Lost("gone")] * 3 for n in range(4)}), monkeypatch)


def test_dev_is_scored_at_each_checkpoint_and_what_was_scored_is_read_back(tmp_path, monkeypatch):
    """Two steps, and after a restart two more."""
    scored = []

    class Sync:
        def __init__(self, *_):
            self.reached = self.follow = self._at_once

        async def _at_once(self, _):
            pass

    async def done(*_):
        pass

    async def dev_score(context, student, executor, dev, watchdog, step):
        assert dev == TWELVE[10:]
        scored.append(step)
        return step / 10

    monkeypatch.setattr(solve, "WeightSync", Sync)
    monkeypatch.setattr(solve, "_dev_score", dev_score)
    student = Student({})

    async def pool(of):
        return of

    cluster = SimpleNamespace(
        buffer=lambda: student,
        student=lambda base: pool(student),
        sandbox=lambda: pool(SimpleNamespace(run_batch=Remote(never))),
    )
    loader = SimpleNamespace(release=Remote(done), finish=Remote(done))
    progress = SimpleNamespace(stage=lambda *_: nullcontext(SimpleNamespace(advance=lambda *_, **__: None)))
    found = []
    for steps in (2, 4):
        config = load(None, [f"solve.steps={steps}", "solve.problems=2", "solve.group_size=2",
                             "solve.checkpoint_every=2", "solve.dev=2"])  # fmt: skip
        run = RunDir(tmp_path) if found else RunDir.open(tmp_path, config)
        with Metrics(run) as metrics:
            context, scores = Context(config, run, cluster, metrics, progress), {}
            asked = Mixture([Source("p.jsonl", 1.0, TWELVE[:10])], context.rng)
            work = solve._produce(context, tmp_path, loader, asked, TWELVE[10:], scores)
            asyncio.run(asyncio.wait_for(work, 20))
        found.append(scores)
    assert scored == [0, 2, 2, 4]
    assert found == [{"0": 0.0, "2": 0.2}, {"0": 0.0, "2": 0.2, "4": 0.4}]
    assert len(RunDir(tmp_path).steps("solve")) == 4


def test_where_all_answers_are_cut_off_and_masked_the_setting_is_named(tmp_path, monkeypatch):
    class Long(Student):
        async def _sample(self, *asked):
            return [replace(c, truncated=True) for c in await super()._sample(*asked)]

    why = r"fewer than 2 answers end within solve\.sampling\.max_tokens \(\d+\), and solve\.overlong \(mask\)"
    with pytest.raises(Failure, match=why) as raised:
        step(tmp_path / "mask", Long({}), monkeypatch, settings=["solve.overlong=mask"])
    assert raised.value.kind == "data_error"
    run = step(tmp_path / "wrong", Long({}), monkeypatch, settings=["solve.overlong=wrong"])
    assert len(read_records(run.steps("solve")[0] / "rollouts.parquet", Rollout)) == 8


@pytest.mark.parametrize(
    "settings, why",
    [
        (["solve.band=[0.5, 0.5]"], r"must have its lower end below"),
        (["solve.band=[0.1, 0.9]", "solve.data=x.jsonl"], "only the run's own data set says how hard"),
    ],
)
def test_bands_that_mean_nothing_are_refused(settings, why):
    with pytest.raises(Failure, match=why):
        load(None, settings)
