"""A problem small enough to know its optimum: one arm to choose in each of four stages, a reward only if all are right.

The policy is a table of logits, one row a stage, so the probability of the optimum is a product and nothing need be
estimated: a learning curve is exact given its seed. What learns is the project's own objectives, fed as the trainer
feeds them; each action is one token. r_proc of an action says whether its arm is the right one, and is turned round
with probability `noise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from pipeline.config import GRPOConfig, MGPOConfig, MGPONoStageConfig
from pipeline.records import COGNITIVE_STAGES
from tests.trainers.worlds import alone
from trainers.objectives import ObjectiveConfig, make
from trainers.objectives.base import StepTokens, Totals

GROUPS, GROUP_SIZE = 4, 8
SOLVED = 0.9
"""Probability of the optimum from which on the problem counts as solved."""


@dataclass(frozen=True)
class Learner:
    """What learns. `shaped` puts the sum of the process rewards into the terminal one: dense, but not by stage."""

    objective: ObjectiveConfig
    shaped: bool = False


LEARNERS = {
    "GRPO": Learner(GRPOConfig()),
    "GRPO, process rewards summed in": Learner(GRPOConfig(), shaped=True),
    "MGPO without stage advantage": Learner(MGPONoStageConfig()),
    "the same, beta 0": Learner(MGPONoStageConfig(beta=0.0)),
    "MGPO": Learner(MGPOConfig()),
}


def curve(learner: Learner, lr: float, steps: int, seed: int, arms: int = 8, noise: float = 0.0) -> list[float]:
    """Probability that the policy picks all four right arms, before the first step and after each."""
    generator = torch.Generator().manual_seed(seed)
    logits_SA = torch.zeros(len(COGNITIVE_STAGES), arms, requires_grad=True)
    right_S = torch.randint(arms, (len(COGNITIVE_STAGES),), generator=generator)
    optimizer = torch.optim.Adam([logits_SA], lr=lr)
    reached = [_optimum(logits_SA, right_S)]
    for _ in range(steps):
        _step(learner, logits_SA, right_S, optimizer, generator, noise)
        reached.append(_optimum(logits_SA, right_S))
    return reached


def steps_to_solve(curves: Sequence[Sequence[float]]) -> float:
    """Median over the curves of the first step with SOLVED; infinite where most never get there."""
    return median(next((float(t) for t, p in enumerate(c) if p >= SOLVED), float("inf")) for c in curves)


def _optimum(logits_SA: Tensor, right_S: Tensor) -> float:
    return float(logits_SA.detach().log_softmax(-1).gather(1, right_S[:, None]).sum().exp())


def _step(
    learner: Learner,
    logits_SA: Tensor,
    right_S: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    noise: float,
) -> None:
    episodes, stages = GROUPS * GROUP_SIZE, len(COGNITIVE_STAGES)
    log_SA = logits_SA.log_softmax(-1)
    arm_ES = torch.multinomial(log_SA.detach().exp(), episodes, replacement=True, generator=generator).T
    logp_K = log_SA.expand(episodes, -1, -1).gather(2, arm_ES[..., None]).reshape(-1)
    right_ES = arm_ES == right_S
    process_ES = (right_ES ^ (torch.rand(episodes, stages, generator=generator) < noise)).float()
    reward_E = right_ES.all(1).float()
    step = StepTokens(
        engine_K=logp_K.detach(),
        action_K=torch.arange(episodes * stages),
        seq_A=torch.arange(episodes).repeat_interleave(stages),
        stage_A=torch.arange(stages).repeat(episodes),
        process_A=process_ES.reshape(-1),
        reward_S=reward_E + process_ES.sum(1) if learner.shaped else reward_E,
        group_S=torch.arange(GROUPS).repeat_interleave(GROUP_SIZE),
        length_S=torch.full((episodes,), float(stages)),
        groups=GROUPS,
    )
    reference_K = torch.full_like(step.engine_K, -float(torch.tensor(logits_SA.shape[1]).log()))  # the start: uniform
    totals = Totals(tokens=float(len(step.action_K)), sequences=float(episodes))
    weight_K = make(learner.objective).weights(step, logp_K.detach(), reference_K, totals, alone)
    optimizer.zero_grad()
    (-(weight_K * logp_K).sum()).backward()
    optimizer.step()
