"""The lease of a run on a cluster that it shares: what a driver leaves behind goes, whatever ended the driver.

    driver ── makes, before its first pool ──► lease, a detached actor with the name of the run
    job table of Ray's ── the driver's job has ended ──► lease removes what the run has there, then itself

There is no heartbeat of our own: Ray notices within a second that a driver's process is gone, and in less than a minute
that its node is, and a driver that is merely slow keeps its pools.

Invariants: no application of a run is deployed before its lease stands. A lease ends only when nothing of its run is
left. Whose it is was said when it was made, so that one that Ray starts again, on another node, goes on as the same.
It touches what bears the name of its run, or the id of its driver's job, and nothing else. Two drivers never hold one
run: the second waits until the first has ended and its lease with it, and is refused where the first lives.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import ray
from ray import PlacementGroupID, serve
from ray.util.placement_group import PlacementGroup

from pipeline.config import Config
from pipeline.pools import environment
from pipeline.pools.ray_process import first_line
from pipeline.records import Failure
from pipeline.store.identity import identity_of

logger = logging.getLogger(__name__)

NAMESPACE = "propose"
_LOOK_S = 1.0
_GRACE_S = 5.0
"""What replicas may take to end by themselves: nobody waits for their answers any more."""
_PATIENCE_S = 90.0
"""How long a driver waits for what an earlier one of its run left."""
_END_S = 3.0
"""How long a driver waits for its own lease to end. It goes on without."""


def name_of(config: Config, root: Path | None) -> str:
    """The name of a run on a cluster: of its config, with the digest that its directory has by default, and of the
    place where it lives. What has no run directory (None) gets a name that nothing else has."""
    place = uuid.uuid4().hex if root is None else hashlib.sha256(os.path.realpath(root).encode()).hexdigest()
    return f"{config.name}-{identity_of(config)[:8]}-{place[:8]}"


class Held:
    """The lease that this process holds. Raises Failure where another driver holds it, or where something that an
    earlier one left does not go."""

    def __init__(self, run: str):
        job = ray.get_runtime_context().get_job_id()
        kind: Any = ray.remote(Lease).options(
            name=run,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=8,
            runtime_env={"env_vars": environment.of_actor()},
        )
        deadline, why = time.monotonic() + _PATIENCE_S, "it does not answer"
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                self._actor = kind.remote(run, job)
                holder = ray.get(self._actor.begin.remote(job), timeout=left_s)
            except ray.exceptions.GetTimeoutError:
                why = "what an earlier driver left does not go"
            except ray.exceptions.RayActorError as e:  # mostly one that has ended just now
                why = first_line(e)
            else:
                if holder is None:
                    return
                why = f"it is held by {holder}; wait for its end, or stop it"
            time.sleep(_LOOK_S / 2)
        raise Failure(f"run {run}: the cluster gave no lease within {_PATIENCE_S:g} s: {why}", "infra_error")

    def end(self, wait: bool) -> None:
        """Give the lease back. What is left when this returns, at most `_END_S` later, the lease removes."""
        ending = self._actor.end.remote()
        if wait:
            ray.wait([ending], timeout=_END_S)


class Lease:
    """The detached actor. Its calls may come side by side."""

    def __init__(self, run: str, job: str):
        """`job`: Ray's id of the driver's job."""
        self._run, self._job = run, job
        self._ending, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, job: str) -> str | None:
        """Who holds it, in words, if not `job`; else None, and then nothing of the run is there."""
        if job != self._job:
            return _told(self._job)
        _remove(self._run, job)  # a lease that somebody killed left it
        return None

    def end(self) -> None:
        """Returns when nothing of the run is left."""
        self._ending.set()
        self._ended.wait()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_S) and not self._over():
            pass
        _remove(self._run, self._job)
        self._ended.set()
        time.sleep(_LOOK_S)  # who called `end` gets the answer
        while True:  # until this process ends with it
            with contextlib.suppress(Exception):  # of a head that restarts
                ray.kill(ray.get_actor(self._run, NAMESPACE))
            time.sleep(_LOOK_S)

    def _over(self) -> bool:
        try:
            return all(info.is_dead for info in _jobs(self._job))
        except Exception as e:  # Ray's head restarts: nothing is known, so nothing is taken away
            logger.warning("lease of %s: job table: %s", self._run, e)
            return False


def remove_groups(job: str) -> None:
    """The placement groups of a job, which Ray keeps until it ends, though their trainer was killed."""
    for group, told in ray.util.placement_group_table().items():
        # Serve's have names, and its controller makes them, whosever replicas they hold, by the job that began it.
        if group.endswith(job) and not told["name"] and told["state"] != "REMOVED":
            ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _remove(run: str, job: str) -> None:
    """Until nothing of the run was there twice in a row: the last call of a driver may still have been under way."""
    began, empty = time.monotonic(), 0
    while empty < 2:
        try:
            left = _applications(run)
            for app in left:
                serve.delete(app, _blocking=False)
            if time.monotonic() - began > _GRACE_S:
                _kill_replicas(left)
            remove_groups(job)
            empty = 0 if left else empty + 1
        except Exception as e:  # of a controller or head that restarts
            logger.warning("lease of %s: %s; is tried again", run, e)
            serve.context._set_global_client(None)
            empty = 0
        time.sleep(_LOOK_S / 2)


def _applications(run: str) -> list[str]:
    return [app for app in serve.status().applications if app.startswith(f"{run}-")]


def _kill_replicas(apps: list[str]) -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(tuple(f"SERVE_REPLICA::{app}#" for app in apps)):
            ray.kill(ray.get_actor(actor["name"], actor["namespace"]))


def _jobs(job: str) -> list[Any]:
    """What Ray's head says of a job; nothing where it has forgotten it."""
    process: Any = ray._private.worker.global_worker
    found = process.gcs_client.get_all_job_info(
        job_or_submission_id=job, skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return list(found.values())


def _told(job: str) -> str:
    submitted = [info.config.metadata.get("job_submission_id") for info in _jobs(job)]
    return next((f"the Ray job {name}" for name in submitted if name), f"the driver of Ray's job {job}")
