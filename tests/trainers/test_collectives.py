"""Several ranks with unequal shares of a step and a vocabulary of a real model's size, against one plain process:
transformers' own forward pass, one trajectory after another, the loops of `oracles`, and autograd. Ranks over gloo,
under each of DeepSpeed's stages; the vocabulary projection is cut into pieces, not equally many on each rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import GRPOConfig, MGPOConfig, MGPONoStageConfig, SFTConfig
from pipeline.records import Rollout
from tests.trainers.oracles import plain_loss
from tests.trainers.processes import in_ranks
from tests.trainers.test_policy import one_by_one
from tests.trainers.test_updates import spec_of
from tests.trainers.worlds import batch_of, make_rollout, save_tiny_qwen3

pytestmark = pytest.mark.engine

WORDS = 49_152
PIECE = 40
"""Loss tokens of a piece of the vocabulary projection; micro-batches have between none and 100."""
OBJECTIVES: dict[str, Any] = {
    "sft": SFTConfig(),
    "mgpo": MGPOConfig(scope="batch"),
    "mgpo-no-stage": MGPONoStageConfig(),
    "grpo": GRPOConfig(importance_cap=None, kl=0.1),
}


@dataclass(frozen=True)
class Case:
    objective: str
    zero_stage: int
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.objective, f"zero {self.zero_stage}", *(f"{k}={v}" for k, v in self.changes)])


def rollouts_of(seed: int, groups: int) -> list[Rollout]:
    """Groups of three, of 10 to 90 loss tokens each; the first group's are longest."""
    rng = np.random.default_rng(seed)
    found = []
    for group in range(groups):
        for member in range(3):
            actions = [(int(rng.integers(4)), float(rng.normal()), int(rng.integers(5, 30 if group else 60)))] * 2
            name = f"{group}-{member}"
            rollout = make_rollout(name, f"g{group}", actions, float(rng.normal()), rng)
            ids = rng.integers(0, WORDS, len(rollout.token_ids)).tolist()
            engine = [-10.8 + float(rng.normal(0, 0.1)) if m else 0.0 for m in rollout.loss_mask]
            found.append(rollout.model_copy(update={"token_ids": tuple(ids), "logprobs": tuple(engine)}))
    return found


def share(rollouts: list[Rollout], rank: int, world: int) -> list[Rollout]:
    """Whole groups, in turn: of two groups, the third rank has none."""
    groups = sorted({rollout.group_id for rollout in rollouts})
    return [rollout for rollout in rollouts if groups.index(rollout.group_id) % world == rank]


def train(ranks: Any, base: Path, cases: list[Case], steps: list[list[Rollout]], lr: float) -> dict[str, Any]:
    """Case -> the gradient of the last step but for its clipping, all parameters then, and each step's metrics."""
    from trainers import head
    from trainers.learner import Learner

    head.CHUNK = PIECE * WORDS
    found = {}
    for case in cases:
        spec = spec_of(
            base, objective=OBJECTIVES[case.objective], zero_stage=case.zero_stage, workers=ranks.world, lr=lr,
            grad_clip=1e9, micro_batch_tokens=110, betas=(0.0, 0.95), **dict(case.changes),
        )  # fmt: skip
        learner = Learner(spec, ranks)
        found[f"{case.name}, of each tensor here"] = [of_it_here(p) for p in learner.engine.module.parameters()]
        metrics = []
        for number, rollouts in enumerate(steps, 1):
            metrics.append(learner.update(batch_of(share(rollouts, ranks.rank, ranks.world)), number, lr))
        found[case.name] = (gradients(learner), parameters(learner), metrics)
    return found


def gradients(learner: Any) -> dict[str, torch.Tensor]:
    """Without momentum, AdamW's first moment is the gradient."""
    from deepspeed.utils import safe_get_full_optimizer_state

    named = learner.engine.module.lm.named_parameters()
    if learner.spec.zero_stage == 0:
        return {name: learner.engine.optimizer.state[p]["exp_avg"].clone() for name, p in named}
    return {name: safe_get_full_optimizer_state(p, "exp_avg").clone() for name, p in named}


def of_it_here(parameter: Any) -> float:
    """Share of a tensor's elements that this rank holds between passes."""
    if not hasattr(parameter, "ds_tensor") or parameter.numel():
        return 1.0
    return float(parameter.ds_tensor.numel() / parameter.ds_numel)


def parameters(learner: Any) -> dict[str, torch.Tensor]:
    from trainers.weights import gathered

    return dict(gathered(learner.engine.module.lm, 0, None))


