"""Our objectives against TRL's: the gradient of its loss, on random tensors, is minus our weights.

TRL's loss is a method of its trainer, which wants models and data; here it is called on a trainer that was never
constructed and has only the fields that the loss reads. Its "model" is the log-probabilities under test themselves.
Where we differ by intent, and these tests leave the difference out: TRL adds 1e-4 to a group's standard deviation; our
`importance_cap` bounds the ratio's own factor in the gradient.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trl import import_utils

from pipeline.config import GRPOConfig, MGPONoStageConfig
from pipeline.records import Rollout
from tests.trainers.worlds import PROMPT, alone, batch_of, make_rollout, owners, totals_of
from trainers.batches import StepBatch
from trainers.objectives import make

with mock.patch.object(import_utils, "is_vllm_available", return_value=False):  # its import changes the environment
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.utils import nanstd

GROUP_SIZE = 4


@st.composite
def worlds(draw: st.DrawFn) -> list[Rollout]:
    """Whole groups, as TRL wants them, of trajectories with one to three actions; tool tokens in between."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    rollouts = []
    for group in range(draw(st.integers(1, 3))):
        for member in range(GROUP_SIZE):
            actions = draw(
                st.lists(st.tuples(st.integers(0, 3), st.just(0.0), st.integers(1, 4)), min_size=1, max_size=3)
            )
            reward = draw(st.sampled_from([0.0, 1.0, 1.7, 3.0]))
            rollouts.append(make_rollout(f"{group}-{member}", f"g{group}", actions, reward, rng))
    return rollouts


class Padded:
    """The tokens after the prompt as TRL has them: rectangles with a mask, tool results masked out."""

    def __init__(self, rollouts: list[Rollout], batch: StepBatch):
        width = max(len(r.token_ids) for r in rollouts) - PROMPT
        self.tool_mask = torch.zeros(len(rollouts), width, dtype=torch.int64)
        self.completion_mask = torch.zeros_like(self.tool_mask)
        for row, r in enumerate(rollouts):
            length = len(r.token_ids) - PROMPT
            self.completion_mask[row, :length] = 1
            self.tool_mask[row, :length] = torch.tensor(r.loss_mask[PROMPT:])
        self.at = self.tool_mask.bool()

    def spread(self, values_N: Tensor) -> Tensor:
        """Loss tokens at their places; what is masked gets a value that must not matter."""
        return torch.full(self.at.shape, -3.0).masked_scatter(self.at, values_N)


def trl_gradient(
    padded: Padded, logp: Tensor, engine: Tensor, ref: Tensor, advantages: Tensor, loss_type: str, **fields: Any
) -> Tensor:
    """d loss / d log-probability of each loss token."""
    trainer = object.__new__(GRPOTrainer)
    settings = {
        "use_bias_correction_kl": False, "delta": None, "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05,
        "steps_per_generation": 1,
    }  # fmt: skip
    trainer.args = SimpleNamespace(**{name: fields.pop(name, value) for name, value in settings.items()})
    vars(trainer).update(
        {
            "accelerator": Accelerator(cpu=True), "model": SimpleNamespace(training=True), "loss_type": loss_type,
            "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token",
            "max_completion_length": 0, "off_policy_mask_threshold": None, "top_entropy_quantile": 1.0,
            "aux_loss_enabled": False, "use_vllm": False, "current_gradient_accumulation_steps": 1,
            "_entropy_bonus_enabled": False, "_metrics": {"train": defaultdict(list)},
        }
        | fields
    )  # fmt: skip
    spread = padded.spread(logp).requires_grad_()
    prompt = torch.zeros(len(spread), 1, dtype=torch.int64)

    def model(**_: Any) -> Any:
        whole = torch.cat([torch.zeros(len(spread), 1), spread], dim=1)
        return SimpleNamespace(log_probs=whole, entropy=torch.zeros_like(whole))

    inputs = {
        "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "advantages": advantages,
        "completion_ids": torch.zeros_like(padded.tool_mask), "completion_mask": padded.completion_mask,
        "tool_mask": padded.tool_mask, "old_per_token_logps": padded.spread(engine),
        "ref_per_token_logps": padded.spread(ref), "num_items_in_batch": padded.tool_mask.sum(),
    }  # fmt: skip
    (gradient,) = torch.autograd.grad(trainer._compute_loss(model, inputs), spread)
    assert (gradient[~padded.at] == 0).all()
    return gradient[padded.at]


