"""Pools that start, without Serve: who looks, and how often."""

from __future__ import annotations

import asyncio
import math
import os
import time
from types import SimpleNamespace

import pytest
import ray.serve
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PoolConfig
from pipeline.config.loading import load
from pipeline.flow.stream import playing_s
from pipeline.pools import serving
from pipeline.pools.cluster import Cluster
from pipeline.pools.serving import PoolSpec, Serving
from pipeline.records import Failure


@pytest.fixture
def serve(monkeypatch):
    """In place of Serve: applications are running some polls after the first look; `bad` ones fail."""
    fake = SimpleNamespace(deployed=[], looks=0, began=0.0, bad=())

    def status():
        fake.looks += 1
        fake.began = fake.began or time.monotonic()
        running = time.monotonic() - fake.began > 10 * serving._POLL_S
        said = dict.fromkeys(fake.deployed, "RUNNING" if running else "DEPLOYING")
        said |= {a: "DEPLOY_FAILED" for a in fake.bad if running}
        return SimpleNamespace(
            applications={a: SimpleNamespace(status=s, message="no GPU", deployments={}) for a, s in said.items()}
        )

    bound = SimpleNamespace(options=lambda **_: SimpleNamespace(bind=lambda **_: None))
    monkeypatch.setattr(serving, "_POLL_S", 0.03)
    monkeypatch.setattr(serving.environment, "of_serve", dict)
    monkeypatch.setattr(serving.serve, "deployment", lambda name: lambda cls: bound)
    monkeypatch.setattr(serving.serve, "RunTarget", lambda target, name, route_prefix: name)
    monkeypatch.setattr(serving.serve, "run_many", lambda targets, **_: fake.deployed.extend(targets))
    monkeypatch.setattr(serving.serve, "status", status)
    monkeypatch.setattr(serving.serve, "get_deployment_handle", lambda name, app_name: app_name)
    return fake


async def at_once(asked):
    assert asked.count == 1 and asked.each["CPU"] > 0


async def never(asked):
    await asyncio.Event().wait()


def start(*names, has_room=at_once, **pool):
    async def main():
        pools = Serving("run-1", lambda: "/logs", has_room)
        specs = [PoolSpec(name, PoolConfig(**pool), object, {}) for name in names]
        found = await asyncio.gather(*(pools.pool(spec) for spec in specs), return_exceptions=True)
        await pools.idle()
        return found

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_pools_that_start_at_once_share_each_look(serve):
    assert start("a", "b", "c", "d", "e") == [f"run-1-{name}" for name in "abcde"]
    assert serve.looks <= 20  # about ten, and one more after each that is deployed; not ten of each


def test_a_pool_that_fails_says_why_and_the_others_start(serve):
    serve.bad = ("run-1-b",)
    a, b = start("a", "b")
    assert a == "run-1-a"
    assert (
        isinstance(b, Failure) and b.kind == "infra_error" and "pool b: did not start: no GPU (logs: /logs)" in str(b)
    )


def test_what_becomes_of_a_pool_is_told_while_it_waits_for_nodes_too(serve):
    """Its own time-out does not run meanwhile."""
    serve.bad = ("run-1-b",)
    a, b = start("a", "b", has_room=never, start_timeout_s=serving._POLL_S)
    assert a == "run-1-a" and "pool b: did not start: no GPU" in str(b)


def test_that_no_nodes_can_come_and_that_a_pool_is_late_where_they_are_there_is_told(serve):
    async def none(asked):
        raise Failure("never")

    serve.began = math.inf  # never running
    assert [str(one) for one in start("a", has_room=none)] == ["never"]
    (late,) = start("a", start_timeout_s=2 * serving._POLL_S)
    assert "pool a: not running after 0.06 s" in str(late)


def test_an_empty_pool_asks_for_one_replica_and_waits_for_none_unless_none_can_ever_come(serve):
    async def none(asked):
        raise Failure("never")

    serve.began = -math.inf  # Serve calls an application without replicas running
    assert start("a", min_replicas=0) == ["run-1-a"]  # `at_once` looks at the count
    assert start("b", min_replicas=0, has_room=never) == ["run-1-b"]
    assert [str(one) for one in start("c", min_replicas=0, has_room=none)] == ["never"]


@given(st.integers(0, 4), st.integers(0, 4))
def test_a_pool_is_scaled_by_serve_where_it_has_two_sizes(least, more):
    pool = PoolConfig(min_replicas=least, max_replicas=max(1, least + more), upscale_delay_s=3, target_ongoing=2)
    options = serving.deployment_options(PoolSpec("p", pool, object, {}), "run-1", {})
    if pool.max_replicas == least:
        assert options["num_replicas"] == least and "autoscaling_config" not in options
    else:
        scale = options["autoscaling_config"]
        assert "num_replicas" not in options
        assert (scale.min_replicas, scale.max_replicas) == (least, pool.max_replicas)
        assert (scale.upscale_delay_s, scale.target_ongoing_requests) == (3, 2)


