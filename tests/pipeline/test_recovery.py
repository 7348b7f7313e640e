"""A stage whose processes are gone begins again from what is on disk, a bounded number of times; and a task that takes
its worker along twice is put aside."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
import ray
from ray import serve
from ray._private import auto_init_hook
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.handle import DeploymentResponse

from actors.calls import within
from pipeline import stages
from pipeline.config.loading import load
from pipeline.flow.context import Context
from pipeline.pools.cluster import Cluster
from pipeline.pools.liveness import Liveness
from pipeline.pools.ray_process import ENVIRONMENT
from pipeline.pools.serving import Serving
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


# ---------------------------------------------------------------- the actors beside the driver


class Actor:
    """Answers as told: at once, never, that it is dead or could not begin, or from another process each time."""

    def __init__(self, state):
        self.state, self.process = state, 1
        self.__ray_call__ = SimpleNamespace(remote=self._call)

    async def _call(self, _):
        if self.state == "dead":
            raise ActorDiedError()
        if self.state == "unborn":
            traceback = "Traceback (most recent call last):\n  File loaders.py\nDamage: given.parquet: is cut off\n"
            raise ActorDiedError(RayTaskError("StepLoader.__init__", traceback, ValueError("given.parquet")))
        if self.state == "busy":
            await asyncio.sleep(60)
        self.process += self.state == "restarted"
        return self.process


def guarded(actors, work):
    cluster = Cluster(load(None), None)
    cluster.actors._all = list(actors.values())
    cluster.actors._liveness = {name: Liveness(actor, lasting=True) for name, actor in actors.items()}
    return asyncio.run(asyncio.wait_for(cluster.guarded(work), 30))


@pytest.mark.parametrize("how", ["dead", "restarted"])
def test_an_actor_that_dies_ends_the_work_at_once_and_is_named(how):
    """Also if Ray has already started it again, for then it has forgotten what it held."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(Lost, match=r"^StepLoader: its process is gone$"):
        guarded({"RolloutBuffer": Actor("well"), "StepLoader": Actor(how)}, work())
    assert ended == [True]


def test_whatever_fails_because_one_died_is_its_loss():
    async def work():
        raise RuntimeError("Failed to reach the loader")

    with pytest.raises(Lost, match=r"^StepLoader: its process is gone$"):
        guarded({"StepLoader": Actor("dead")}, work())
    with pytest.raises(RuntimeError, match="Failed to reach"):
        guarded({"StepLoader": Actor("well")}, work())


def test_an_actor_that_cannot_begin_is_no_loss_and_the_cause_is_told():
    async def work():
        await within(Actor("unborn").__ray_call__.remote(None), "step loader", 10)

    with pytest.raises(Failure, match=r"^step loader: cannot begin: Damage: given.parquet: is cut off$") as caught:
        guarded({"StepLoader": Actor("unborn")}, work())
    assert not isinstance(caught.value, Lost)


def test_a_serve_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("pipeline.pools.serving._SERVE_S", 0.05)
    release = threading.Event()

    async def scene():
        with pytest.raises(Lost, match=r"^Serve's controller has not answered for 0.05 s$"):
            await Serving("run", str, None)._call(release.wait, 20)
        release.set()

    asyncio.run(scene())


def test_one_that_is_busy_is_not_dead():
    async def work():
        await asyncio.sleep(2.5)
        return "done"

    assert guarded({"StepLoader": Actor("busy")}, work()) == "done"


class Ends(Actor):
    """Is ended by its own side while it is looked after."""

    async def _call(self, _):
        self.cluster.end_loaders()
        raise ActorDiedError()


def test_a_loader_that_we_end_is_no_loss(monkeypatch):
    ended = []
    monkeypatch.setattr("ray.kill", ended.append)
    cluster = Cluster(load(None), None)
    loader, buffer = Ends("well"), Actor("well")
    loader.cluster = cluster
    actors = cluster.actors
    actors._all, actors._named = [loader, buffer], {"buffer": buffer}
    actors._liveness = {"StepLoader": Liveness(loader, lasting=False), "RolloutBuffer": Liveness(buffer, lasting=True)}

    async def work():
        await asyncio.sleep(2.5)
        return "done"

    assert asyncio.run(asyncio.wait_for(cluster.guarded(work()), 30)) == "done"
    assert ended == [loader] and actors._all == [buffer] and list(actors._liveness) == ["RolloutBuffer"]


