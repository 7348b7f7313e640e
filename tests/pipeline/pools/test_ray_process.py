"""What Ray is told, where the run is a submitted job or its address is no cluster's."""

from __future__ import annotations

import json

import pytest

from pipeline.config import RayConfig
from pipeline.pools import lease, ray_process
from pipeline.records import Failure


def test_what_the_submitted_job_sets_is_the_users(monkeypatch):
    """Ray refuses a job whose driver names a variable again, and shows all of them, keys too, when it does."""
    job = {"runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "1", "MY_KEY": "secret"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    told = ray_process._not_set_by_the_job()
    assert set(ray_process.ENVIRONMENT) - set(told) == {"HF_HUB_OFFLINE"} and "MY_KEY" not in told
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": None}))
    assert ray_process._not_set_by_the_job() == ray_process.ENVIRONMENT
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert ray_process._not_set_by_the_job() == ray_process.ENVIRONMENT


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