def test_a_pool_keeps_to_the_nodes_that_its_labels_mean():
    labels = {"market": "!spot"}
    given = [
        serving.deployment_options(PoolSpec("p", PoolConfig(labels=of), object, {}), "r", {}) for of in ({}, labels)
    ]
    assert [options["ray_actor_options"].get("label_selector") for options in given] == [None, labels]
    told = ray.serve.deployment(name="p")(PoolConfig).options(**given[1])  # by Ray's own check of options
    assert told.ray_actor_options["label_selector"] == labels


def test_a_pool_is_spread_as_its_config_says():
    given = [
        serving.deployment_options(PoolSpec("p", PoolConfig(max_per_node=n), object, {}), "r", {}) for n in (None, 2)
    ]
    assert [options.get("max_replicas_per_node") for options in given] == [None, 2]
    assert ray.serve.deployment(name="p")(PoolConfig).options(**given[1])._replica_config.max_replicas_per_node == 2


def test_a_pool_that_is_spread_waits_for_so_many_nodes(serve):
    waited = []

    async def room(asked):
        waited.append((asked.count, asked.per_node))

    start("a", has_room=room, min_replicas=3, max_replicas=3, max_per_node=2)
    start("b", has_room=room)
    assert waited == [(3, 2), (1, math.inf)]


@pytest.mark.parametrize(("most", "drains", "seconds"), [(1, False, 5), (1, True, 77), (2, False, 77), (2, True, 77)])
def test_calls_come_to_their_end_where_a_pool_shrinks_or_a_node_drains(most, drains, seconds):
    spec = PoolSpec("p", PoolConfig(max_replicas=most), object, {}, longest_call_s=77)
    assert serving.deployment_options(spec, "r", {}, None, drains)["graceful_shutdown_timeout_s"] == seconds


@given(st.integers(0, 5), st.integers(1, 9))
def test_episodes_have_time_for_every_round_and_an_empty_pool_for_its_start(least, most):
    pool = PoolConfig(min_replicas=min(least, most), max_replicas=most, start_timeout_s=7)
    begins_with = min(max(least, 1), most)
    rounds = math.ceil(most / begins_with)
    assert playing_s(pool, 100.0) == rounds * 100 + 60 + (7 if least == 0 else 0)


@pytest.mark.parametrize(("gpus", "judges"), [(0, []), (1, ["prober", "committee", "judge", "solver-0"])])
def test_what_judges_leaves_its_gpus_to_the_solver_and_stays_where_it_has_none(gpus, judges):
    cluster, stopped = Cluster(load(None, [f"prober.ladder=[{{path: m, pool: {{num_gpus: {gpus}}}}}]"]), None), []

    async def stop(name):
        stopped.append(name)

    cluster.stop = stop
    asyncio.run(cluster.stop_writing())
    assert stopped == ["proposer", *judges, "teacher", "teacher-model-0"]  # who writes problems anew is a teacher


def test_a_pool_that_starts_is_told_of_once(serve, monkeypatch):
    told = []
    cluster = Cluster(load(), None, lambda *line: told.append(line))
    monkeypatch.setattr(cluster, "start", lambda: None)
    monkeypatch.setattr(cluster, "_has_room", at_once)
    cluster._forget()

    async def twice_and_again():
        await asyncio.gather(cluster.sandbox(), cluster.sandbox())
        await cluster.sandbox()

    asyncio.run(twice_and_again())
    assert told == [("pools", "sandbox starts")]


class Counted:
    """A replica that asks nothing of a machine."""

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.slow
@pytest.mark.engine
def test_an_empty_pool_holds_nothing_until_it_is_asked_and_again_when_it_is_not():
    """Real Serve: zero replicas, one for the first call, zero after the delay."""
    pool = PoolConfig(min_replicas=0, max_replicas=2, downscale_delay_s=2, upscale_delay_s=0)
    cluster = Cluster(load(None, ["ray.num_cpus=2", "ray.object_store_mb=100"]), None)

    def replicas():
        (app,) = serving.serve.status().applications.values()
        return sum(app.deployments["counted"].replica_states.get(s, 0) for s in ("RUNNING", "STARTING", "STOPPING"))

    async def main():
        handle = await cluster._pool(PoolSpec("counted", pool, Counted, {}, longest_call_s=1))
        assert replicas() == 0
        assert await asyncio.wait_for(handle.pid.remote(), 120) != os.getpid()
        assert replicas() == 1
        for _ in range(120):
            if replicas() == 0:
                break
            await asyncio.sleep(1)
        assert replicas() == 0
        assert await asyncio.wait_for(handle.pid.remote(), 120) != os.getpid()

    try:
        asyncio.run(asyncio.wait_for(main(), 280))
    finally:
        cluster.close()
