"""Which models the trainer carries, by their configs; and that what passes is trained as what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from pipeline.records import Failure
from tests.trainers.test_policy import one_by_one, packed
from tests.trainers.worlds import VOCABULARY, batch_of, some_rollouts
from trainers.architectures import experts, obstacle
from trainers.policy import Policy, packed_attention
from trainers.weights import gathered

DENSE = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, None),
        ({"layer_types": ["full_attention"] * 4, "sliding_window": None}, None),
        ({"sliding_window": 4096}, None),  # Qwen2 names one, and does not use it
        ({"num_experts": 128, "architectures": ["Qwen3MoeForCausalLM"]}, None),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized weights (fp8)"),
        ({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}, "expected a text model"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"model_type": "gpt_oss"}, "sinks"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30"),
        ({"logit_scale": 0.0625}, "logit_scale 0.0625"),
        ({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512}, "over 512 tokens"),
        ({"use_sliding_window": True, "sliding_window": 512}, "over 512 tokens"),
        ({"layer_types": 5}, "no attention (5)"),
        ({"architectures": 7}, "architecture 7"),
        ({"sliding_window": "4096"}, "sliding_window '4096'; expected a number"),
        ({"attn_logit_softcapping": "50"}, "attn_logit_softcapping '50'"),
        ({"layer_types": ["sliding_attention"], "sliding_window": 1000}, None),  # no trajectory is longer
    ],
)
def test_what_is_carried_and_what_is_not(more, said):
    why = obstacle(DENSE | more, tokens=1000)
    assert why is None if said is None else said in why and "\n" not in why


READ = [
    "architectures", "attn_logit_softcapping", "final_logit_softcapping", "layer_types", "logit_scale",
    "logits_scaling", "mamba_d_state", "model_type", "n_routed_experts", "num_experts", "num_local_experts",
    "quantization_config", "sliding_window", "use_sliding_window",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)


@given(st.dictionaries(st.sampled_from(READ) | st.text(max_size=12), VALUES, max_size=6))
def test_any_config_is_judged(config):
    why = obstacle(config, 10)
    assert why is None or isinstance(why, str)
    assert isinstance(experts(config), int)


def test_a_model_that_is_not_carried_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(Failure, match="cannot be trained: quantized weights"):
        Policy.load(tmp_path, torch.float32)


@pytest.mark.parametrize("more", [{"sliding_window": 4}, {"softcap": 50.0}, {"s_aux": torch.zeros(2)}])
def test_attention_of_another_kind_is_refused_where_it_is_computed(more):
    q = torch.zeros(1, 2, 10, 4)
    packed_attention(torch.nn.Identity(), q, q, q, None, 1.0, boundaries=(0, 4, 8, 10), sliding_window=4)
    with pytest.raises(Failure, match=r"expected (plain|full) causal"):
        packed_attention(torch.nn.Identity(), q, q, q, None, 1.0, boundaries=(0, 4, 10), **more)


# ---------------------------------------------------------------- a mixture of experts


def mixture(folder: Path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config).float()
    model.save_pretrained(folder)
    return model


def test_a_mixture_of_experts_is_trained_as_transformers_has_it(tmp_path: Path) -> None:
    lm, rollouts = mixture(tmp_path), some_rollouts(3)
    assert experts(json.loads((tmp_path / "config.json").read_text())) == 4
    policy = Policy.load(tmp_path, torch.float32)
    policy.lm.gradient_checkpointing_enable()
    policy.train()
    logp, _ = packed(policy, batch_of(rollouts), 64)
    torch.testing.assert_close(logp, one_by_one(lm, rollouts), rtol=1e-4, atol=1e-5)
    logp.sum().backward()
    one_by_one(lm, rollouts).sum().backward()
    for (name, mine), theirs in zip(policy.lm.named_parameters(), lm.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_weights_go_out_under_the_names_that_the_model_directory_has(tmp_path: Path) -> None:
    mixture(tmp_path)
    policy = Policy.load(tmp_path, torch.float32)
    sent = dict(gathered(policy.lm, 0, None))
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert "model.layers.1.mlp.experts.3.up_proj.weight" in sent and sent.keys() == set(stored.keys())
        for name, tensor in sent.items():
            assert torch.equal(tensor, stored.get_tensor(name)), name
    assert list(gathered(policy.lm, 1, None)) == []
