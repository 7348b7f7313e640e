"""What replicas and actors find in their environment, by what the submitted job sets and what Serve's job had set."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.schema import RayActorOptionsSchema

from actors.vault import Vault, entrusted
from pipeline.config.loading import load
from pipeline.pools import endpoints, environment
from pipeline.pools.environment import ENVIRONMENT
from tests.mini import MINI

PACKAGE = {"working_dir": "gcs://_ray_pkg_2.zip", "py_modules": ["gcs://_ray_pkg_m.zip"]}


@pytest.fixture
def submitted(monkeypatch):
    def submit(**env):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": env or None, "metadata": {}}))
        for name, value in (env.get("env_vars") or {}).items():  # as Ray's job supervisor does
            monkeypatch.setenv(name, value)

    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return submit


def of_pool(secret=(), inherited=None, asks=None):
    return environment.of_pool({"OMP_NUM_THREADS": "3", **(asks or {})}, {"RUN": "r"}, secret, inherited or {})


def test_what_the_submitted_job_sets_wins_in_actors_and_pools(submitted):
    assert environment.of_actor() == ENVIRONMENT
    assert of_pool()[0]["env_vars"]["OMP_NUM_THREADS"] == "3"
    submitted(env_vars={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "7", "MY_OWN": "x", "RUN": "not mine"})
    assert environment.of_actor() == {n: v for n, v in ENVIRONMENT.items() if n not in environment.theirs()}
    told = of_pool()[0]["env_vars"]
    assert (told["HF_HUB_OFFLINE"], told["OMP_NUM_THREADS"], told["MY_OWN"], told["RUN"]) == ("1", "7", "x", "r")
    submitted()
    assert environment.of_actor() == ENVIRONMENT and environment.theirs() == {}


def test_a_pool_has_the_package_of_its_own_job_and_of_no_other(submitted):
    serves = {
        "working_dir": "gcs://_ray_pkg_1.zip",
        "py_modules": ["gcs://_ray_pkg_1m.zip"],
        "pip": {"packages": ["a"]},
    }
    submitted(**PACKAGE, worker_process_setup_hook="hook", config={"setup_timeout_seconds": 1})
    assert {k: v for k, v in of_pool(inherited=serves)[0].items() if k != "env_vars"} == PACKAGE
    assert environment.taken_over(serves) == ["pip"]
    submitted(working_dir="gcs://_ray_pkg_3.zip", pip={"packages": ["b"]}, _ray_commit="c")
    told = of_pool(inherited=serves)[0]
    assert (told["working_dir"], told["py_modules"], told["pip"]) == ("gcs://_ray_pkg_3.zip", [], {"packages": ["b"]})
    assert "PYTHONPATH" not in told["env_vars"] and environment.taken_over(serves) == []
    submitted()
    told = of_pool(inherited=serves)[0]
    assert (told["working_dir"], told["py_modules"]) == ("local:///", [])
    assert RayActorOptionsSchema(runtime_env=told)  # else Serve could not say its status any more
    code = told["env_vars"]["PYTHONPATH"].split(":")[0]
    assert os.path.isfile(os.path.join(code, "pipeline", "pools", "environment.py"))
    assert "working_dir" not in of_pool()[0]  # where Serve's job had none, there is nothing to be said


_NAMES = st.sampled_from(["A", "B", "MY_KEY", "C_TOKEN", "RAY_X", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"])
_SET = st.dictionaries(_NAMES, st.sampled_from(["1", "2"]), max_size=5)


@given(_SET, _SET, st.sets(st.sampled_from(["MY_KEY", "A"])))
def test_no_variable_of_serves_job_and_no_secret_stays(job, serves, keys):
    """Against Ray's rule: a replica has what Serve's controller has, with what is said of its own laid over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"env_vars": job}}))
        for name in ("A", "B", "MY_KEY", "C_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in job.items():
            patch.setenv(name, value)
        secret = environment.secrets(keys)
        told, unset = of_pool(secret, {"env_vars": serves})
    assert secret.keys() == keys | ({"MY_KEY", "C_TOKEN"} & job.keys())
    assert all(secret[name] == job.get(name, "") for name in secret)
    begun = serves | told["env_vars"]
    left = {name: value for name, value in begun.items() if name not in unset}
    ours = ENVIRONMENT | {"OMP_NUM_THREADS": "3"} | {n: v for n, v in job.items() if n not in secret}
    of_ray = {name: value for name, value in serves.items() if name == "RAY_X"}
    assert {n: v for n, v in left.items() if n not in ("RUN", "PYTHONPATH")} == of_ray | ours
    assert all(told["env_vars"][name] == "" for name in unset)


def test_the_keys_of_a_config_are_those_that_its_endpoints_name(monkeypatch):
    assert endpoints.keys(MINI) == set()
    monkeypatch.setenv("MY_KEY", "sk-1")
    config = load(None, ["teacher={kind: openai, base_url: 'http://x/v1', model: m, api_key_env: MY_KEY}"])
    assert environment.secrets(endpoints.keys(config)) == {"MY_KEY": "sk-1"}


class Made:
    def __init__(self, one):
        self.saw = (one, os.environ.get("MY_KEY"), os.environ.get("OTHERS"))


class MadeSlowly(Made):
    async def __init__(self, one):
        await asyncio.sleep(0)
        super().__init__(one)


class Local:
    """A handle of a vault that is here."""

    def __init__(self, **held):
        self.secrets = self
        self._vault = Vault(held)

    def remote(self):
        return self._vault.secrets()


@pytest.mark.parametrize("cls", [Made, MadeSlowly])
@pytest.mark.parametrize(("vault", "key"), [(Local(MY_KEY="sk-1"), "sk-1"), (None, None)])
def test_a_replica_has_its_secrets_and_nothing_of_others_when_it_is_made(monkeypatch, cls, vault, key):
    monkeypatch.setenv("MY_KEY", "")
    monkeypatch.setenv("OTHERS", "")

    async def begin():
        replica = object.__new__(cls_of := entrusted(cls, vault, ["MY_KEY", "OTHERS"]))
        await cls_of.__init__(replica, one=1)
        return replica

    replica = asyncio.run(begin())
    assert isinstance(replica, cls) and replica.saw == (1, key, None)


def test_a_class_that_needs_neither_is_left_as_it_is():
    assert entrusted(Made, None, []) is Made
