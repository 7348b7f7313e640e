"""Synthesis over pools that write by rule: distinct problems, the first of them, and the same after an interruption."""

import asyncio
import json
import shutil
from types import SimpleNamespace

import pytest

from pipeline.commands import dataset
from pipeline.commands.keys import STAGE_KEYS
from pipeline.config.loading import load
from pipeline.dataset import matching
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.flow.tasks import make_curriculum
from pipeline.records import GONE, Episode, Failure, Halt, Probe, Skill, Verdict
from pipeline.skills.extraction import SkillLibrary
from pipeline.skills.probing import Ladder
from pipeline.stages import synthesize
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_keyed, write_records
from pipeline.watch.progress import Progress
from tests.pipeline import virtual
from tests.pipeline.judged import Remote, episode, probe, verdict

WAVE = 8


class Pools:
    """Writes problem `number(n)` for the n-th task of the run; every third is rejected. The n-th takes `seconds(n)`.
    Can be told to break."""

    def __init__(self, number=lambda n: n // 2, seconds=lambda n: 7 - n % 7, wave=WAVE, break_at=None):
        self._number, self._seconds, self._wave, self._break_at = number, seconds, wave, break_at
        self.waiting, self.begun, self.played = set(), [], []
        self.cancelled, self.most, self._now = [], 0, 0
        self.episode, self.judge, self.judge_many, self.probe, self.drop, self.clear = (
            Remote(f) for f in (self._episode, self._judge, self._judge_many, self._probe, self._drop, self._clear)
        )

    async def _this(self, *_):
        return self

    proposer = writer = committee = prober = _this

    def buffer(self):
        return self

    async def sandbox_stats(self):
        return {"level": "strong"}

    async def _episode(self, task, attempt):
        _, wave, group, _ = task.id.split("-")
        n = (int(wave) - 1) * self._wave + int(group)
        self.begun.append(n)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(self._seconds(n))
        except asyncio.CancelledError:
            self.cancelled.append(n)
            raise
        finally:
            self._now -= 1
        if n == self._break_at:
            raise RuntimeError("interrupted here")
        self.waiting.add((task.id, attempt))
        self.played.append(n)
        return episode(
            task, attempt, question=f"Problem {self._number(n)}?", answer=str(n), active=[s.id for s in task.skills]
        )

    async def _judge(self, problem, played, active):
        return verdict(played, "rejected" if int(problem.answer) % 3 == 0 else "accepted")

    async def _judge_many(self, cases):  # the spoiled problems of the spot check
        return [verdict(SimpleNamespace(submitted=problem), "rejected") for problem, _, _ in cases]

    async def _probe(self, problem, prober, seed, enough=1):
        return probe(SimpleNamespace(submitted=problem), pass_at_k=0.25)

    async def _drop(self, keys):
        self.waiting -= set(keys)

    async def _clear(self):
        self.waiting.clear()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "run"


def run(root, pools, target=10, most=400, wave=WAVE, sets=(), play=virtual.run):
    config = load(
        None,
        [f"synthesize.target={target}", f"synthesize.in_flight={wave}", f"synthesize.max_episodes={most}", *sets],
    )
    directory = RunDir.open(root, config)
    try:
        with Metrics(directory) as metrics, Progress() as progress:
            context = Context(config, directory, pools, metrics, progress)
            if directory.result("mgpo") is None:
                skills = [
                    Skill(
                        id=s.id, category=s.category, intent=s.id, method="a\n\nb", difficulty="d", tool_hint="t",
                        score=0.9, source="s",
                    )
                    for s in SKILLS
                ]  # fmt: skip
                SkillLibrary(skills).save(directory.path("skills"))
                state = {"curriculum": make_curriculum(context).state(), "ladder": Ladder().model_dump()}
                with directory.new_step("mgpo", 1) as folder:
                    (folder / "state.json").write_text(json.dumps(state))
                    write_records(folder / "episodes.parquet", [], Episode)
                    for name, of in (("verdicts", Verdict), ("probes", Probe)):
                        write_keyed(folder / f"{name}.parquet", {}, of)
                directory.finish("mgpo", {"checkpoint": "nowhere"}, 1.0)
            return play(synthesize.run(context))
    finally:
        directory.close()


def problems(root):
    return [json.loads(line) for line in (root / "dataset" / "problems.jsonl").read_text().split("\n") if line]


def by_hand(number, target):
    """The first accepted task of each problem, in the order of the tasks."""
    chosen, n = {}, 0
    while len(chosen) < target:
        if n % 3:
            chosen.setdefault(f"Problem {number(n)}?", str(n))
        n += 1
    return [{"question": q, "answer": a, "answer_kind": "math"} for q, a in chosen.items()]


def test_the_first_distinct_problems_in_the_order_of_the_tasks(root):
    pools = Pools(lambda n: n)
    result = run(root, pools, target=9)
    assert problems(root) == by_hand(lambda n: n, 9)
    assert (result["accepted"], result["episodes"]) == (9, 14)  # the ninth that three does not divide is 13
    assert result["validity"] == pytest.approx(9 / 14)
    assert sum(result["by_category"].values()) == 9
    assert (result["mean_pass_at_k"], result["mean_difficulty"]) == (0.25, 0.75)
    assert set(result) == set(STAGE_KEYS["synthesize"])
    assert pools.waiting == set()  # no rollout is left behind
    provenance = [json.loads(line) for line in (root / "dataset" / "provenance.jsonl").read_text().splitlines()]
    assert [p["episode_id"].split("-")[1:3] for p in provenance[:2]] == [["000001", "0001"], ["000001", "0002"]]
    assert len(provenance) == 9
    assert {p["sandbox_level"] for p in provenance} == {"strong"}


def test_a_repeated_question_counts_once(root):
    assert run(root, Pools(lambda n: n // 8 * 2 + n % 2), target=7)["accepted"] == 7  # two questions a wave
    assert len({p["question"] for p in problems(root)}) == len(problems(root)) == 7


def test_the_answer_of_a_question_is_the_one_that_was_accepted(root):
    """Two episodes of a wave ask the same; only one has the right answer."""
    run(root, Pools(lambda n: n // 2))
    assert problems(root) == by_hand(lambda n: n // 2, 10)


def test_interrupted_it_ends_with_the_same_data_set_and_plays_no_wave_twice(root, tmp_path):
    run(tmp_path / "whole", Pools(lambda n: n), target=20)
    with pytest.raises(RuntimeError, match="interrupted here"):
        run(root, Pools(lambda n: n, lambda n: 5 * (n // WAVE), break_at=2 * WAVE + 6), target=20)
    done = len(list((root / "steps" / "synthesize").iterdir()))
    rest = Pools(lambda n: n)
    run(root, rest, target=20)
    assert done >= 1 and min(rest.played) == done * WAVE
    for name in ("problems", "provenance"):
        assert (root / "dataset" / f"{name}.jsonl").read_text() == (
            tmp_path / "whole" / "dataset" / f"{name}.jsonl"
        ).read_text()


def test_done_but_for_the_export_it_plays_nothing(root):
    run(root, Pools(lambda n: n))
    before = problems(root)
    (root / "dataset" / "problems.jsonl").unlink()
    again = Pools(lambda n: n)
    run(root, again)
    assert (again.played, problems(root)) == ([], before)


def test_at_its_last_episode_it_exports_what_was_accepted_and_says_so(root):
    with pytest.raises(
        Failure, match=r"4 of 10 problems after synthesize\.max_episodes \(24\b.* the 4 problems .*jsonl"
    ):
        run(root, Pools(lambda n: n // 8 + n % 2), most=3 * WAVE)
    assert len(problems(root)) == 4
    assert run(root, Pools(lambda n: n), most=400)["accepted"] == 10  # and goes on from there


@pytest.fixture
def unwritten(root):
    """A run that has its steps and no data set; the files of the one that they make."""
    run(root, Pools(lambda n: n), target=9)
    whole = _files(root)
    shutil.rmtree(root / "dataset")
    return whole


def _files(root):
    return {p.name: p.read_bytes() for p in (root / "dataset").rglob("*") if p.is_file()}


def _ends_in(error, root, monkeypatch):
    async def fill(*_):
        raise error

    monkeypatch.setattr(synthesize, "_fill", fill)
    with pytest.raises(type(error)) as end:
        run(root, Pools(), target=9)
    assert end.value is error


def test_what_was_accepted_before_a_failure_is_exported(root, unwritten, monkeypatch, capsys):
    _ends_in(Failure("a pool is gone", "infra_error"), root, monkeypatch)
    assert _files(root) == unwritten
    assert {"README.md", "train-00000-of-00001.parquet", "provenance.parquet"} <= unwritten.keys()
    assert "the 9 problems accepted so far are in" in capsys.readouterr().err


def test_what_was_accepted_before_an_interrupt_is_exported(root, unwritten, monkeypatch, capsys):
    _ends_in(asyncio.CancelledError(), root, monkeypatch)
    assert _files(root) == unwritten
    assert "the 9 problems accepted so far are in" in capsys.readouterr().err


def test_an_interrupt_in_the_middle_of_the_work_leaves_a_data_set_of_whole_steps(root):
    async def interrupted(work):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(20)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(root, Pools(lambda n: n), target=400, play=lambda work: virtual.run(interrupted(work)))
    steps = RunDir.look(root).steps("synthesize")
    accepted = [n for n in range(len(steps) * WAVE) if n % 3]
    assert steps and [p["answer"] for p in problems(root)] == [str(n) for n in accepted]


def test_a_stage_that_begins_again_at_once_exports_nothing(root, unwritten, monkeypatch, capsys):
    _ends_in(asyncio.CancelledError(GONE), root, monkeypatch)
    assert not (root / "dataset").exists() and "accepted so far" not in capsys.readouterr().err


def test_where_an_interrupt_leaves_no_time_the_steps_have_it(root, unwritten, monkeypatch, capsys):
    """The process is ended some seconds after it, whatever it does."""
    monkeypatch.setattr(synthesize, "_INTERRUPTED_S", -1.0)
    _ends_in(asyncio.CancelledError(), root, monkeypatch)
    assert not (root / "dataset").exists()
    told = capsys.readouterr().err
    assert "in the steps alone: there is no time to read them all" in told and "propose dataset export" in told
    assert [(p.question, p.answer) for p in dataset.problems_of(root)] == [
        (p["question"], p["answer"]) for p in by_hand(lambda n: n, 9)
    ]


@pytest.mark.parametrize(
    ("owner", "name"), [(RunDir, "check_lock"), (synthesize.folder, "publish")], ids=["the lock is lost", "a full disk"]
)
def test_an_export_that_may_not_be_or_fails_hides_no_cause(root, unwritten, monkeypatch, capsys, owner, name):
    def fail(*_, **__):
        raise Failure("the second")

    monkeypatch.setattr(owner, name, fail)
    _ends_in(Failure("the first"), root, monkeypatch)
    assert not (root / "dataset").exists()
    assert "the problems accepted so far are in the steps alone: the second" in capsys.readouterr().err


def test_a_data_set_that_is_older_than_the_steps_is_not_taken_for_theirs(root, unwritten, capsys):
    """Left by a failure before the run went on, and was killed."""
    (root / "dataset").mkdir()
    (root / "dataset" / "problems.jsonl").write_text('{"question": "An old one, is it?", "answer": "1"}\n')
    (root / "dataset" / "README.md").write_text("An old card")
    assert len(dataset.problems_of(root)) == dataset.check(str(root), (), (), ())["rows"] == 9
    assert "9 problems" in dataset.card_of(str(root))
    shutil.rmtree(root / "dataset")
    assert dataset.check(str(root), (), (), ())["rows"] == dataset.stats(str(root))["rows"] == 9
    assert "9 problems" in dataset.card_of(str(root))


def test_data_sets_of_one_name_are_all_avoided(tmp_path):
    for place, question in (("a", "How many sheep are in the field?"), ("b", "How many boats are on the lake?")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "t.jsonl").write_text(json.dumps({"question": question, "answer": "3"}) + "\n")
    foreign = synthesize._foreign((str(tmp_path / "a" / "t.jsonl"), str(tmp_path / "b" / "t.jsonl")))
    asked = ["How many sheep are in the field?", "How many stars are there?", "How many boats are on the lake?"]
    assert foreign(asked) == {0: "in t.jsonl: exact", 2: "in t.jsonl: exact"}


def test_without_another_data_set_nothing_is_sketched(monkeypatch):
    monkeypatch.setattr(matching, "sketch", None)
    assert synthesize._foreign(())(["How many sheep are in the field?"]) == {}


def test_a_budget_that_is_spent_loses_nothing_that_was_accepted(root):
    pools = Pools(lambda n: n)
    whole = pools.judge

    async def judge(problem, played, active):
        if int(problem.answer) == 2 * WAVE:
            raise Halt("budget_usd 1: $1 is spent")
        return await whole.remote(problem, played, active)

    pools.judge = Remote(judge)
    with pytest.raises(Failure, match=r"budget_usd 1.* the 10 problems accepted so far are in .*problems\.jsonl"):
        run(root, pools, target=20)
    assert len(problems(root)) == 10
    assert run(root, Pools(lambda n: n), target=20)["accepted"] == 20


def alone(root, pools, *settings):
    """In a run directory that holds no other stage; `pools.asked` says who was asked to write."""
    config = load(None, ["synthesize.target=5", f"synthesize.in_flight={WAVE}", *settings])
    pools.asked = []

    async def writer(model):
        pools.asked.append(model)
        return pools

    pools.writer = writer
    directory = RunDir.open(root, config)
    try:
        with Metrics(directory) as metrics, Progress() as progress:
            return virtual.run(synthesize.run(Context(config, directory, pools, metrics, progress)))
    finally:
        directory.close()


@pytest.fixture
def library(tmp_path):
    SkillLibrary(
        Skill(
            id=s.id, category=s.category, intent=s.id, method="a\n\nb", difficulty="d", tool_hint="t", score=0.9,
            source="s",
        )
        for s in SKILLS
    ).save(tmp_path / "library")  # fmt: skip
    return tmp_path / "library"


WRITERS = {
    "a checkpoint": ("synthesize.proposer={path: mini:proposer}", lambda m: m.path == "mini:proposer"),
    "an endpoint": (
        "synthesize.proposer={endpoint: {base_url: http://x/v1, model: big}}",
        lambda m: (m.path, m.endpoint.base_url) == ("big", "http://x/v1"),
    ),
    "a proposer that is an endpoint": (
        "proposer={endpoint: {base_url: http://x/v1, model: big}}",
        lambda m: m.endpoint.model == "big",
    ),
}


@pytest.mark.parametrize("setting, expected", WRITERS.values(), ids=WRITERS)
def test_alone_it_takes_any_proposer_and_any_library(root, library, setting, expected):
    pools = Pools(lambda n: n)
    assert alone(root, pools, setting, f"synthesize.skills={library}")["accepted"] == 5
    (model,) = pools.asked
    assert expected(model)


def test_alone_it_says_what_it_lacks(root):
    named = "synthesize.proposer={path: mini:proposer}"
    with pytest.raises(Failure, match=r"no trained proposer; run `propose mgpo` first, or name one in synthesize.prop"):
        alone(root, Pools())
    with pytest.raises(Failure, match=r"no skill library; run `propose acquire` first, or name one in synthesize.skil"):
        alone(root.parent / "b", Pools(), named)
    with pytest.raises(Failure, match="nowhere: no such file or folder"):
        alone(root.parent / "c", Pools(), named, "synthesize.skills=nowhere")
