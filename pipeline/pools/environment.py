"""What the processes of a run find in their environment, wherever Ray starts them.

    what the submitted job sets   wins over   what a pool or actor asks for   wins over   ENVIRONMENT

Serve's controller starts the replicas of everybody in the environment of the job that started Serve, unless it is told
another. So a pool is told all of its own: the package and the variables of our job, and that what Serve's job had
beside them is not ours.

Invariant: no secret is in a runtime environment that we make. Ray writes those into its logs and Serve into its status;
the run's vault (`actors/vault.py`) gives secrets to replicas that have started.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from pipeline.records import Lost

ENVIRONMENT = {
    # Whatever runs on a CPU shares few cores: one thread, unless a pool or trainer says otherwise.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
    "VLLM_NO_USAGE_STATS": "1",
    # vLLM's logging set-up would close Serve's log handlers. A Serve controller that was restarted asks each replica
    # for its log file, and replaces a replica that has none.
    "VLLM_CONFIGURE_LOGGING": "0",
}
"""Of every process that Ray starts for us."""

_SECRET = {"KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}
"""A variable with one of these words in its name holds a secret."""
_OF_RAY = "RAY_"
"""Variables that Ray's own processes read before any code of ours runs there."""
_NONE: dict[str, Any] = {"working_dir": "local:///", "py_modules": []}
"""What to say in a field of a runtime environment that is not to be inherited: nothing, or a folder that each node has.
Serve's status, everybody's, fails where a deployment's `working_dir` is no URI."""
_NO_PACKAGE = ("env_vars", "config", "worker_process_setup_hook", "_ray_commit", "_inject_current_ray")


def submitted() -> dict[str, Any]:
    """What Ray says of the submitted job that we are; nothing where there was no submission."""
    told: dict[str, Any] = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return told


def theirs() -> dict[str, str]:
    """The variables that the submitted job that we are sets itself."""
    return dict(_of_job().get("env_vars") or {})


def secrets(keys: Collection[str]) -> dict[str, str]:
    """Variable -> value, "" where it is not set: `keys`, and what the submitted job sets under a secret's name."""
    named = {name for name in theirs() if not name.startswith(_OF_RAY) and _SECRET & set(name.upper().split("_"))}
    return {name: os.environ.get(name, "") for name in sorted({*keys, *named})}


def of_actor() -> dict[str, str]:
    """The variables of an actor that this driver makes: it has those of the job already, which win."""
    return {name: value for name, value in ENVIRONMENT.items() if name not in theirs()}


def of_pool(
    asks: Mapping[str, str], tags: Mapping[str, str], secret: Collection[str], inherited: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The runtime environment of a pool's replicas, and the variables that are to be unset once they have started,
    because Ray can only make them empty.

    `asks`: what the pool asks for; `tags`: how its replicas know whose they are, which nothing wins over; `secret`:
    variables that it must not show; `inherited`: as `of_serve` says.
    """
    job = {name: value for name, value in theirs().items() if name not in secret}
    ours = ENVIRONMENT | _code() | dict(asks) | job | dict(tags)
    others = {name for name in inherited.get("env_vars") or {} if not name.startswith(_OF_RAY)}
    unset = sorted((others | set(secret)) - set(ours))
    package = {field: none for field, none in _NONE.items() if field in inherited} | _package()
    return package | {"env_vars": dict.fromkeys(unset, "") | ours}, unset


def of_serve() -> dict[str, Any]:
    """The runtime environment of Serve's controller, which its replicas inherit. Raises Lost where there is none."""
    try:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
        told = ray._private.state.state.get_actor_info(controller._actor_id)
    except ValueError:
        told = None
    if told is None:
        raise Lost("Serve's controller is gone: somebody has shut Serve down")
    table: Any = gcs_pb2  # whose names are made at run time
    found: dict[str, Any] = json.loads(table.ActorTableData.FromString(told).serialized_runtime_env or "{}")
    return found


def taken_over(inherited: Mapping[str, Any]) -> list[str]:
    """The fields that a pool has from the job that started Serve, whatever it says itself."""
    return sorted(set(inherited) - {*_NO_PACKAGE, *_NONE, *_package()})


def _of_job() -> dict[str, Any]:
    return submitted().get("runtime_env") or {}


def _package() -> dict[str, Any]:
    """The code and the installations that our job brings along."""
    return {field: value for field, value in _of_job().items() if field not in _NO_PACKAGE}


def _code() -> dict[str, str]:
    """Where replicas find what this driver runs, if it comes neither with the job nor with what is installed."""
    root = Path(__file__).parents[2]
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if root in installed or not _NONE.keys().isdisjoint(_package()):
        return {}
    return {"PYTHONPATH": f"{root}:${{PYTHONPATH}}"}
