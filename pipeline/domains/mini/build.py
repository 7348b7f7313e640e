"""Make the bundled base models again: tokenizer, base proposer, base solver, from scratch and from a seed.

Invariant: what is built depends on the seed, the numbers of steps and the machine's arithmetic alone. The result is a
Hugging Face model directory each, in bfloat16, with its tokenizer and its system prompt.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors.chat import ChatFormat
from pipeline.domains.mini.knowledge import KNOWLEDGE
from pipeline.domains.mini.lessons import (
    PROPOSER_SYSTEM,
    SOLVER_SYSTEM,
    Message,
    proposer_lessons,
    solutions,
    solver_lessons,
)
from pipeline.domains.mini.tokenizer import build_tokenizer

VOCAB = 1000
_WIDTH = 32
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    name: str
    system: str
    lessons: Callable[[int], Iterator[list[Message]]]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    steps: int
    batch_tokens: int
    lr: float


PROPOSER = Recipe("proposer", PROPOSER_SYSTEM, proposer_lessons, 192, 4, 6, 3, 512, 3200, 4096, 7e-3)
SOLVER = Recipe("solver", SOLVER_SYSTEM, solver_lessons, 128, 4, 4, 2, 384, 2000, 4096, 7e-3)


def build(out_dir: Path, seed: int = 0, scale: float = 1.0, threads: int = 2, say: Say = print) -> None:
    """Build both models under `out_dir`; `scale` multiplies the number of training steps."""
    torch.set_num_threads(threads)
    tokenizer_dir = out_dir / "tokenizer"
    build_tokenizer(_tokenizer_texts(seed), tokenizer_dir, VOCAB)
    for recipe in (PROPOSER, SOLVER):
        place = out_dir / recipe.name
        model = train(recipe, tokenizer_dir, seed, max(1, round(recipe.steps * scale)), say)
        write_model(model, tokenizer_dir, recipe, place)
    shutil.rmtree(tokenizer_dir)


def _tokenizer_texts(seed: int) -> Iterator[str]:
    """The world's own texts: lessons, and what the teacher knows of each skill."""
    for lore in KNOWLEDGE.values():
        yield from (lore.intent, lore.action, lore.effect, lore.hint, lore.script)
    for lessons, count in ((proposer_lessons, 3000), (solutions, 1500)):
        for lesson in islice(lessons(seed), count):
            yield from (m["content"] for m in lesson)


# ---------------------------------------------------------------- data


def encode(chat: ChatFormat, lesson: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and which of them the assistant writes."""
    ids: list[int] = []
    own: list[bool] = []
    for at, message in enumerate(lesson):
        if message["role"] != "assistant":
            continue
        opened = chat.encode_messages(lesson[:at])
        reply = [*chat.encode_text(message["content"]), chat.eos_id]
        own += [False] * (len(opened) - len(ids)) + [True] * len(reply)
        ids = [*opened, *reply]
    return ids, own


def batches(
    lessons: Iterator[list[Message]], chat: ChatFormat, tokens: int, rng: Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded (ids, labels) of `tokens` tokens, of lessons of like length so that little is padding.

    Widths are multiples of `_WIDTH`, so that few shapes exist: a CPU compiles its kernels anew for each.
    """
    while True:
        pool: dict[int, list[tuple[list[int], list[bool]]]] = {}
        for lesson in islice(lessons, 4096):
            example = encode(chat, lesson)
            pool.setdefault(-(-len(example[0]) // _WIDTH) * _WIDTH, []).append(example)
        groups = []
        for width, examples in sorted(pool.items()):
            rows = max(1, tokens // width)
            groups += [(width, rows, examples[at : at + rows]) for at in range(0, len(examples), rows)]
        rng.shuffle(groups)
        for width, rows, group in groups:
            ids = torch.zeros(rows, width, dtype=torch.long)
            labels = torch.full((rows, width), -100)
            for row, (tokens_of, own) in enumerate(group):
                sequence = torch.tensor(tokens_of)
                ids[row, : len(tokens_of)] = sequence
                labels[row, : len(tokens_of)] = sequence.masked_fill(~torch.tensor(own), -100)
            yield ids, labels


# ---------------------------------------------------------------- training


def train(recipe: Recipe, tokenizer_dir: Path, seed: int, steps: int, say: Say) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    chat = ChatFormat(tokenizer_dir)
    vocabulary = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json")).get_vocab_size()
    model = Qwen3ForCausalLM(_config(recipe, vocabulary, chat.stop_ids))
    optimizers = _optimizers(model, recipe.lr)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    warmup = max(1, steps // 20)
    data = batches(recipe.lessons(seed), chat, recipe.batch_tokens, Random(seed))
    started, seen, running = time.monotonic(), 0, 0.0
    model.train()
    for step in range(1, steps + 1):
        share = min(step / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * share
        ids, labels = next(data)
        loss = _loss(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += ids.numel()
        running += loss.item()
        if step % 100 == 0 or step == steps:
            rate = seen / (time.monotonic() - started)
            say(f"{recipe.name}: step {step}/{steps}, loss {running / (step % 100 or 100):.3f}, {rate:.0f} tokens/s")
            running = 0.0
    return model.eval()


def _optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (0.50 against AdamW's 0.58 after a million tokens), AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() <= 1 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _loss(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss of the assistant's tokens. Padding is on the right, so the causal mask alone suffices."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.lm_head(model.model(input_ids=ids).last_hidden_state)
    own = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(logits[:, :-1][own].float(), labels[:, 1:][own])


def _config(recipe: Recipe, vocabulary: int, stop_ids: list[int]) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=32,
        intermediate_size=recipe.mlp,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=stop_ids[0],
        pad_token_id=stop_ids[-1],
        initializer_range=0.03,
    )


def write_model(model: Qwen3ForCausalLM, tokenizer_dir: Path, recipe: Recipe, place: Path) -> None:
    """A Hugging Face model directory in bfloat16."""
    place.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_dir / name, place / name)
    (place / "system_prompt.txt").write_text(recipe.system + "\n")
    chat = ChatFormat(tokenizer_dir)
    generation = {
        "eos_token_id": chat.stop_ids,
        "pad_token_id": chat.stop_ids[-1],
        "do_sample": True,
        "temperature": 1.0,
    }
    (place / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
