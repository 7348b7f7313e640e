"""Which models the trainer cannot carry, by their `config.json`. Imports neither torch nor transformers.

Invariant: what is refused here would be trained on log-probabilities of another model than the engine samples from, or
not at all: a packed row of trajectories goes through plain causal attention, and the output layer's product is the
logits. Dense models and mixtures of experts of that kind (Llama, Qwen2, Qwen3, Qwen3-MoE, …) pass.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_ATTENTION = {"full_attention", "sliding_attention"}
_RECURRENT = ("mamba_", "ssm_", "layers_block_type", "hybrid_override_pattern", "block_types", "linear_num_")
"""Keys that configs of state-space and hybrid models have, as they begin."""
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_SCALES = ("logit_scale", "logits_scaling")

_HEADER = 100 << 20
"""Bytes of the largest header that safetensors itself reads."""


def obstacle(config: Mapping[str, Any], tokens: int) -> str | None:
    """Why this model cannot be trained on trajectories of so many tokens; None where it can."""
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "of unknown kind") if isinstance(quantized, Mapping) else quantized
        return f"quantized weights ({method}); expected bfloat16, float16 or float32"
    names = _listed(config, "architectures")
    if names and not any(name.endswith("ForCausalLM") for name in names):
        return f"architecture {names[0]}; expected a text model, …ForCausalLM"
    kinds = set(_listed(config, "layer_types"))
    if recurrent := sorted(kinds - _ATTENTION) or sorted(k for k in config if k.startswith(_RECURRENT)):
        return f"layers that are no attention ({recurrent[0]}) carry one trajectory of a row into the next"
    if config.get("model_type") == "gpt_oss":
        return "attention with sinks; expected plain causal attention"
    if caps := [f"{name} {_shown(config[name])}" for name in _CAPS if config.get(name) is not None]:
        return f"capped scores ({caps[0]}); expected plain causal attention and logits"
    if scales := [f"{name} {_shown(config[name])}" for name in _SCALES if config.get(name) not in (None, 1)]:
        return f"scaled logits ({scales[0]}); expected the output layer's own"
    window = config.get("sliding_window")
    slides = "sliding_attention" in kinds if kinds else config.get("use_sliding_window", True)
    if window is not None and not isinstance(window, int):
        return f"sliding_window {window!r}; expected a number of tokens, or null"
    if window and slides and tokens > window:
        return f"attention over {window} tokens, trajectories of up to {tokens}; expected full attention"
    return None


def experts(config: Mapping[str, Any]) -> int:
    """Experts a layer; 0 of a dense model."""
    named = (config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    return next((n for n in named if isinstance(n, int) and n), 0)


def unadaptable(config: Mapping[str, Any], layers: Collection[str], targets: Sequence[str] | None) -> str | None:
    """Why LoRA cannot be on these of the model's linear `layers` (None: on all); None where it can."""
    there = ", ".join(sorted(layers))
    if not layers:
        return "the model has no linear layers; expected one that is trained whole, trainer.lora null"
    if targets is None and experts(config):
        return f"adapters do not reach the experts of a mixture; expected trainer.lora.targets among {there}"
    if unknown := [name for name in targets or () if name not in layers]:
        return f"targets: {unknown[0]} is no linear layer of the model; expected some of {there}"
    return None


def linear_layers(files: Iterable[Path]) -> set[str]:
    """The last names of a decoder's linear layers, by the headers of its .safetensors; of experts and their router,
    none. Raises OSError or ValueError for a file that is none."""
    found = set()
    for file in files:
        with file.open("rb") as opened:
            size = min(int.from_bytes(opened.read(8), "little"), _HEADER)
            header = json.loads(opened.read(size))
        try:
            matrices = [name for name, entry in header.items() if len(entry.get("shape", ())) == 2]
        except (AttributeError, TypeError):
            raise ValueError(f"{file}: no header of a .safetensors file") from None
        for name in matrices:
            *path, last = name.split(".")
            if last == "weight" and any(part.isdigit() for part in path) and not {"experts", "gate"} & set(path):
                found.add(path[-1])
    return found


def _listed(config: Mapping[str, Any], name: str) -> list[str]:
    """A list of the config, as words; what is no list there is the one entry of one."""
    value = config.get(name)
    if not value:
        return []
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else repr(value)
