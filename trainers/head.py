"""The output layer with its loss: hidden states to the log-probability of one word each, and the entropy.

Invariant: no more than `CHUNK` logits exist at once, three times over, and none outlives its turn: the backward pass
computes them again. However many turns the loss tokens of a row take, and be it none, the layer is entered once in the
forward pass and once in the backward pass; so under ZeRO-3 its weights are gathered as often on every rank. Their
gradient is summed over turns in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.spec import CHUNK


class Head(nn.Module):
    """In place of a model's output layer, whose parameters it takes over under their names."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, hidden_KD: Tensor, target_K: Tensor) -> tuple[Tensor, Tensor]:
        """(log-probability, entropy) of each; the entropy carries no gradient."""
        logp_K, entropy_K = _Score.apply(hidden_KD, self.weight, self.bias, target_K)
        return logp_K, entropy_K


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_KD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_K: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden_KD, weight_VD, bias_V, target_K)
        parts = []
        for hidden_RD, target_R in _turns(len(weight_VD), hidden_KD, target_K):
            log_RV = _log_softmax(hidden_RD, weight_VD, bias_V)
            logp_R = log_RV.gather(-1, target_R[:, None])[:, 0]
            parts.append((logp_R, -log_RV.exp().mul_(log_RV).sum(-1)))
        logp_K, entropy_K = (torch.cat(of) for of in zip(*parts, strict=True))
        ctx.mark_non_differentiable(entropy_K)
        return logp_K, entropy_K

    @staticmethod
    def backward(ctx: Any, slope_K: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """What is float32 of several turns, autograd makes of the weights' own type."""
        hidden_KD, weight_VD, bias_V, target_K = ctx.saved_tensors
        d_hidden: list[Tensor] = []
        d_weight_VD: Tensor | None = None
        d_bias_V: Tensor | None = None
        for hidden_RD, target_R, slope_R in _turns(len(weight_VD), hidden_KD, target_K, slope_K):
            log_RV = _log_softmax(hidden_RD, weight_VD, bias_V)
            slope_RV = torch.zeros_like(log_RV).scatter_(-1, target_R[:, None], slope_R[:, None])
            d_logits_RV = torch._log_softmax_backward_data(slope_RV, log_RV, -1, log_RV.dtype).to(hidden_RD.dtype)
            del log_RV, slope_RV
            d_hidden.append(d_logits_RV @ weight_VD)
            if ctx.needs_input_grad[1]:
                d_weight_VD = _sum(d_weight_VD, d_logits_RV.t() @ hidden_RD)
            if ctx.needs_input_grad[2]:
                d_bias_V = _sum(d_bias_V, d_logits_RV.sum(0))
        return torch.cat(d_hidden), d_weight_VD, d_bias_V, None


def _turns(words: int, *of_K: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows of at most `CHUNK` logits; one turn of no rows where there are none."""
    return list(zip(*(tensor.split(max(1, CHUNK // words)) for tensor in of_K), strict=True))


def _log_softmax(hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    return functional.linear(hidden_RD, weight_VD, bias_V).float().log_softmax(-1)


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.float().add_(part)
