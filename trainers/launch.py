"""`Launcher.train`: run the loop under Ray Train.

Blocks until the run has ended; the wait is bounded by the loop's own deadlines. Ray must be up. A driver has it as an
actor: a process that shuts Ray down while a thread of its own waits for Ray dies of SIGSEGV.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from pipeline.records import Failure, Lost
from trainers.spec import TrainSpec, TrainSummary

GROUP_START_S = 60
"""Ray Train's own limit for one try to start the workers; tries are repeated up to `start_timeout_s`."""

POLL_S = "0.3"
"""How often Ray Train looks after its workers: a checkpoint, and the end of the run, wait for the next look."""

_FULL = (os.strerror(errno.ENOSPC), "object store is full")
"""In a cause: storage that would be full again."""


class Launcher:
    """An actor beside the driver, for as long as a run trains."""

    def __init__(self, theirs: Collection[str] = ()):
        """`theirs`: variables that the user has set for the workers, so that we do not."""
        self._theirs = theirs

    def train(self, spec: TrainSpec, loader: Any, weights: Any | None = None, pool: Any | None = None) -> TrainSummary:
        """Train until the loader is empty, from the last checkpoint of `spec.name` if there is one.

        `loader` and `weights` are actor handles (see trainers.loader); `pool`, the Serve handle of the replicas that a
        `spec.transport` other than object_store pushes to. Raises Failure, one line with the cause; Lost where a
        process is gone, and the same call may go better.
        """
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
        trainer = _Trainer(
            _worker,  # type: ignore[arg-type]  # annotated as returning None, but Result has its return value
            train_loop_config={
                "spec": spec.model_dump(mode="json"),
                "loader": loader,
                "weights": weights,
                "pool": pool,
            },
            # Ranks meet after each has waited for the loader, so they must be more patient than that.
            torch_config=TorchConfig(
                backend="nccl" if spec.use_gpu else "gloo", timeout_s=math.ceil(2 * spec.step_timeout_s)
            ),
            scaling_config=ScalingConfig(
                # Where they may be fewer, Ray Train starts as many as there are nodes for.
                num_workers=spec.workers if spec.fewest == spec.workers else (spec.fewest, spec.workers),
                elastic_resize_monitor_interval_s=spec.resize_s,
                use_gpu=spec.use_gpu,
                resources_per_worker=spec.each,
                label_selector=spec.labels or None,
            ),
            run_config=RunConfig(  # type: ignore[arg-type]  # the trainer is annotated with the v1 class
                name=spec.name,
                storage_path=str(spec.storage),
                failure_config=FailureConfig(
                    max_failures=spec.max_failures,
                    controller_failure_limit=math.ceil(spec.start_timeout_s / GROUP_START_S) - 1,
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=spec.keep_checkpoints),
                logging_config=LoggingConfig(log_level="ERROR"),
                worker_runtime_env={"env_vars": _environment(spec, self._theirs)},
            ),
        )
        try:
            result: Any = trainer.fit()
        except TrainingFailedError as e:
            cause = _cause(e, spec)
            again = not _no_room(e) and not any(full in cause for full in _FULL)
            raise (Lost if again else Failure)(f"training {spec.name}: {cause}", "infra_error") from e
        end = result.return_value
        if end["failure"] is not None:
            message, kind = end["failure"]
            raise (Lost if kind == "infra_error" else Failure)(f"training {spec.name}: {message}", kind)
        return TrainSummary(checkpoint=Path(result.checkpoint.path), step=end["step"], metrics=end["metrics"])


class _Trainer(TorchTrainer):
    """Without Ray Train's cleaner of placement groups: the detached actor that it is never ends once its trainer was
    killed, because it leaves by a thread of its own. What a driver leaves, groups too, is for its lease to remove."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]  # not known to mypy
        return [one for one in made if not isinstance(one, PlacementGroupCleanerCallback)]


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """Imports the loop where it runs: it brings DeepSpeed, which reads its environment once, when imported."""
    from trainers.loop import worker

    return worker(config)


def _environment(spec: TrainSpec, theirs: Collection[str]) -> dict[str, str]:
    """But for `theirs`: set before a worker imports torch and DeepSpeed, which read them once."""
    env = {"OMP_NUM_THREADS": str(spec.threads), "TOKENIZERS_PARALLELISM": "false"}
    # A thread that waits for another one spins by default, and takes the core that the other one needs where cores are
    # shared: 90 steps of SFT took 4 min 2 s, with threads that sleep 1 min 51 s, under as much load of others.
    env |= {} if spec.use_gpu else {"DS_ACCELERATOR": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
    return {name: value for name, value in env.items() if name not in theirs}


def _cause(error: TrainingFailedError, spec: TrainSpec) -> str:
    """The last line of the first worker's error, which is where Python names it."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        rank, failure = min(error.worker_failures.items())
        return f"worker {rank}: {_last_line(failure)}"
    if _no_room(error):
        more = "".join(f" and {name} {amount:g}" for name, amount in spec.resources.items())
        more = (" and a GPU" if spec.use_gpu else "") + more
        more += f" on nodes with {spec.labels}" if spec.labels else ""
        return (
            f"the cluster had no room for {spec.fewest} workers of {spec.cpus_per_worker:g} CPUs{more} "
            f"within {spec.start_timeout_s:g} s"
        )
    return _last_line(error.controller_failure if isinstance(error, ControllerError) else error)


def _no_room(error: TrainingFailedError) -> bool:
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("pipeline.records.Failure: ") if lines else type(error).__name__
