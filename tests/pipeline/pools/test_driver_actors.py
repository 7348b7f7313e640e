"""The actors beside the driver, and Ray under them: a death is noticed and named, a call that failed is told from a
process that is gone, and a restart waits for nobody."""

import asyncio
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import ray
from ray import serve
from ray._private import auto_init_hook
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.handle import DeploymentResponse

from actors.calls import within
from pipeline.config.loading import load
from pipeline.pools import environment
from pipeline.pools.cluster import Cluster
from pipeline.pools.environment import ENVIRONMENT
from pipeline.pools.liveness import Liveness
from pipeline.pools.serving import Serving
from pipeline.records import GONE, Failure, Lost


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
    cluster.actors._liveness = {name: Liveness(actor) for name, actor in actors.items()}
    return asyncio.run(asyncio.wait_for(cluster.guarded(work), 30))


@pytest.mark.parametrize("how", ["dead", "restarted"])
def test_an_actor_that_dies_ends_the_work_at_once_and_is_named(how):
    """Also if Ray has already started it again, for then it has forgotten what it held."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as e:
            ended.append(e.args)
            raise

    with pytest.raises(Lost, match=r"^StepLoader: its process is gone$"):
        guarded({"RolloutBuffer": Actor("well"), "StepLoader": Actor(how)}, work())
    assert ended == [(GONE,)]


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


def test_one_that_holds_nothing_is_not_looked_at(monkeypatch):
    """A vault that is alone beside the driver, or comes back from another process, is no loss."""
    cluster = Cluster(load(None), None)
    remote = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: Actor("dead")))
    monkeypatch.setattr("ray.remote", lambda _: remote)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "0" * 56))
    monkeypatch.setattr("ray.kill", lambda _: None)
    monkeypatch.setattr(environment, "of_actor", dict)
    vault = cluster.actors.once("vault", Actor, lasting=True, holds=False)

    async def work():
        await asyncio.sleep(1.5)
        return "done"

    assert asyncio.run(asyncio.wait_for(cluster.guarded(work()), 30)) == "done"
    cluster.actors.end_passing()
    assert cluster.actors._all == [vault], "it lasts"


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
    actors._liveness = {"StepLoader": Liveness(loader), "RolloutBuffer": Liveness(buffer)}

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
