"""The train loop of one Ray Train worker: start once, then work, weights and checkpoints until the loader is empty.

Consumes steps from the loader, in order; produces weights (version = step), metrics and checkpoints. It waits for the
loader, for as long as the loader lets it (the driver unblocks it, and with the driver it goes), and for the other
ranks, with a deadline. All ranks take every turn together: they agree on whether there is a step before any of them
computes.

Where a node of a worker is about to be taken away, each step is stored, so that the workers that Ray Train starts
instead, as many or fewer, have nothing to train again; and a rank that loses such a worker in the middle of a step
waits until Ray Train, which knows why, ends it: a node that was announced to go counts as no failure.

A failure that the ranks agree on ends the loop with one line in its return value, so that Ray Train does not restart
workers that would fail again; everything else is raised, and Ray Train restarts from the last checkpoint.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import transformers

from pipeline.records import Failure
from trainers import checkpoints, weights
from trainers.batches import StepBatch
from trainers.learner import Learner
from trainers.loader import StepWork
from trainers.ranks import Agreed, Ranks
from trainers.schedule import learning_rate
from trainers.spec import TrainSpec

_NOTICE_S = 5.0
"""Time between two looks for such a notice: Ray Train itself looks as often."""
_UNDATED_S = 120.0
"""After a notice without a time Ray Train waits so long."""


def worker(config: dict[str, Any]) -> dict[str, Any]:
    """The function that Ray Train runs on each worker. Returns {"step", "metrics", "failure"}."""
    spec = TrainSpec.model_validate(config["spec"])
    for talkative in ("DeepSpeed", "ray.train"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's, on every call
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    end: dict[str, Any] = {"step": 0, "metrics": {}, "failure": None}
    notices = Notices(ranks)
    try:
        _run(spec, ranks, notices, config["loader"], config["weights"], config["pool"], end)
    except Agreed as e:
        end["failure"] = (str(e), e.kind)
    except Exception:
        time.sleep(notices.until_gone_s())
        raise
    return end


def _run(
    spec: TrainSpec, ranks: Ranks, notices: Notices, loader: Any, store: Any, pool: Any, end: dict[str, Any]
) -> None:
    learner = Learner(spec, ranks)
    publish = _publisher(learner, store, pool)
    step, rollouts = ranks.agree(partial(checkpoints.restore, learner))
    saved = end["step"] = step
    # A version that the store still has is not published again: so replicas that serve it need not go back to the
    # checkpoint's version while the trainer replays the steps, which are on disk.
    newest = 0
    if store is not None:
        newest = ranks.largest(_newest(store, spec.step_timeout_s) if ranks.rank == 0 else 0)
        if step > newest:
            publish(step)
    while True:
        waited = time.monotonic()
        batch = ranks.agree(partial(_next, loader, ranks, step + 1, spec.step_timeout_s))
        if batch is None:
            break
        began = time.monotonic()
        step += 1
        metrics = learner.update(batch, step, learning_rate(spec, step))
        rollouts += int(metrics["trajectories"])
        trained = time.monotonic()
        done_at = time.time()
        sent = 0
        if store is not None and step > newest and spec.publish_every and step % spec.publish_every == 0:
            sent = publish(step)
        published = time.monotonic()
        if step % spec.checkpoint_every == 0 or notices.given():
            checkpoints.save(learner, step, rollouts, metrics)
            saved = step
        metrics |= {
            "checkpoint": float(saved == step),
            "done_at": done_at,
            "time/wait_s": began - waited,
            "time/train_s": trained - began,
            "time/publish_s": published - trained,
            "time/checkpoint_s": time.monotonic() - published,
            "published_bytes": float(sent),
            "workers": float(ranks.world),
            "tokens_per_s": metrics["tokens"] / (trained - began),
        }
        end |= {"step": step, "metrics": metrics}
        if ranks.rank == 0:
            ray.get(loader.step_done.remote(step, metrics), timeout=spec.step_timeout_s)
    if step == 0:
        raise Agreed("the loader ended before its first step: nothing was trained")
    if saved < step:
        checkpoints.save(learner, step, rollouts, end["metrics"])


def _next(loader: Any, ranks: Ranks, step: int, timeout_s: float) -> StepBatch | None:
    try:
        work: StepWork | None = ray.get(loader.next_batch.remote(ranks.rank, ranks.world, step))
        if work is None:
            return None
        batches = [ray.get(b, timeout=timeout_s) if isinstance(b, ray.ObjectRef) else b for b in work.batches]
    except ray.exceptions.GetTimeoutError:
        raise Failure(f"step {step}: its batches did not arrive within {timeout_s:g} s", "infra_error") from None
    except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError):
        raise Failure(
            f"step {step}: the loader's process, or the owner of its batches, is gone", "infra_error"
        ) from None
    return StepBatch.from_arrow(batches)


class Notices:
    """Whether a node of a worker is about to be taken away."""

    def __init__(self, ranks: Ranks):
        self._ranks, self._due, self._told = ranks, 0.0, None

    def given(self) -> bool:
        """The same on all ranks, which ask together: Ray Train's answer is a meeting of all."""
        if self._told is None and self._ranks.first(lambda: time.monotonic() >= self._due):
            self._due = time.monotonic() + _NOTICE_S
            self._told = ray.train.get_preemption_info()
        return self._told is not None

    def until_gone_s(self) -> float:
        """Seconds until the node is gone and Ray Train has seen it; 0 without a notice."""
        if self._told is None:
            return 0.0
        left_s = _UNDATED_S if self._told.deadline_ms is None else self._told.deadline_ms / 1000 - time.time()
        return max(0.0, left_s) + _NOTICE_S


def _newest(store: Any, timeout_s: float) -> int:
    version: int = ray.get(store.latest.remote(), timeout=timeout_s)
    return version


def _publisher(learner: Learner, store: Any, pool: Any) -> Callable[[int], int]:
    """Takes a version, makes it known; returns the bytes that this rank has sent to the store."""
    spec, ranks, model = learner.spec, learner.ranks, learner.engine.module.lm
    dtype = getattr(torch, spec.publish_dtype)
    push: Callable[[int, int], None] | None = None
    if spec.transport != "object_store":
        from trainers.push import Push  # brings vLLM, which takes seconds to import

        push = Push(spec.transport, model, ranks, dtype, pool, spec.step_timeout_s)
    return lambda version: weights.publish(model, ranks.rank, dtype, store, version, spec.step_timeout_s, push)
