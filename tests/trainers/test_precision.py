"""What the learner makes of a step under DeepSpeed, in one process without Ray: many micro-batches in bfloat16, and
mini-batches and passes, against a plain loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from pipeline.config import GRPOConfig, MGPOConfig, SFTConfig
from pipeline.records import Rollout
from tests.trainers.oracles import plain_loss
from tests.trainers.test_policy import one_by_one
from tests.trainers.test_updates import owners, spec_of
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


# ---------------------------------------------------------------- the objective under r != 1, end to end


def plain(base: Path) -> Any:
    """The model with transformers' own attention."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def plain_updates(base: Path, spec: TrainSpec, parts: list[list[Rollout]], lr: float) -> tuple[Any, list[float]]:
    """The same updates written down plainly: transformers' own forward pass, one trajectory after another, weights by
    the loops of `oracles`, autograd, clipping, AdamW. Returns the model and the norms of its gradients."""
    lm, reference = plain(base), plain(base)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=lr, betas=spec.betas, weight_decay=spec.weight_decay)
    norms = []
    for part in parts:
        optimizer.zero_grad()
        logp = one_by_one(lm, part)
        with torch.no_grad():
            ref = one_by_one(reference, part)
        plain_loss(part, spec.objective, logp, ref).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(lm.parameters(), spec.grad_clip)))
        optimizer.step()
    return lm, norms


def on_policy(base: Path, rollouts: list[Rollout]) -> list[Rollout]:
    """The rollouts as if the model itself had sampled them: r is 1 before the first update."""
    with torch.no_grad():
        logp = one_by_one(plain(base), rollouts).tolist()
    found = []
    for rollout in rollouts:
        own = [logp.pop(0) if masked else 0.0 for masked in rollout.loss_mask]
        found.append(rollout.model_copy(update={"logprobs": tuple(own)}))
    return found


@pytest.mark.parametrize(
    "objective",
    [
        MGPOConfig(),
        MGPOConfig(baseline="stage", zero_sum="trajectories", ratio="action"),
        GRPOConfig(importance_cap=None, kl=0.1),
    ],
    ids=["mgpo", "mgpo-stage", "grpo"],
)  # fmt: skip
def test_mini_batches_and_passes_take_the_steps_of_a_plain_loop_and_the_gate_acts(
    alone: Ranks,
    tmp_path: Path,
    objective: Any,
) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    rollouts = on_policy(base, some_rollouts(3, groups=4))
    spec = spec_of(
        base, objective=objective, lr=1e-2, grad_clip=0.05, mini_batches=2, passes=2, micro_batch_tokens=60, steps=9,
        weight_decay=0.1,
    )  # fmt: skip
    batch = batch_of(rollouts)
    parts = [
        owners(rollouts, batch, part) for pass_ in range(2) for part in batch.mini_batches(2, (spec.seed, 5, pass_, 0))
    ]
    learner = Learner(spec, alone)
    metrics = learner.update(batch, 5, spec.lr)
    expected, norms = plain_updates(base, spec, parts, spec.lr)
    before = plain(base).state_dict()
    ours = learner.engine.module.lm.state_dict()
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in expected.state_dict().items())
    assert moved > 5e-3
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0.03 * moved, msg=name)
    assert metrics["grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=2e-2)
    assert metrics["grad_clipped"] == pytest.approx(sum(norm > spec.grad_clip for norm in norms) / len(norms))
    assert (metrics["updates"], metrics["trajectories"]) == (4, len(rollouts))
    assert metrics["tokens"] == 2 * len(batch.loss_N)
    if isinstance(objective, MGPOConfig):
        assert 0 < metrics["gate_below_1"] <= 0.75  # not in the first of four updates
        assert metrics["gate"] < 1
    else:
        assert metrics["clip_share"] > 0


def test_one_update_a_step_leaves_the_gate_open(alone: Ranks, tmp_path: Path) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    learner = Learner(spec_of(base, lr=1e-2), alone)
    metrics = learner.update(batch_of(on_policy(base, some_rollouts(3))), 1, 1e-2)
    assert metrics["gate"] == pytest.approx(1, abs=1e-6)
    assert (metrics["gate_below_1"], metrics["updates"]) == (0, 1)


def test_the_norm_is_that_of_the_gradients_of_all_ranks(
    alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed reduces within its step: a reduction that makes gradients three times as large, as a rank might."""
    base = save_tiny_qwen3(tmp_path / "base")
    batch = batch_of(on_policy(base, some_rollouts(3)))
    norms: list[float] = []
    for factor in (1.0, 3.0):
        learner = Learner(spec_of(base, lr=1e-2), alone)

        def reduced(*_: Any, engine: Any = learner.engine, factor: float = factor, **__: Any) -> None:
            for p in engine.module.parameters():
                if engine.is_gradient_accumulation_boundary() and p.grad is not None:
                    p.grad.mul_(factor)

        monkeypatch.setattr(learner.engine, "allreduce_gradients", reduced)
        norms.append(learner.update(batch, 1, 1e-2)["grad_norm"])
    assert norms[1] == pytest.approx(3 * norms[0], rel=1e-4)


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])  # of the second, a module has frequencies for each kind of layer
def test_what_is_loaded_by_parts_has_the_same_rotary_frequencies(alone: Ranks, tmp_path: Path, kind: str) -> None:
    base = save_tiny_qwen3(tmp_path / "base") if kind == "qwen3" else tmp_path / "base"
    if kind == "gemma3":
        sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
        Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads)).save_pretrained(base)
    spec = TrainSpec(
        base_model=base, objective=SFTConfig(), lr=1e-3, zero_stage=3, dtype="bfloat16", storage=tmp_path, name="run"
    )
    whole, parted = Policy.load(base, torch.bfloat16), Learner(spec, alone).engine.module
    found = dict(parted.named_buffers())
    assert any(name.endswith("inv_freq") for name in found)
    for name, buffer in whole.named_buffers():
        assert found[name].dtype == buffer.dtype and torch.equal(found[name], buffer), name
