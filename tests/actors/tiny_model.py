"""A random Qwen3 of 4 layers x 64 with a byte-level ChatML tokenizer, made in a second; with texts to learn them from,
the tokenizer has longer tokens too, and the model a longer context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")


def make_tokenizer(folder: Path, texts: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(texts))
    tokenizer.decoder = decoders.ByteLevel()
    if texts:
        tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=2048, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        )
    )
    return folder


def make_model(folder: Path, seed: int = 0, scale: float = 0.3, texts: Sequence[str] = ()):
    """Write the model directory; returns the model (float32 weights that bfloat16 holds exactly)."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    make_tokenizer(folder, texts)
    model = Qwen3ForCausalLM(_config_of(folder) if texts else tiny_config())
    randomize(model, seed, scale)
    model.to(torch.bfloat16).save_pretrained(folder)
    assert Qwen3Config.from_pretrained(folder).num_hidden_layers == 4
    return model.float().eval()


def tiny_config():
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=258,
        pad_token_id=256,
    )


def _config_of(folder: Path):
    """As many tokens as the tokenizer has, and room for the bundled prompts."""
    tokenizer, config = Tokenizer.from_file(str(folder / "tokenizer.json")), tiny_config()
    config.vocab_size, config.max_position_embeddings = tokenizer.get_vocab_size(), 8192
    config.eos_token_id, config.pad_token_id = map(tokenizer.token_to_id, ("<|im_end|>", "<|endoftext|>"))
    return config


def randomize(model, seed: int, scale: float = 0.3) -> None:
    """Random weights, large enough that the model's choices are decided and depend on the prompt."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = 1.0 + 0.1 * torch.randn(p.shape, generator=generator) if "norm" in name else None
            values = values if values is not None else scale * torch.randn(p.shape, generator=generator)
            p.copy_(values.to(torch.bfloat16))


def wire(model) -> list[dict]:
    """The model's weights as a trainer sends them: bfloat16 as uint16, Hugging Face names, in two chunks that cut a
    fused layer (q in the first, k and v in the second)."""
    import torch

    rows = []
    for name, p in model.named_parameters():
        raw = p.detach().to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
        rows.append((name, ("bfloat16", tuple(p.shape), raw)))
    cut = next(i for i, (name, _) in enumerate(rows) if name.endswith("layers.1.self_attn.k_proj.weight"))
    return [dict(rows[:cut]), dict(rows[cut:])]
