"""A stage whose processes are gone begins again from what is on disk, a bounded number of times; and a task that takes
its worker along twice is put aside."""

import asyncio
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from pipeline import stages
from pipeline.config.loading import load
from pipeline.flow.context import Context
from pipeline.records import Failure, Lost, Stalled
from pipeline.store import events
from pipeline.store.rundir import RunDir
from pipeline.watch import retry
from pipeline.watch.watchdog import watching
from tests.pipeline.flow.test_stream import World, journal
from tests.pipeline.judged import task


class Told:
    def __init__(self):
        self.lines = []

    def say(self, name, text):
        self.lines.append(f"{name} · {text}")


class Ray:
    """A cluster that only counts its restarts."""

    def __init__(self):
        self.restarts, self.whole = 0, []

    async def guarded(self, work):
        return await work

    async def restart(self, whole):
        self.restarts += 1
        self.whole.append(whole)

    def end_loaders(self):
        self.loaders_ended = True


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Runs a stage that follows a script: an exception to raise, or a number of steps to make before the next."""
    run = RunDir.open(tmp_path / "run", load(None))
    ray, told = Ray(), Told()

    def play(script, *overrides, name="mgpo"):
        module = ModuleType(f"pipeline.stages.{name}")

        async def stage_run(context):
            while script:
                what = script.pop(0)
                if isinstance(what, Exception):
                    raise what
                for _ in range(what):
                    with run.new_step("mgpo", len(run.steps("mgpo")) + 1):
                        pass
            return {"steps": len(run.steps("mgpo"))}

        module.run = stage_run
        monkeypatch.setitem(sys.modules, f"pipeline.stages.{name}", module)
        metrics = SimpleNamespace(show=lambda *_: None, end=lambda _: None)
        context = Context(load(None, list(overrides)), run, ray, metrics, told)
        return asyncio.run(stages.run(context, name))

    yield SimpleNamespace(play=play, ray=ray, told=told, run=run)
    run.close()


def test_a_stage_that_lost_a_process_begins_again_from_its_last_step(stage):
    assert stage.play([2, Lost("RolloutBuffer: its process is gone"), 1]) == {"steps": 3}
    assert stage.ray.restarts == 1
    assert stage.told.lines == ["mgpo · RolloutBuffer: its process is gone; begins again from what is on disk"]
    (event,) = events.read(stage.run, "stage_restarted")
    cause = "RolloutBuffer: its process is gone"
    assert event.pop("time") > 0
    assert event == {"event": "stage_restarted", "stage": "mgpo", "steps": 2, "cause": cause, "pools": "kept"}
    assert stage.run.result("mgpo")["result"] == {"steps": 3} and stage.ray.loaders_ended


def test_it_gives_up_when_it_gets_no_further_with_the_last_cause(stage):
    with pytest.raises(Lost, match=r"^third$"):
        stage.play([Lost("first"), Lost("second"), Lost("third"), 1], "max_stage_restarts=2")
    assert stage.ray.whole == [False, True]  # the pools are spared once
    told = [(event["cause"], event["pools"]) for event in events.read(stage.run, "stage_restarted")]
    assert told == [("first", "kept"), ("second", "new")], "a loss that ends the run restarts nothing"
    assert stage.run.result("mgpo") is None


def test_every_step_that_is_made_counts_as_getting_further(stage):
    losses = [Lost(f"loss {i}") for i in range(6)]
    assert stage.play([x for loss in losses for x in (1, loss)], "max_stage_restarts=1") == {"steps": 6}
    assert stage.ray.whole == [False] * 6


def test_pools_are_not_spared_where_nobody_brings_the_weights_again(stage):
    """A weight store that comes back empty would let a new replica serve the model that MGPO began with."""
    stage.play([Lost("WeightStore: its process is gone"), 1], name="synthesize")
    assert stage.ray.whole == [True]


@pytest.mark.parametrize("kind", ["data_error", "infra_error"])
def test_what_would_fail_again_is_not_tried_again(stage, kind):
    with pytest.raises(Failure, match="no space left"):
        stage.play([Failure("no space left", kind)])
    assert stage.ray.restarts == 0 and not events.read(stage.run, "stage_restarted")


def test_a_stall_begins_the_stage_again_with_new_pools_the_first_time(stage):
    """Whatever hangs is likely in a pool; spared, it would hang for another `watchdog_s`."""
    assert stage.play([Stalled("mgpo: no progress for 600 s"), 1], "on_stall=restart") == {"steps": 1}
    assert stage.ray.whole == [True]


def test_a_stall_ends_the_run_where_that_is_asked_for(stage):
    with pytest.raises(Stalled, match="no progress for 600 s"):
        stage.play([Stalled("mgpo: no progress for 600 s"), 1], "on_stall=fail")
    assert stage.ray.restarts == 0


# ---------------------------------------------------------------- tasks that kill


def test_a_task_whose_worker_dies_again_and_again_is_put_aside_with_its_input(monkeypatch):
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)
    world = World(proposer=[Lost("proposer: ActorDiedError")])
    judged = asyncio.run(world.stream.judged(task(), "mini:solver"))
    assert judged.failed and judged.episode.outcome.kind == "infra_error"
    assert world.stream.quarantined == 1
    (saved,) = world.run.path("quarantine", "mgpo").iterdir()
    record = json.loads(saved.read_text())
    assert record["task"] == task().model_dump(mode="json")
    assert record["attempt"] == 3 and len(record["deaths"]) == 3
    assert journal(world)[-1] == ("judged", 3)


@pytest.mark.parametrize(
    "proposer", [[Lost("died"), "ok"], [Lost("died"), Lost("died"), "ok"], [Failure("no answer", "infra_error")]]
)
def test_a_bystander_or_a_slow_pool_is_not(monkeypatch, proposer):
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)
    world = World(proposer=proposer)
    asyncio.run(world.stream.judged(task(), "mini:solver"))
    assert world.stream.quarantined == 0
    assert not world.run.path("quarantine").exists()


def test_the_last_attempts_of_those_whose_worker_died_run_one_at_a_time(monkeypatch):
    """Else whoever shares a worker with the culprit would be put aside with it."""
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)
    world = World()
    running, most = 0, {}

    async def play(of, attempt):
        nonlocal running
        running += 1
        most[attempt] = max(most.get(attempt, 0), running)
        await asyncio.sleep(0.01)
        running -= 1
        if attempt < 3 or of.id == "guilty":
            raise Lost("died")
        return await world._episode(of, attempt)

    world.episode._function = play

    async def all_of_them():
        names = ["a", "guilty", "b", "c"]
        return await asyncio.gather(*(world.stream.judged(task(name), "mini:solver") for name in names))

    judged = asyncio.run(asyncio.wait_for(all_of_them(), 30))
    assert [j.failed for j in judged] == [False, True, False, False]
    assert (most[1], most[3]) == (4, 1)
    assert [p.stem for p in world.run.path("quarantine", "mgpo").iterdir()] == ["guilty"]


# ---------------------------------------------------------------- the watchdog's line


def test_the_watchdog_names_the_stage_the_queues_and_the_oldest():
    world = World()

    async def never(*_):
        await asyncio.sleep(60)

    world.judge._function = never  # the committee hangs

    async def scene():
        async with watching("mgpo", 0.3) as watchdog:
            watchdog.queues = world.whole.queues
            watchdog.beat("episodes of step 3")
            await asyncio.gather(*(world.stream.judged(task(name), "mini:solver") for name in ("a", "b")))

    with pytest.raises(Stalled) as caught:
        asyncio.run(scene())
    assert str(caught.value) == (
        "mgpo: no progress for 0.3 s; waited for episodes of step 3; "
        "committee 2; oldest a (attempt 1), 0 s at committee"
    )
    assert world.whole.queues() == ""
