"""What the plan says a model keeps, against what autograd keeps: the storages of all tensors that a layer saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from pipeline.config import LoRAConfig
from trainers import adapters, policy
from trainers.footprint import Shape

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
MODELS = {
    "llama": (LlamaConfig(**SIZES, tie_word_embeddings=True), LlamaForCausalLM),
    "qwen2": (Qwen2Config(**SIZES, tie_word_embeddings=False), Qwen2ForCausalLM),
    "qwen3": (Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=False), Qwen3ForCausalLM),
}
TOKENS = 64


def kept(lm: torch.nn.Module, layers: int) -> int:
    """Bytes of all storages that the forward pass of so many layers saves, its parameters left out."""
    lm.model.layers = lm.model.layers[:layers]
    own = {p.untyped_storage().data_ptr() for p in lm.parameters()}
    saved: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids, positions = torch.randint(0, 50, (1, TOKENS)), torch.arange(TOKENS)[None]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lm.model(input_ids=ids, position_ids=positions, use_cache=False, boundaries=(0, 40, TOKENS))
    return sum(saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_layer_keeps_is_what_autograd_saves(name: str, dtype: torch.dtype) -> None:
    config, kind = MODELS[name]
    assert policy.packed_attention  # registered by its import
    two, one = (
        kept(kind._from_config(config, attn_implementation="packed_rows").to(dtype), layers) for layers in (2, 1)
    )
    shape = Shape.of(config.to_dict())
    assert shape is not None
    assert two - one == pytest.approx(TOKENS * shape.kept_a_token(dtype.itemsize), rel=0.02)


ADAPTERS = {
    "all": LoRAConfig(rank=8),
    "two": LoRAConfig(rank=8, targets=("q_proj", "v_proj")),
    "ends": LoRAConfig(rank=4, targets=("k_proj", "down_proj")),
    "dropout": LoRAConfig(rank=8, dropout=0.5, targets=("q_proj", "k_proj", "up_proj")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_of_an_adapter_too(name: str, dtype: torch.dtype, lora: LoRAConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a test with ZeRO-3, DeepSpeed leaves its own in the process, which keeps inputs of frozen weights as well.
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
    config, kind = MODELS[name]
    shape = Shape.of(config.to_dict())
    assert shape is not None
    found = []
    for layers in (2, 1):
        lm = kind._from_config(config, attn_implementation="packed_rows").to(dtype)
        adapters.add(lm, lora, dtype, 0)
        assert sum(p.numel() for p in lm.parameters() if p.requires_grad) == shape.adapter(lora)
        found.append(kept(lm, layers))
    assert found[0] - found[1] == pytest.approx(TOKENS * shape.kept_a_token(dtype.itemsize, lora), rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted(name: str) -> None:
    config, kind = MODELS[name]
    shape = Shape.of(config.to_dict())
    assert shape is not None and shape.parameters == sum(p.numel() for p in kind(config).parameters())
