"""A training run beside the driver: its spec, its start in the launcher's process, and its progress.

Invariant: a trainer that fails ends whatever the driver waits for, with the trainer's cause, and no thread of the
driver waits for the trainer, so that an interrupted driver can shut Ray down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from actors.calls import within
from pipeline.config import MGPOStage, ModelConfig, SFTConfig, SolveStage, Supervised
from pipeline.flow.context import Context
from pipeline.pools.cluster import Cluster
from pipeline.pools.room import Asked
from pipeline.records import Failure, Stalled
from pipeline.store.run_stages import RUN_STAGES
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import watching
from trainers.spec import TrainSpec, TrainSummary

_POLL_S = 1.0


def trainable(field: str, model: ModelConfig) -> None:
    """Raises Failure for a model whose weights are not here."""
    if model.endpoint is not None:
        raise Failure(f"{field}.endpoint: a model behind an endpoint cannot be trained; expected {field}.path alone")


def spec_for(context: Context, stage: str, base: Path, steps: int | None = None) -> TrainSpec:
    """The training run of a stage, or of a solver's warm-up: its section of the config over the common `trainer`
    section. `steps`: how many it takes, where the section does not say it."""
    config = context.config
    sections: dict[str, Supervised | MGPOStage | SolveStage | None] = {
        "sft": config.sft,
        "mgpo": config.mgpo,
        "solve": config.solve,
        "solve.warmup": config.solve.warmup,
    }
    section = sections[stage]
    assert section is not None, "asked for where it is configured"
    served = {"mgpo": config.proposer, "solve": config.solve.base}.get(stage)
    transport = served.engine.weight_transport if served else "object_store"
    objective = SFTConfig() if isinstance(section, Supervised) else section.objective
    t = config.trainer
    return TrainSpec(
        base_model=base,
        objective=objective,
        lr=section.lr,
        warmup_steps=section.warmup_steps,
        schedule=section.schedule,
        lr_end=section.lr_end,
        steps=steps if isinstance(section, Supervised) else section.steps,
        mini_batches=1 if isinstance(section, Supervised) else section.mini_batches,
        passes=1 if isinstance(section, Supervised) else section.passes,
        betas=t.betas,
        weight_decay=t.weight_decay,
        grad_clip=t.grad_clip,
        zero_stage=t.zero_stage,
        workers=t.workers,
        min_workers=t.min_workers,
        resize_s=t.resize_s,
        use_gpu=t.use_gpu,
        gpus_per_worker=1.0 - served.pool.num_gpus if served and transport == "ipc" else 1.0,
        cpus_per_worker=t.num_cpus,
        resources=t.resources,
        labels=t.labels,
        threads=t.threads if t.use_gpu else max(1, t.threads // t.workers),
        micro_batch_tokens=t.micro_batch_tokens,
        activation_checkpointing=t.activation_checkpointing,
        offload=t.offload,
        reference=t.reference,
        lora=t.lora,
        dtype=t.dtype,
        storage=context.run.path("checkpoints"),
        name=stage,
        checkpoint_every=section.checkpoint_every,
        # Which one is best is known at the end.
        keep_checkpoints=None if isinstance(section, SolveStage) and section.dev else t.keep_checkpoints,
        publish_every=1 if stage in RUN_STAGES and RUN_STAGES[stage].on_policy else None,
        publish_dtype=t.publish_dtype,
        transport=transport,
        max_failures=t.max_failures,
        step_timeout_s=t.step_timeout_s,
        start_timeout_s=t.start_timeout_s,
        seed=context.seed(stage, "train"),
    )


def start_trainer(
    cluster: Cluster, spec: TrainSpec, loader: Any, weights: Any | None, pool: Any | None = None
) -> asyncio.Future[TrainSummary]:
    """Train in the launcher's process; the future has the summary or the Failure. `pool` is whom it pushes to. Raises
    Failure where the cluster can never have room for its workers."""
    launcher = cluster.launcher()
    for_nodes_s = cluster.nodes_may_take_s(Asked(f"training {spec.name}", spec.fewest, spec.each, spec.labels))
    patient = spec.model_copy(update={"start_timeout_s": spec.start_timeout_s + for_nodes_s})
    run = within(launcher.train.remote(patient, loader, weights, pool), f"training {spec.name}", None)
    future = asyncio.ensure_future(run)
    # The failure may come when nobody awaits the future any more; asyncio would complain of that on stderr.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def run_with_trainer(trainer: asyncio.Future[TrainSummary], work: Awaitable[None], end_s: float) -> TrainSummary:
    """Await `work`, then the trainer, which has `end_s` to put its last checkpoint away. If it fails first, cancel
    `work` and raise the trainer's error.

    Of a group of errors, as a TaskGroup in `work` raises them, the first is the cause. Raises Stalled after `end_s`.
    """
    task = asyncio.ensure_future(work)
    both: set[asyncio.Future[Any]] = {task, trainer}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if trainer.done() and trainer.exception() is not None and not task.done():
            raise trainer.exception()  # type: ignore[misc]
        await task
        return await _end_of(trainer, end_s)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _end_of(trainer: asyncio.Future[TrainSummary], end_s: float) -> TrainSummary:
    """The summary of a trainer whose loader has ended. Raises what it raised, or Stalled after `end_s`."""
    await asyncio.wait({trainer}, timeout=end_s)
    if not trainer.done():
        raise Stalled(f"the trainer has not ended {end_s:g} s after its last step (trainer.step_timeout_s)")
    return trainer.result()


async def train_with_progress(context: Context, stage: str, spec: TrainSpec, loader: Any, total: int) -> TrainSummary:
    """Train over a loader that has all its data, showing and logging each step."""
    trainer = start_trainer(context.cluster, spec, loader, None)
    last = 0
    with context.progress.stage(f"{stage}: train", total, "step") as progress:
        async with (
            watching(f"{stage}: train", context.config.trainer.step_timeout_s) as watchdog,
            showing(context.metrics, f"{stage}-now", watchdog.now),
        ):
            while True:
                await asyncio.wait({trainer}, timeout=_POLL_S)
                context.run.check_mirror()
                ended = trainer.done()  # asked before the steps, so that no step can come after the last look
                for step, metrics in sorted(
                    (await within(loader.done_since.remote(last), "dataset loader", 60)).items()
                ):
                    context.metrics.log(stage, step, metrics)
                    progress.advance(1, loss=metrics["loss"])
                    watchdog.beat(f"training step {step + 1}")
                    last = step
                if ended:
                    return await trainer