def test_a_weight_store_goes_with_the_pool_that_pulls_from_it(monkeypatch):
    ended = []
    monkeypatch.setattr("ray.kill", ended.append)
    cluster = Cluster(load(None), None)
    cluster.actors._all = [proposer, student] = [Actor("well"), Actor("well")]
    cluster.actors._named = {"weights-proposer": proposer, "weights-student": student}
    asyncio.run(cluster.stop("proposer"))
    assert ended == [proposer] and cluster.actors._named == {"weights-student": student}


class Response(DeploymentResponse):
    """A Serve response that never comes."""

    def __init__(self):
        self.cancelled = False

    def __await__(self):
        return asyncio.sleep(60).__await__()

    def cancel(self):
        self.cancelled = True


def test_a_request_that_nobody_waits_for_any_more_is_cancelled_in_its_replica():
    async def scene():
        given_up, late = Response(), Response()
        waiting = asyncio.create_task(within(given_up, "proposer", 30))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(Failure, match=r"^proposer: no answer within 0.01 s$"):
            await within(late, "proposer", 0.01)
        return given_up.cancelled, late.cancelled

    assert asyncio.run(scene()) == (True, True)


def test_a_call_to_a_process_that_is_gone_is_told_from_one_that_failed():
    async def dies():
        raise ActorDiedError()

    async def late():
        await asyncio.sleep(60)

    with pytest.raises(Lost, match=r"^step loader: ActorDiedError"):
        asyncio.run(within(dies(), "step loader", 10))
    with pytest.raises(Failure, match="no answer") as caught:
        asyncio.run(within(late(), "step loader", 0.01))
    assert not isinstance(caught.value, Lost)


def test_a_restart_does_not_wait_for_a_call_that_ray_keeps(monkeypatch):
    monkeypatch.setattr("pipeline.pools.cluster._IDLE_S", 0.05)
    kept = threading.Event()

    async def scene():
        cluster = Cluster(load(None), None)
        cluster.serving._thread.submit(kept.wait)
        try:
            with pytest.raises(Failure, match=r"^Ray has not answered for 0.05 s$"):
                await cluster.restart(whole=True)
        finally:
            kept.set()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_what_still_calls_ray_when_ours_is_gone_does_not_join_another(monkeypatch):
    began = []
    monkeypatch.setattr(auto_init_hook, "enable_auto_connect", True)
    monkeypatch.setattr(ray, "init", lambda **_: began.append("ours") or SimpleNamespace(dashboard_url=""))
    monkeypatch.setattr(serve, "start", lambda **_: None)
    monkeypatch.setattr("pipeline.pools.ray_process._job", lambda: "job-1")
    monkeypatch.setattr("pipeline.pools.ray_process.METERS", SimpleNamespace(connect=lambda job: None))
    Cluster(load(None), None).start()
    auto_init_hook.auto_init_ray()  # as every call of Ray does first
    assert began == ["ours"]


@pytest.mark.parametrize(
    "late",
    [
        Exception("The current node timed out during startup. This could happen\nbecause"),
        RuntimeError("Timed out waiting for file /tmp/ray/session/gcs_server_port"),
    ],
)
def test_a_ray_that_a_busy_machine_does_not_start_in_time_is_tried_again(monkeypatch, late):
    def init(**_):
        raise late

    monkeypatch.setattr(ray, "init", init)

    async def scene():
        cluster = Cluster(load(None), None)
        with pytest.raises(Lost, match=r"^Ray did not start \((The current node|Timed out)[^\n]*\)$"):
            cluster.start()
        await cluster.restart(whole=False)

    asyncio.run(scene())


LOGS = """
import logging, logging.handlers
serves = logging.handlers.MemoryHandler(10, target=logging.StreamHandler())
from vllm.config.logging import LoggingConfig
from vllm.logger import configure_logging_if_needed
configure_logging_if_needed(LoggingConfig())  # as every engine does that is made
print(serves.target is not None)
"""


@pytest.mark.engine
@pytest.mark.parametrize(("environment", "kept"), [(ENVIRONMENT, "True"), ({}, "False")])
def test_replicas_keep_the_log_file_by_which_a_new_serve_controller_knows_them(environment, kept):
    """Without it Serve replaces every replica that holds an engine. The second case is the fault itself."""
    done = subprocess.run(
        [sys.executable, "-c", LOGS], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [kept], done.stderr


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