def plainly(base: Path, objective: Any, steps: list[list[Rollout]], lr: float) -> tuple[Any, ...]:
    """The same steps in one process."""
    from transformers import AutoModelForCausalLM

    lm, reference = (AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2))
    optimizer = torch.optim.AdamW(lm.parameters(), lr=lr, betas=(0.0, 0.95), weight_decay=0.0)
    losses = []
    for rollouts in steps:
        optimizer.zero_grad()
        logp = one_by_one(lm, rollouts)
        with torch.no_grad():
            ref = one_by_one(reference, rollouts)
        loss = plain_loss(rollouts, objective, logp, ref)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    named = dict(lm.named_parameters())
    return {n: p.grad for n, p in named.items()}, {n: p.detach() for n, p in named.items()}, losses


def check_gradients(found: list[dict[str, Any]], base: Path, cases: list[Case], rollouts: list[Rollout]) -> None:
    for objective in {case.objective for case in cases}:
        expected, _, _ = plainly(base, OBJECTIVES[objective], [rollouts], 0.0)
        largest = max(float(tensor.abs().max()) for tensor in expected.values())
        for case in (case for case in cases if case.objective == objective):
            for rank, of in enumerate(found):
                for name, tensor in of[case.name][0].items():
                    torch.testing.assert_close(
                        tensor.view_as(expected[name]), expected[name], rtol=1e-3, atol=1e-5 * largest,
                        msg=lambda why, where=(case.name, rank, name): f"{where}: {why}",
                    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen3(tmp_path_factory.mktemp("model") / "base", vocab_size=WORDS, hidden_size=16)


def test_two_ranks_have_the_gradients_of_one_process(base: Path, tmp_path: Path) -> None:
    cases = [Case("mgpo", 3), Case("grpo", 2), Case("sft", 0)]
    rollouts = rollouts_of(0, groups=3)
    check_gradients(in_ranks(2, train, tmp_path, base, cases, [rollouts], 0.0), base, cases, rollouts)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_have_the_gradients_of_one_process_whatever_is_trained_and_shared(
    base: Path, tmp_path: Path, world: int
) -> None:
    """Of three ranks, the last has nothing to do."""
    cases = [Case(objective, stage) for objective in OBJECTIVES for stage in (0, 1, 2, 3)]
    rollouts = rollouts_of(1, groups=2 if world == 3 else 3)
    check_gradients(in_ranks(world, train, tmp_path, base, cases, [rollouts], 0.0), base, cases, rollouts)


@pytest.mark.slow
def test_what_saves_memory_changes_no_gradient(base: Path, tmp_path: Path) -> None:
    again = ("activation_checkpointing", True)
    cases = [
        Case("mgpo", 0, (again,)),
        Case("mgpo", 2, (again, ("reference", "sharded"))),
        Case("mgpo", 3, (again, ("reference", "sharded"))),
        Case("grpo", 3, (("reference", "offloaded"),)),
        Case("sft", 1, (("offload", "optimizer"),)),
        Case("mgpo", 2, (("offload", "optimizer"),)),
        Case("grpo", 3, (("offload", "optimizer"),)),
        Case("mgpo", 3, (again, ("offload", "parameters"))),
    ]
    rollouts = rollouts_of(2, groups=3)
    found = in_ranks(2, train, tmp_path, base, cases, [rollouts], 0.0)
    check_gradients(found, base, cases, rollouts)
    for of in found:  # small tensors, which DeepSpeed keeps whole, aside
        assert 0.5 in of["mgpo zero 3 activation_checkpointing=True reference=sharded, of each tensor here"]


@pytest.mark.slow
def test_twenty_steps_of_two_ranks_are_those_of_one_process(base: Path, tmp_path: Path) -> None:
    steps = [rollouts_of(seed, groups=1 + seed % 4) for seed in range(20)]
    found = in_ranks(2, train, tmp_path, base, [Case("mgpo", 3)], steps, 1e-3)
    _, expected, losses = plainly(base, OBJECTIVES["mgpo"], steps, 1e-3)
    _, ours, metrics = found[0]["mgpo zero 3"]
    assert [m["loss"] for m in metrics] == pytest.approx([float(loss) for loss in losses], rel=1e-3, abs=1e-4)
    from transformers import AutoModelForCausalLM

    before = dict(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).named_parameters())
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in expected.items())
    assert moved > 5e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0.03 * moved, msg=name)
