"""What Ray is told, where the run is a submitted job or its address is no cluster's."""

from __future__ import annotations

import json

import pytest
import ray

from actors import meters
from pipeline.config import PoolConfig, RayConfig
from pipeline.config.loading import load
from pipeline.pools import driver_actors, lease, ray_process, room
from pipeline.pools.cluster import Cluster
from pipeline.pools.serving import PoolSpec, surroundings
from pipeline.records import Failure


def test_where_jobs_are_submitted_is_no_cluster_to_join():
    with pytest.raises(Failure, match=r"'http://head:8265' takes jobs .*; expected host:port, or auto"):
        ray_process.RayProcess(RayConfig(address="http://head:8265")).start()


@pytest.mark.parametrize("variable, joined", [(None, None), ("", None), ("local", None), ("head:6379", "head:6379")])
def test_who_joins(monkeypatch, variable, joined):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert RayConfig().joined == joined
    assert RayConfig(address="auto").joined == "auto"


def test_only_the_trainers_groups_of_the_job_are_removed(monkeypatch):
    job, other = "02000000", "03000000"
    groups = {
        f"0a{job}": {"name": "", "state": "CREATED"},
        f"0b{job}": {"name": "SERVE_REPLICA::others#app#1", "state": "CREATED"},
        f"0c{job}": {"name": "", "state": "REMOVED"},
        f"0d{other}": {"name": "", "state": "CREATED"},
    }
    removed = []
    monkeypatch.setattr(lease.ray.util, "placement_group_table", lambda: groups)
    monkeypatch.setattr(lease.ray.util, "remove_placement_group", removed.append)
    monkeypatch.setattr(lease, "PlacementGroup", lambda group: group)
    monkeypatch.setattr(lease, "PlacementGroupID", lambda raw: raw.hex())
    lease.remove_groups(job)
    assert removed == [f"0a{job}"]


def test_the_job_is_named_as_ray_job_list_does(monkeypatch):
    context = type("Context", (), {"get_job_id": lambda self: "02000000"})
    monkeypatch.setattr(ray_process.ray, "get_runtime_context", context)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert ray_process._job() == "02000000"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "raysubmit_7"}}))
    assert ray_process._job() == "raysubmit_7"


def test_actors_and_replicas_say_whose_they_are_and_what(monkeypatch):
    named = []

    class Remote:
        def options(self, **options):
            named.append(options["name"])
            return self

        def remote(self, *_):
            return object()

    monkeypatch.setattr(
        driver_actors.ray, "get_runtime_context", lambda: type("C", (), {"get_node_id": lambda s: "n"})()
    )
    monkeypatch.setattr(driver_actors.ray, "remote", lambda cls: Remote())
    monkeypatch.setattr(driver_actors, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    actors = driver_actors.DriverActors("quick-0123abcd-89abcdef")
    actors.once("weights-proposer", dict, lasting=True)
    actors.once("weights-proposer", dict, lasting=True)
    actors.start(dict)
    actors.start(dict)
    assert named == [f"quick-0123abcd-89abcdef-{role}" for role in ("weights-proposer-1", "dict-2", "dict-3")]

    monkeypatch.setattr(meters.METERS, "job", "raysubmit_7")
    env, _ = surroundings(PoolSpec("judge", PoolConfig(), object, {}), "quick-0123abcd-89abcdef", (), {})
    for name, value in env["env_vars"].items():
        monkeypatch.setenv(name, value)
    assert meters.of_replica() == {"run": "quick-0123abcd-89abcdef", "pool": "judge"}
    assert meters.engine_name() == "quick-0123abcd-89abcdef-judge"
    kept, held = [], {"GPU": 0.5, "CPU": 1.0}
    monkeypatch.setattr(meters.METERS, "set", lambda meter, value, tags: kept.append((meter.name, value, tags["pool"])))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: type("C", (), {"get_assigned_resources": lambda s: held})())
    meters.holding()
    held.pop("GPU")
    meters.holding()
    assert kept == [("propose_replica_gpus", 0.5, "judge")]


def test_what_belongs_to_the_driver_is_where_its_labels_say_and_else_on_its_own_node(monkeypatch):
    given = []

    class Remote:
        def options(self, **options):
            given.append(options)
            return self

        def remote(self, *_):
            return object()

    monkeypatch.setattr(ray, "get_runtime_context", lambda: type("C", (), {"get_node_id": lambda s: "ab" * 28})())
    monkeypatch.setattr(driver_actors.ray, "remote", lambda cls: Remote())
    for labels in ({}, {"market": "!spot"}):
        driver_actors.DriverActors("quick", labels).start(dict)
    alone, labelled = given
    assert alone["scheduling_strategy"].node_id == "ab" * 28 and "label_selector" not in alone
    assert labelled["label_selector"] == {"market": "!spot"} and "scheduling_strategy" not in labelled


@pytest.mark.parametrize(
    ("types", "kind", "told"),
    [
        ((), "data_error", "which this cluster can never offer: labels of no node"),
        (None, "infra_error", "no such node; nodes there"),
    ],
)
def test_labels_that_no_node_has_end_a_run_before_anything_is_placed(monkeypatch, types, kind, told):
    """On a private Ray for good; on a cluster somebody may start one."""
    monkeypatch.setattr(room, "offer", lambda: room.Offer([{"CPU": 2.0}], types, labels=[{"market": "spot"}]))
    cluster = Cluster(load(None, ["ray.labels={market: stable}"]), None)
    monkeypatch.setattr(cluster.ray, "start", lambda: None)
    with pytest.raises(Failure, match=rf"ray.labels asks for 1 x {{market stable}}.*{told}") as caught:
        cluster.buffer()
    assert caught.value.kind == kind and not cluster.actors._all
