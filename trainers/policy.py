"""The model as the trainer sees it: log-probabilities of the loss tokens of a packed row.

Invariant: the result for a trajectory does not depend on what else is in the row. Attention runs once per trajectory
with the causal kernel, so neither a mask nor a score across trajectories is ever computed; the vocabulary projection
(`head`) runs on the positions that predict a loss token.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.integrations import HfDeepSpeedConfig

from pipeline.records import Failure
from trainers.architectures import obstacle
from trainers.batches import MicroBatch
from trainers.head import Head


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


def _positions_anew(lm: Any) -> None:
    """Rotary frequencies in float32, as without ZeRO-3, whose loading makes every tensor in the type of the weights: in
    bfloat16 a position is off by its 256th part."""
    for module in lm.modules():
        if any(name.endswith("inv_freq") for name in module._buffers):  # some have one a kind of layer
            for name, buffer in type(module)(module.config).named_buffers(recurse=False):
                setattr(module, name, buffer.to(getattr(module, name).device))


def check(path: Path) -> None:
    """Raises Failure, one line, for a directory without a model, or with one that cannot be trained."""
    if not (path / "config.json").is_file():
        raise Failure(f"model {path}: no config.json; expected a Hugging Face model directory")
    found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if (why := obstacle(found, tokens=0)) is not None:
        raise Failure(f"model {path}: cannot be trained: {why}")


class Policy(nn.Module):
    """A causal language model whose forward pass gives (log-probability, entropy) of each loss token."""

    def __init__(self, lm: Any):
        super().__init__()
        layer = lm.get_output_embeddings()
        if type(layer) is not nn.Linear:
            raise Failure(
                f"{type(lm).__name__}: output layer {type(layer).__name__}; expected Linear, the only one trained"
            )
        lm.set_output_embeddings(Head(layer))
        self.lm = lm

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype, shared_out: dict[str, Any] | None = None) -> Policy:
        """Raises Failure with one line where the directory holds no usable model. `shared_out`: a DeepSpeed
        configuration of ZeRO-3, by which each rank keeps its part of each tensor; then all ranks call it."""
        check(path)
        # transformers asks for it while it lives.
        shared = None if shared_out is None else HfDeepSpeedConfig(shared_out)
        try:
            lm = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="packed_rows")
        except (OSError, ValueError) as e:
            raise Failure(f"model {path}: {str(e).splitlines()[0]}; expected a Hugging Face model directory") from e
        finally:
            del shared
        if shared_out is not None:
            _positions_anew(lm)
        return cls(lm)

    @property
    def size(self) -> int:
        """Parameters, of all ranks together."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.parameters())

    @property
    def trained(self) -> int:
        """Those of them that are trained: all, or the adapter's."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.parameters() if p.requires_grad)

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        hidden = self.lm.base_model(
            input_ids=batch.input_ids_1L,
            position_ids=batch.position_ids_1L,
            use_cache=False,
            boundaries=batch.boundaries,
        ).last_hidden_state[0, batch.predict_K]
        logp_K, entropy_K = self.lm.get_output_embeddings()(hidden, batch.target_K)
        return logp_K, entropy_K
