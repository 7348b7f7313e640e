"""The driver's half of an MGPO step: what passes through it is text, never token arrays, and grows no faster than
rollouts; and what is too old is not trained on."""

import asyncio
import json
import pickle
from types import SimpleNamespace

import pytest

from pipeline.config.loading import load
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.flow.stream import Stream
from pipeline.pools.buffer import RolloutBuffer
from pipeline.records import Failure, Rollout, Skill
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages.mgpo import Producer
from pipeline.store import accounts
from pipeline.store.metrics import Metrics
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from pipeline.watch import retry
from pipeline.watch.progress import Progress
from tests.pipeline.judged import episode, probe, rollout, verdict


class Wire:
    """A method of a handle: counts the bytes of what the driver sends and gets."""

    def __init__(self, function, counts):
        self._function, self._counts = function, counts

    async def remote(self, *args):
        result = await self._function(*args)
        self._counts["bytes"] += len(pickle.dumps(args)) + len(pickle.dumps(result))
        return result


class Pools:
    """Replicas send rollouts of `tokens` tokens straight to a real buffer; the driver sees the rest."""

    def __init__(self, tokens, versions=lambda index: (0,)):
        self.counts = {"bytes": 0, "rollout_bytes": 0}
        self._tokens, self._versions, self._played = tokens, versions, 0
        self._buffer = RolloutBuffer()
        wired = {"episode": self._episode, "judge": self._judge, "judge_many": self._judge_many, "probe": self._probe,
                 "drop": self._buffer.drop, "write": self._buffer.write}  # fmt: skip
        for name, function in wired.items():
            setattr(self, name, Wire(function, self.counts))

    def buffer(self):
        return self

    async def _episode(self, task, attempt):
        batch = Rollout.to_arrow([rollout(task.id, attempt, task.group_id, self._tokens)])
        self.counts["rollout_bytes"] += batch.nbytes
        await self._buffer.put(task.id, attempt, batch)
        self._played += 1
        played = episode(task, attempt, question=f"Problem {task.id}?", active=[s.id for s in task.skills])
        said = played.turns[0].model_copy(update={"text": "word" * self._tokens})
        return played.model_copy(update={"policy_versions": self._versions(self._played), "turns": (said,)})

    async def _judge(self, problem, played, active):
        return verdict(played)

    async def _judge_many(self, cases):
        return [verdict(SimpleNamespace(submitted=problem), "rejected") for problem, _, _ in cases]

    async def _probe(self, problem, prober, seed, enough=1):
        return probe(SimpleNamespace(submitted=problem))


def play(root, pools, groups, step=1, size=4, *overrides):
    """One step; returns its directory's run."""
    config = load(None, [f"mgpo.groups={groups}", f"mgpo.group_size={size}", "committee.spot_checks=0", *overrides])
    run = RunDir.open(root, config)
    skills = [
        Skill(
            id=s.id,
            category=s.category,
            intent=s.id,
            method="a\n\nb",
            difficulty="d",
            tool_hint="t",
            score=0.9,
            source="s",
        )
        for s in SKILLS
    ]
    SkillLibrary(skills).save(run.path("skills"))
    with Metrics(run) as metrics, Progress() as progress:
        context = Context(config, run, pools, metrics, progress)
        judging = Stream(config, pools, pools, pools, pools)

        async def scene():
            producer = Producer(context, judging, SimpleNamespace(beat=lambda _: None))
            return await producer.step(step)

        asyncio.run(asyncio.wait_for(scene(), 200))
    run.close()
    return run


def test_a_step_with_nothing_to_train_on_ends_the_run_before_it_is_written(tmp_path):
    class Undecided(Pools):
        async def _judge(self, problem, played, active):
            alone = played.id.endswith("-00")  # one of each group
            return verdict(played, "accepted" if alone else "undecided")

    with pytest.raises(Failure, match=r"^mgpo: no group of step 1 has two episodes to train on; of 8 6 failed, 6 of"):
        play(tmp_path / "run", Undecided(10), 2)
    run = RunDir(tmp_path / "run")
    assert run.steps("mgpo") == [] and accounts.check(run, "mgpo")["issued"] == 8


def bytes_a_rollout(root, groups, tokens):
    pools = Pools(tokens)
    run = play(root, pools, groups)
    assert len(read_records(run.steps("mgpo")[0] / "rollouts.parquet", Rollout)) == groups * 4
    assert pools.counts["rollout_bytes"] > groups * 4 * tokens * 10  # they are big, and went another way
    return pools.counts["bytes"] / (groups * 4)


def test_what_passes_through_the_driver_is_the_same_a_rollout_whatever_their_number(tmp_path):
    few, many = bytes_a_rollout(tmp_path / "few", 3, 20), bytes_a_rollout(tmp_path / "many", 300, 20)
    assert many == pytest.approx(few, rel=0.1)


def test_of_longer_rollouts_only_the_text_passes_through_the_driver(tmp_path):
    """Once as it comes back, and once to the committee, which reads it."""
    short, long = bytes_a_rollout(tmp_path / "short", 3, 10), bytes_a_rollout(tmp_path / "long", 3, 1000)
    assert (long - short) / 990 == pytest.approx(2 * len("word"), rel=0.02)


def test_a_rollout_older_than_allowed_is_filtered_at_the_sink(tmp_path):
    """A replica served an older version for a moment: of each four, one began too early."""
    pools = Pools(4, versions=lambda index: (1, 3) if index % 4 == 0 else (2, 3))
    with_history(tmp_path / "run", 3)
    run = play(tmp_path / "run", pools, 4, 4, 4, "mgpo.max_staleness=1")
    trained = read_records(run.steps("mgpo")[3] / "rollouts.parquet", Rollout)
    assert len(trained) == 12
    ledger = json.loads((run.steps("mgpo")[3] / "state.json").read_text())["ledger"]
    assert ledger == {"issued": 16, "trained": 12, "filtered": 4, "failed": 0}
    assert accounts.audit(run)["findings"] == []
    row = read_metrics(run)["mgpo"][-1]
    assert (row["staleness/1"], row["staleness/2"]) == (12, 4)


def test_the_accounts_that_are_logged_are_those_of_the_disk_and_depths_are_means(tmp_path, monkeypatch):
    """Four attempts are lost with their replica, and made again; one of each four rollouts is too old to be trained."""
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)

    class Flaky(Pools):
        async def _episode(self, task, attempt):
            await asyncio.sleep(0.05)
            if attempt == 1 and task.id.endswith("00"):
                raise Failure("proposer: replica died", "infra_error")
            return await super()._episode(task, attempt)

    pools = Flaky(4, versions=lambda index: (-1,) if index % 4 == 0 else (0,))
    run = play(tmp_path / "run", pools, 4)
    rows = read_metrics(run)
    expected = {"issued": 20, "trained": 12, "filtered": 4, "failed": 4, "live": 0}
    disk = accounts.check(run, "mgpo")
    assert {name: disk[name] for name in expected} == expected
    assert {name: rows["mgpo-ledger"][-1][name] for name in expected} == expected
    (step,) = rows["mgpo"]
    assert step["depth/proposer"] * step["rollout_s"] >= 20 * 0.05  # attempts of so many seconds each


def with_history(root, steps):
    for step in range(1, steps + 1):
        play(root, Pools(4, versions=lambda _, v=step - 1: (v,)), 4, step, 4, "mgpo.max_staleness=1")
