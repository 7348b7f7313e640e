"""The model as the trainer sees it: log-probabilities of the loss tokens of a packed row.

Invariant: the result for a trajectory does not depend on what else is in the row. Attention runs once per trajectory
with the causal kernel, so neither a mask nor a score across trajectories is ever computed; the vocabulary projection
runs on the positions that predict a loss token, in chunks, so that no more than `CHUNK` logits exist at once.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AutoModelForCausalLM

from pipeline.records import Failure
from trainers.architectures import obstacle
from trainers.batches import MicroBatch

CHUNK = 1 << 26
"""Logits alive at once (256 MiB in float32)."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    boundaries: tuple[int, ...] = (),
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each trajectory of the row. Shapes [1, heads, L, D] -> [1, L, heads, D]. Raises Failure
    for attention of another kind, whose log-probabilities would be another model's."""
    if softcap is not None or s_aux is not None:
        what = "attention with sinks" if softcap is None else f"attention scores capped at {softcap:g}"
        raise Failure(f"{type(module).__name__}: {what}; expected plain causal attention, the only one trained here")
    longest = max(end - start for start, end in pairwise(boundaries))
    if sliding_window is not None and longest > sliding_window:
        raise Failure(
            f"{type(module).__name__}: a trajectory of {longest} tokens, attention over {sliding_window}; expected "
            "full causal attention, the only one trained here"
        )
    parts = [
        functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        for start, end in pairwise(boundaries)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register("packed_rows", packed_attention)


class Policy(nn.Module):
    """A causal language model whose forward pass gives (log-probability, entropy) of each loss token."""

    def __init__(self, lm: Any):
        super().__init__()
        self.lm = lm

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype) -> Policy:
        """Raises Failure with one line where the directory holds no usable model."""
        if not (path / "config.json").is_file():
            raise Failure(f"model {path}: no config.json; expected a Hugging Face model directory")
        try:
            found = json.loads((path / "config.json").read_text(encoding="utf-8"))
            if (why := obstacle(found, tokens=0)) is not None:
                raise Failure(f"model {path}: cannot be trained: {why}")
            lm = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="packed_rows")
        except (OSError, ValueError) as e:
            raise Failure(f"model {path}: {str(e).splitlines()[0]}; expected a Hugging Face model directory") from e
        return cls(lm)

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        hidden = self.lm.base_model(
            input_ids=batch.input_ids_1L,
            position_ids=batch.position_ids_1L,
            use_cache=False,
            boundaries=batch.boundaries,
        ).last_hidden_state[0, batch.predict_K]
        rows = max(1, CHUNK // self.lm.config.vocab_size)
        if len(hidden) <= rows:
            return self._score(hidden, batch.target_K)
        parts = [
            checkpoint(self._score, h, t, use_reentrant=False)
            for h, t in zip(hidden.split(rows), batch.target_K.split(rows), strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _score(self, hidden_KD: Tensor, target_K: Tensor) -> tuple[Tensor, Tensor]:
        logits_KV = self.lm.get_output_embeddings()(hidden_KD).float()
        log_KV = logits_KV.log_softmax(-1)
        with torch.no_grad():
            entropy_K = -(log_KV.exp() * log_KV).sum(-1)
        return log_KV.gather(-1, target_K[:, None])[:, 0], entropy_K
