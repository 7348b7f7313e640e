"""The sync: a version may be sampled from once every replica serves it, and not before."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from actors.engine import Update
from pipeline.config import Config
from pipeline.flow import weight_sync
from pipeline.flow.weight_sync import WeightSync
from pipeline.records import Failure, Lost
from tests.pipeline.judged import Remote


class World:
    """A trainer whose steps end, and replicas whose pull ends, when the test says so."""

    def __init__(self):
        self.trained = {step: asyncio.get_running_loop().create_future() for step in (1, 2, 3)}
        self.pulled = {step: asyncio.get_running_loop().create_future() for step in (1, 2, 3)}
        self.asked, self.logged = [], []
        self.updates = []  # of each replica
        self.beats = []
        self.wait_done = Remote(lambda step: self.trained[step])
        log = SimpleNamespace(log=lambda stage, step, values: self.logged.append((stage, step, values)))
        self.sync = WeightSync(
            SimpleNamespace(config=Config(domain="mini"), metrics=log),
            "mgpo",
            self,
            self,
            SimpleNamespace(beat=self.beats.append),
        )

    def broadcast(self, method, *version):
        if method == "updates":
            return SimpleNamespace(results_async=self._updates)
        self.asked.append((method, *version))
        return SimpleNamespace(results_async=lambda: self.pulled[version[0]])

    async def _updates(self):
        if isinstance(self.updates, Failure):
            raise self.updates
        return self.updates

    def rows(self, stage):
        return {step: values for of, step, values in self.logged if of == stage}


def play(scene):
    async def bounded():
        await asyncio.wait_for(scene(World()), 20)

    asyncio.run(bounded())


async def settle():
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_version_is_reached_when_trained_and_pulled():
    async def scene(world):
        following = asyncio.create_task(world.sync.follow(2))
        first, second = (asyncio.create_task(world.sync.reached(v)) for v in (1, 2))
        await settle()
        assert world.asked == [] and not first.done()
        world.trained[1].set_result({"loss": 0.5, "done_at": 0.0})
        await settle()
        assert world.asked == [("sync", 1)] and not first.done()
        world.pulled[1].set_result([])
        await settle()
        assert first.done() and not second.done() and not following.done()
        world.trained[2].set_result({})
        world.pulled[2].set_result([])
        await following
        await second

    play(scene)


def test_what_needs_no_training_is_reached_at_once():
    async def scene(world):
        for version in (0, -3):
            await asyncio.wait_for(world.sync.reached(version), 1)

    play(scene)


def test_steps_of_this_run_are_logged_and_those_of_an_earlier_one_are_not():
    async def scene(world):
        for step, metrics in ((1, {}), (2, {"loss": 0.25, "done_at": 0.0}), (3, {"loss": 0.5, "done_at": 0.0})):
            world.trained[step].set_result(metrics)
            world.pulled[step].set_result([])
        await world.sync.follow(3)
        assert {step: row["train/loss"] for step, row in world.rows("mgpo-train").items()} == {2: 0.25, 3: 0.5}
        assert list(world.rows("mgpo-weights")) == [2, 3]

    play(scene)


def test_what_an_update_cost_is_logged_when_the_next_one_is_there():
    """Two replicas; the first token under version 1 came 7 s after the optimizer's step, that under 2 never."""

    async def scene(world):
        done_at = time.time() - 40
        world.updates = [
            [Update(1, 100, done_at - 60, 9.0, done_at - 50), Update(1, 100, done_at + 3, 0.25, done_at + 11)],
            [Update(1, 100, done_at + 4, 0.5, done_at + 7)],
        ]
        following = asyncio.create_task(world.sync.follow(2))
        world.trained[1].set_result({"loss": 0.5, "done_at": done_at})
        world.pulled[1].set_result([])
        await settle()
        assert "train/done_at" not in world.rows("mgpo-train")[1] and world.rows("mgpo-weights") == {}
        world.trained[2].set_result({"loss": 0.5, "done_at": time.time()})
        await settle()
        row = world.rows("mgpo-weights")[1]
        assert 40 <= row.pop("step_to_serving_s") < 60 and 0 <= row.pop("sync_s") < 20
        # The first replica's earlier version 1 is of the trainer that was there before a restart.
        expected = {"replicas": 2, "pulled_bytes": 200, "held_s": 0.5, "step_to_first_token_s": 7}
        assert row == pytest.approx(expected, abs=1e-3)
        world.pulled[2].set_result([])
        await following
        assert "step_to_first_token_s" not in world.rows("mgpo-weights")[2]

    play(scene)


def test_replicas_that_cannot_tell_what_an_update_cost_hold_nothing_up():
    async def scene(world):
        world.updates = Lost("replica died")
        for step in (1, 2):
            world.trained[step].set_result({"loss": 0.5, "done_at": time.time()})
            world.pulled[step].set_result([])
        await world.sync.follow(2)
        assert [row["replicas"] for row in world.rows("mgpo-weights").values()] == [0, 0]

    play(scene)


def test_a_replica_that_dies_while_it_pulls_is_asked_for_again(monkeypatch):
    """Serve replaces it, and the new one pulls as it starts."""
    monkeypatch.setattr(weight_sync, "_AGAIN_S", 0.0)

    async def scene(world):
        outcomes = [Lost("replica died"), Failure("engine: weight update failed", "infra_error"), None]

        async def results():
            if (outcome := outcomes.pop(0)) is not None:
                raise outcome
            return [1]

        world.broadcast = lambda *_: SimpleNamespace(results_async=results)
        world.trained[1].set_result({})
        await world.sync.follow(1)
        await asyncio.wait_for(world.sync.reached(1), 1)
        assert outcomes == []

    play(scene)


def test_weights_that_do_not_fit_are_not_tried_again():
    async def scene(world):
        world.trained[1].set_result({})
        world.pulled[1].set_exception(Failure("weights: lm_head.weight is missing"))
        with pytest.raises(Failure, match="is missing"):
            await asyncio.wait_for(world.sync.follow(1), 5)

    play(scene)


def test_a_trainer_or_a_replica_that_fails_ends_it_with_its_cause():
    async def scene(world):
        world.trained[1].set_exception(Failure("the trainer's step 1: no progress", "infra_error"))
        with pytest.raises(Failure, match="the trainer's step 1"):
            await world.sync.follow(3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.sync.reached(1), 0.05)

    play(scene)
