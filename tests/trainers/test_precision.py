"""What DeepSpeed makes of a step in bfloat16, in one process without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pipeline.config import SFTConfig
from tests.trainers.worlds import batch_of, save_tiny_qwen3, some_rollouts
from trainers.batches import StepBatch
from trainers.learner import Learner
from trainers.policy import Policy
from trainers.ranks import Ranks
from trainers.spec import TrainSpec

pytestmark = pytest.mark.engine

MICRO_BATCH_TOKENS = 20


@pytest.fixture(scope="module")  # DeepSpeed takes one process group for the life of its process
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    rendezvous = tmp_path_factory.mktemp("gloo") / "rendezvous"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
            patch.setenv(name, value)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
        yield Ranks(0, 1, torch.device("cpu"))
        dist.destroy_process_group()


def gradients(base: Path, batch: StepBatch) -> dict[str, torch.Tensor]:
    """Of the SFT loss by plain autograd: a bfloat16 model, its micro-batches' gradients summed in float32."""
    policy = Policy.load(base, torch.bfloat16)
    total = {name: torch.zeros(p.shape) for name, p in policy.named_parameters()}
    micro_batches = batch.micro_batches(MICRO_BATCH_TOKENS)
    assert len(micro_batches) > 30
    for micro in micro_batches:
        policy.zero_grad()
        logp_K, _ = policy(micro)
        (-logp_K.sum() / len(batch.loss_N)).backward()
        for name, p in policy.named_parameters():
            assert p.grad is not None
            total[name] += p.grad.float()
    return total


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_the_gradients_of_many_micro_batches_are_summed_in_float32(
    alone: Ranks, tmp_path: Path, zero_stage: int
) -> None:
    """The first step's momentum is (1 - beta_1) of the gradient. Summed in bfloat16 it is off by 0.8 %."""
    from deepspeed.utils import safe_get_full_optimizer_state

    base, batch = save_tiny_qwen3(tmp_path / "base"), batch_of(some_rollouts(1, groups=12))
    spec = TrainSpec(
        base_model=base, objective=SFTConfig(), lr=1e-3, grad_clip=1e9, zero_stage=zero_stage, dtype="bfloat16",
        micro_batch_tokens=MICRO_BATCH_TOKENS, storage=tmp_path, name="run",
    )  # fmt: skip
    learner = Learner(spec, alone)
    learner.update(batch, 1, spec.lr)
    expected = gradients(base, batch)
    off = size = 0.0
    for name, p in learner.engine.module.named_parameters():
        momentum = safe_get_full_optimizer_state(p, "exp_avg")
        off += float(((momentum / (1 - spec.betas[0]) - expected[name].view_as(momentum)) ** 2).sum())
        size += float((expected[name] ** 2).sum())
    assert (off / size) ** 0.5 < 1e-4