def advantages_of(rollouts: list[Rollout], scale: bool) -> Tensor:
    """TRL's advantages, with its own standard deviation, without the 1e-4."""
    rewards = torch.tensor([r.terminal_reward for r in rollouts]).view(-1, GROUP_SIZE)
    difference = rewards - rewards.mean(1, keepdim=True)
    std = nanstd(rewards, dim=1, keepdim=True)
    return (torch.where(std > 1e-6, difference / std, 0.0) if scale else difference).reshape(-1)


def policies(batch: StepBatch, seed: int, spread: float = 0.4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    engine = batch.tokens.engine_K
    near, ref = (engine + spread * torch.randn(len(engine), generator=generator) for _ in range(2))
    return near, ref


@settings(max_examples=60, deadline=None)
@given(
    worlds(),
    st.sampled_from([("sequence", "grpo"), ("token", "bnpo"), ("token", "dapo"), ("constant", "dr_grpo")]),
    st.sampled_from([(0.2, 0.2), (0.1, 0.3)]),
    st.sampled_from([0.0, 0.05]),
    st.booleans(),
    st.integers(0, 100),
)
def test_grpo_is_trls(
    rollouts: list[Rollout],
    form: tuple[str, str],
    clip: tuple[float, float],
    kl: float,
    scale: bool,
    seed: int,
) -> None:
    batch = batch_of(rollouts)
    logp, ref = policies(batch, seed)
    ours = GRPOConfig(
        aggregate=form[0], clip_low=clip[0], clip_high=clip[1], kl=kl, scale_by_std=scale, constant_length=37,
        importance_cap=None,
    )  # fmt: skip
    weight = make(ours).weights(batch.tokens, logp, ref, totals_of(batch), alone)
    theirs = trl_gradient(
        Padded(rollouts, batch), logp, batch.tokens.engine_K, ref, advantages_of(rollouts, scale), form[1],
        beta=kl, epsilon_low=clip[0], epsilon_high=clip[1], max_completion_length=37,
    )  # fmt: skip
    torch.testing.assert_close(-weight, theirs, rtol=1e-4, atol=1e-6)


TAU = st.sampled_from([(1.0, 1.05), (0.7, 2.0)])


@settings(max_examples=60, deadline=None)
@given(worlds(), TAU, st.sampled_from(["group", "stage"]), st.integers(0, 100))
def test_mgpo_without_its_own_parts_is_trls_sapo(
    rollouts: list[Rollout], tau: tuple[float, float], baseline: Literal["group", "stage"], seed: int
) -> None:
    """No stage advantage, no implicit reward, one action a trajectory, the ratio as a factor and not truncated: what is
    left is SAPO, whose gate is ours, by either baseline: over the group, or over those of it whose action is of the
    same stage. It is normalised by sequence, and MGPO by token, which is undone here."""
    rollouts = [one_action(r) for r in rollouts]
    batch = batch_of(rollouts)
    logp, ref = policies(batch, seed)
    weight = sapo(tau, baseline, batch, logp, ref)
    theirs = trls_sapo(rollouts, batch, logp, ref, tau, baseline)
    torch.testing.assert_close(weight, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(2, 3), TAU, st.sampled_from(["group", "stage"]), st.integers(0, 100))
def test_in_mini_batches_of_stale_rollouts_both_are_still_trls(
    rollouts: list[Rollout], count: int, tau: tuple[float, float], baseline: Literal["group", "stage"], seed: int
) -> None:
    """A step cut into mini-batches, whole groups each: with every update the policy is further from the one that
    sampled, so that clip and gate act, and each update is normalised by its own tokens."""
    rollouts = [one_action(r) for r in rollouts]
    batch = batch_of(rollouts)
    for number, part in enumerate(batch.mini_batches(count, (seed,))):
        if not part.trajectories:
            continue
        own = owners(rollouts, batch, part)
        logp, ref = policies(part, seed + number, spread=0.3 * (number + 1))
        grpo = make(GRPOConfig(kl=0.05, importance_cap=None))
        weight = grpo.weights(part.tokens, logp, ref, totals_of(part), alone)
        theirs = trl_gradient(
            Padded(own, part), logp, part.tokens.engine_K, ref, advantages_of(own, True), "bnpo", beta=0.05
        )
        torch.testing.assert_close(-weight, theirs, rtol=1e-4, atol=1e-6)
        sapos = trls_sapo(own, part, logp, ref, tau, baseline)
        torch.testing.assert_close(sapo(tau, baseline, part, logp, ref), sapos, rtol=1e-4, atol=1e-5)


def one_action(r: Rollout) -> Rollout:
    """All of its tokens as one action, of the stage of its first."""
    index = tuple(min(i, 0) for i in r.action_index)
    return r.model_copy(
        update={
            "action_index": index, "action_stage": r.action_stage[:1], "action_kind": (0,), "process_rewards": (0.0,),
        }
    )  # fmt: skip


def sapo(
    tau: tuple[float, float], baseline: Literal["group", "stage"], batch: StepBatch, logp: Tensor, ref: Tensor
) -> Tensor:
    """Our weights, times the number of tokens."""
    ours = MGPONoStageConfig(beta=0.0, tau_pos=tau[0], tau_neg=tau[1], importance_cap=1e6, baseline=baseline)
    weight = make(ours).weights(batch.tokens, logp, ref, totals_of(batch), alone)
    return -weight * len(logp)


def trls_sapo(
    rollouts: list[Rollout], batch: StepBatch, logp: Tensor, ref: Tensor, tau: tuple[float, float], baseline: str
) -> Tensor:
    """TRL's gradient by token, times the number of tokens."""
    by = advantages_of(rollouts, True) if baseline == "group" else advantages_by_stage(rollouts)
    theirs = trl_gradient(
        Padded(rollouts, batch), logp, batch.tokens.engine_K, ref, by, "sapo",
        sapo_temperature_pos=tau[0], sapo_temperature_neg=tau[1],
    )  # fmt: skip
    return theirs * batch.tokens.length_S[batch.tokens.seq_K] * len(rollouts)


def advantages_by_stage(rollouts: list[Rollout]) -> Tensor:
    """TRL's advantages within those of a group whose action is of one stage; 0 for who is alone."""
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, r in enumerate(rollouts):
        cells[r.group_id, r.action_stage[0]].append(i)
    found = torch.zeros(len(rollouts))
    for members in cells.values():
        rewards = torch.tensor([rollouts[i].terminal_reward for i in members])
        if len(members) > 1 and (std := nanstd(rewards)) > 1e-6:
            found[members] = (rewards - rewards.mean()) / std
    return found


def test_a_wrong_sign_would_be_seen() -> None:
    """The comparison has something to compare: gradients that differ from zero, some of them clipped away."""
    rng = np.random.default_rng(0)
    rollouts = [make_rollout(str(i), "g", [(0, 0.0, 6)], float(i % 2), rng) for i in range(GROUP_SIZE)]
    batch = batch_of(rollouts)
    logp, ref = policies(batch, 0)
    theirs = trl_gradient(
        Padded(rollouts, batch), logp, batch.tokens.engine_K, ref, advantages_of(rollouts, True), "bnpo"
    )
    assert 0 < int((theirs == 0).sum()) < len(theirs)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(theirs, -theirs)
