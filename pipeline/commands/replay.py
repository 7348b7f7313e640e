"""Replay: recorded steps of MGPO or solve, trained again from the run's files, and compared bit for bit.

    checkpoint before the step ──► the run's own trainer ──► weights ──► the run's checkpoint of the step,
              steps/<stage>/NNNNNN/rollouts.parquet ──┘                  or, where it kept none, a second replay

It starts from the last checkpoint before the step that the run still has (from the model that the stage began with
where there is none) and trains the steps after it, as Ray Train does after a crash. Nothing is sampled, so all that
may differ is arithmetic. On a CPU none does, for the order of rows, micro-batches and sums follows from the files, the
config and the number of threads; another kind of processor, or a GPU, may add up in another order.

Invariant: the run is only read; what is trained goes to a scratch folder in its directory, where every node that trains
can reach it, and is deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from actors.calls import within
from pipeline import domains
from pipeline.commands.driver import closing
from pipeline.config import Config
from pipeline.flow import warmup
from pipeline.flow.context import Context
from pipeline.flow.training import run_with_trainer, spec_for, start_trainer
from pipeline.pools.cluster import Cluster
from pipeline.pools.loaders import StepLoader
from pipeline.records import Failure
from pipeline.store import accounts
from pipeline.store.manifest import Damage, brief
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.snapshot import CHECKPOINTS
from pipeline.watch.progress import Progress


def replay(run: RunDir, config: Config, stage: str, step: int | None) -> dict[str, Any]:
    """Train `step` (None: the last one) again; the keys are `keys.REPLAY_KEYS`. Blocks.

    Raises Failure where the run has no such step, or its ledger does not add up.
    """
    steps = run.steps(stage)
    if not steps:
        raise Failure(f"run directory {run.root}: has no step of {stage}; run `propose {stage}` first")
    step = len(steps) if step is None else step
    if not 1 <= step <= len(steps):
        raise Failure(f"--step {step}: expected 1 to {len(steps)}, the steps of {stage} in {run.root}")
    accounts.check(run, stage)
    kept = [checkpoint["step"] for checkpoint in accounts.audit(run)["stages"][stage]["checkpoints"]]
    origin = max((s for s in kept if s < step), default=0)
    once = step in kept

    with tempfile.TemporaryDirectory(prefix=".replay-", dir=run.root) as scratch, Progress() as progress:
        cluster = Cluster(config, Path(scratch))

        async def work() -> list[dict[str, str]]:
            found = [digests(_folder(run, stage, step))] if once else []
            for again in range(2 - len(found)):
                progress.say("replay", f"{stage} steps {origin + 1} to {step}, from {_origin(origin)}")
                own = RunDir(Path(scratch, str(again)))
                own.path("checkpoints").mkdir(parents=True)
                with Metrics(own) as metrics:
                    context = Context(config, own, cluster, metrics, progress)
                    found.append(digests(await _train(context, run, stage, origin, step)))
            return found

        one, other = asyncio.run(closing(cluster, work()))
    return {
        "stage": stage,
        "step": step,
        "from": origin,
        "compared_with": "run" if once else "second replay",
        "tensors": len(one),
        "sha256": hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest(),
        "different": sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)),
    }


def digests(model_dir: Path) -> dict[str, str]:
    """Tensor of a Hugging Face directory -> SHA-256 of its type, shape and bytes. Raises Damage."""
    found = {}
    for file in sorted(model_dir.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (safetensors is no mapping)
                    tensor = tensors.get_tensor(name)
                    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
                    found[name] = digest.hexdigest()
        except (OSError, SafetensorError) as e:
            raise Damage(file, f"is not readable as weights ({brief(e)})") from None
    return found


async def _train(context: Context, run: RunDir, stage: str, origin: int, step: int) -> Path:
    """Train the steps of `run` after `origin` up to `step` in the context's directory; returns the checkpoint."""
    if origin:
        _begin_at(run, context.run, stage, origin)
    timeout_s = context.config.trainer.step_timeout_s
    loader = context.cluster.actor(StepLoader, [str(s) for s in run.steps(stage)[:step]], timeout_s)
    await within(loader.finish.remote(), "step loader", 60)
    spec = spec_for(context, stage, _base(run, context.config, stage))
    # One checkpoint, at the end, beside the one it began with.
    spec = spec.model_copy(update={"checkpoint_every": step + 1, "keep_checkpoints": 2})

    async def trained() -> None:
        for number in range(origin + 1, step + 1):
            await within(loader.wait_done.remote(number), "the trainer", None)

    return (await run_with_trainer(start_trainer(context.cluster, spec, loader, None), trained(), timeout_s)).checkpoint


def _begin_at(run: RunDir, own: RunDir, stage: str, origin: int) -> None:
    """A copy of one checkpoint, as the only one that Ray Train knows of. A copy, for Ray Train deletes what is old."""
    name = _folder(run, stage, origin).name
    shutil.copytree(_folder(run, stage, origin), own.path("checkpoints", stage, name))
    state = json.loads(run.path("checkpoints", stage, CHECKPOINTS).read_text())
    (mine,) = (c for c in state["checkpoint_results"] if c["checkpoint_dir_name"] == name)
    state |= {
        "checkpoint_results": [mine],
        "latest_checkpoint_result": mine,
        "checkpoint_report_indices": [0],
        "current_report_index": 1,
    }
    own.write_json(f"checkpoints/{stage}/{CHECKPOINTS}", state)


def _base(run: RunDir, config: Config, stage: str) -> Path:
    if stage == "solve":
        return warmup.begun_with(run, domains.of(config.domain).model(config.solve.base.path))
    done = run.result("sft")
    if done is None:
        raise Failure(f"run directory {run.root}: has no result of sft, which {stage} began with")
    return Path(done["result"]["checkpoint"])


def _folder(run: RunDir, stage: str, step: int) -> Path:
    return run.path("checkpoints", stage, f"step-{step:06d}")


def _origin(step: int) -> str:
    return f"the checkpoint of step {step}" if step else "the model that the stage began with"
