"""Supervised fine-tuning: the mean negative log-likelihood of the agent's own tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import SFTConfig
from trainers.objectives.base import AllReduce, Means, Objective, StepTokens, Totals


class SFT(Objective):
    of_engine = False
    needs_reference = False
    whole_step = False

    def __init__(self, config: SFTConfig):
        self.config = config

    def _weights(
        self, step: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals, all_reduce: AllReduce
    ) -> Tensor:
        return torch.full_like(logp_K, 1 / totals.tokens)

    def diagnostics(self, step: StepTokens, logp_N: Tensor, weight_N: Tensor) -> Means:
        return {}
