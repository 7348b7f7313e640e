"""Beside a trainer: whoever fails first is heard, and nothing is left waiting."""

import asyncio
import gc
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from pipeline.config import Config
from pipeline.config.loading import load
from pipeline.flow import training
from pipeline.flow.context import Context
from pipeline.flow.training import run_with_trainer, spec_for, start_trainer, train_with_progress
from pipeline.records import Failure, Stalled
from tests.pipeline.judged import Remote
from trainers.spec import TrainSummary

SUMMARY = TrainSummary(checkpoint=Path("/c"), step=3, metrics={})


def context(root, *overrides):
    run = SimpleNamespace(path=lambda *parts: root.joinpath(*parts))
    return Context(load(None, list(overrides)), run, None, None, None)


def play(scene):
    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_trainer_that_fails_ends_the_work_with_its_cause():
    async def scene():
        trainer, ended = asyncio.get_running_loop().create_future(), asyncio.Event()

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                ended.set()

        waiting = asyncio.create_task(run_with_trainer(trainer, work(), 10))
        await asyncio.sleep(0)
        trainer.set_exception(Failure("training mgpo: worker 0: loss is nan"))
        with pytest.raises(Failure, match="loss is nan"):
            await waiting
        assert ended.is_set()

    play(scene)


def test_work_that_fails_is_heard_while_the_trainer_still_runs():
    async def scene():
        async def fail():
            raise Failure("the pool is gone", "infra_error")

        async def work():
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

        with pytest.raises(Failure, match="the pool is gone"):
            await run_with_trainer(asyncio.get_running_loop().create_future(), work(), 10)

    play(scene)


def test_a_trainer_that_ends_well_before_the_work_leaves_it_alone():
    async def scene():
        trainer = asyncio.get_running_loop().create_future()
        trainer.set_result(SUMMARY)

        async def work():
            await asyncio.sleep(0.01)
            worked.append(True)

        worked = []
        assert await run_with_trainer(trainer, work(), 10) == SUMMARY
        assert worked

    play(scene)


def test_a_trainer_that_does_not_end_after_its_last_step_is_not_waited_for():
    async def scene():
        async def work():
            pass

        with pytest.raises(Stalled, match=r"has not ended 0.05 s after its last step"):
            await run_with_trainer(asyncio.get_running_loop().create_future(), work(), 0.05)

    play(scene)


def test_an_interrupt_ends_the_work():
    async def scene():
        ended = asyncio.Event()

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        waiting = asyncio.create_task(run_with_trainer(asyncio.get_running_loop().create_future(), work(), 10))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended.is_set()

    play(scene)


class Launched:
    """A cluster whose launcher answers with what it is given."""

    def __init__(self, outcome: TrainSummary | BaseException):
        self.outcome, self.seen, self.for_nodes_s = outcome, [], 0.0
        self.train = self

    def nodes_may_take_s(self, asked):
        assert asked.count == 1 and asked.each == {"CPU": 0.5}
        return self.for_nodes_s

    def launcher(self):
        return self

    async def remote(self, *arguments):
        self.seen.append(arguments)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def test_the_launcher_gets_the_run_and_its_summary_or_failure_comes_back(tmp_path):
    spec = spec_for(context(tmp_path), "sft", tmp_path)

    async def scene():
        cluster = Launched(SUMMARY)
        assert await start_trainer(cluster, spec, "loader", "store") == SUMMARY
        assert await start_trainer(cluster, spec, "loader", "store", "pool") == SUMMARY
        assert cluster.seen == [(spec, "loader", "store", None), (spec, "loader", "store", "pool")]
        cluster.for_nodes_s = 3600.0  # nodes are yet to come: its own time-out runs from then on
        await start_trainer(cluster, spec, "loader", "store")
        assert cluster.seen[-1][0].start_timeout_s == spec.start_timeout_s + 3600
        with pytest.raises(Failure, match="no room"):
            await start_trainer(Launched(Failure("training sft: no room")), spec, "loader", None)
        with pytest.raises(Failure, match="training sft: ActorDiedError"):
            await start_trainer(Launched(ActorDiedError()), spec, "loader", None)

    play(scene)


def test_a_failure_that_nobody_awaits_any_more_is_silent(tmp_path):
    """As after an interrupt: Ray goes down, and the call to the launcher fails for it."""
    complaints = []

    async def scene():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        future = start_trainer(
            Launched(Failure("Ray is gone")), spec_for(context(tmp_path), "sft", tmp_path), "loader", None
        )
        while not future.done():
            await asyncio.sleep(0.01)
        del future
        gc.collect()
        await asyncio.sleep(0)

    play(scene)
    assert complaints == []


def test_a_stage_trains_by_its_own_section(tmp_path):
    c = context(tmp_path, "trainer.workers=2", "trainer.threads=4", "trainer.zero_stage=3", "mgpo.lr=0.5")
    mgpo, sft, solve = (spec_for(c, stage, tmp_path) for stage in ("mgpo", "sft", "solve"))
    assert [s.objective.name for s in (mgpo, sft, solve)] == ["mgpo", "sft", "grpo"]
    assert (mgpo.lr, mgpo.workers, mgpo.zero_stage, mgpo.threads) == (0.5, 2, 3, 2)
    assert (mgpo.publish_every, sft.publish_every, solve.publish_every) == (1, None, 1)
    assert len({s.seed for s in (mgpo, sft, solve)}) == 3
    assert spec_for(c, "mgpo", tmp_path) == mgpo


def test_an_elastic_trainer_asks_for_its_fewest_workers_and_nothing_that_would_depend_on_how_many(tmp_path):
    elastic = ("trainer.workers=4", "trainer.min_workers=2", "trainer.resources={trainer: 1}", "trainer.resize_s=9")
    spec = spec_for(context(tmp_path, *elastic), "mgpo", tmp_path)
    assert (spec.workers, spec.fewest, spec.resize_s) == (4, 2, 9)
    for stage in ("mgpo", "solve"):
        with pytest.raises(Failure, match=rf"{stage}.mini_batches \(3\): each worker deals out its own groups"):
            load(None, [*elastic, f"{stage}.mini_batches=3"])


class LastMoment:
    """A loader that is told of the last step only while it is being asked, as the trainer ends."""

    def __init__(self):
        self.trainer, self.done = None, {1: {"loss": 3.0}}
        self.done_since = Remote(self._done_since)

    async def _done_since(self, step):
        known = {s: m for s, m in self.done.items() if s > step}
        if not self.trainer.done():
            self.done[2] = {"loss": 2.0}
            self.trainer.set_result(SUMMARY)
            await asyncio.sleep(0)
        return known


def test_every_step_is_logged_once_the_last_one_too(monkeypatch):
    logged, shown = [], []

    async def scene():
        loader = LastMoment()
        loader.trainer = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(training, "start_trainer", lambda *_: loader.trainer)
        monkeypatch.setattr(training, "_POLL_S", 0.01)
        handle = SimpleNamespace(advance=lambda n, **facts: shown.append(facts["loss"]))

        class Progress:
            def stage(self, *_):
                return self

            def __enter__(self):
                return handle

            def __exit__(self, *_):
                pass

        metrics = SimpleNamespace(log=lambda stage, step, values: logged.append((stage, step)), show=lambda *_: None)
        run = SimpleNamespace(check_mirror=lambda: None)
        c = Context(Config(domain="mini"), run, None, metrics, Progress())
        assert await train_with_progress(c, "sft", None, loader, 2) == SUMMARY

    play(scene)
    assert (logged, shown) == ([("sft", 1), ("sft", 2)], [3.0, 2.0])
