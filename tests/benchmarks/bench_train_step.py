"""A step of the trainer against a bare loop of the same model, on the same tokens.

    python -m tests.benchmarks.bench_train_step [--model DIR] [--tokens 1024 4096] [--rounds 5] [--json FILE]

`trainer` is the learner as one rank of Ray Train runs it: Arrow rows to packed micro-batches, DeepSpeed, the objective
(SFT), figures. `bare` is transformers' model, its cross-entropy and AdamW, one trajectory after another. Both take the
same update from the same trajectories of 128 to 512 tokens, in float32, on one thread. Without `--model` it is a random
Qwen3 of eight million parameters, wide enough that its arithmetic is what takes the time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import SFTConfig
from tests.benchmarks.sides import seconds, tell
from tests.trainers.processes import in_ranks
from tests.trainers.test_updates import spec_of
from tests.trainers.worlds import batch_of, make_rollout, save_tiny_qwen3

WORDS, WIDTH = 4096, 256


def trajectories(tokens: int, words: int) -> list[Any]:
    rng, left = np.random.default_rng(0), tokens
    found: list[Any] = []
    while left > 0:
        each = min(left, int(rng.integers(128, 513)))
        left -= each
        rollout = make_rollout(str(len(found)), f"g{len(found)}", [(0, 0.0, max(1, each - 4))], 1.0, rng)
        ids = tuple(rng.integers(0, words, len(rollout.token_ids)).tolist())
        found.append(rollout.model_copy(update={"token_ids": ids}))
    return found


def labels(rollout: Any) -> torch.Tensor:
    """[1, tokens], as transformers takes them: -100 is no loss token."""
    marked = zip(rollout.token_ids, rollout.loss_mask, strict=True)
    return torch.tensor([[token if loss else -100 for token, loss in marked]])


def measured(ranks: Any, base: Path, words: int, lengths: list[int], rounds: int) -> dict[str, float]:
    from transformers import AutoModelForCausalLM

    from trainers.learner import Learner

    learner = Learner(spec_of(base, objective=SFTConfig(), micro_batch_tokens=4096, dtype="float32"), ranks)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    found: dict[str, float] = {}
    for tokens in lengths:
        rollouts = trajectories(tokens, words)
        rows = [(torch.tensor([r.token_ids]), labels(r)) for r in rollouts]
        arrow, counted = batch_of(rollouts), sum(sum(r.loss_mask) for r in rollouts)

        def ours(arrow: Any = arrow) -> None:
            learner.update(arrow, 1, 1e-5)

        def bare(rows: Any = rows, counted: int = counted) -> None:
            for ids, target in rows:
                model(input_ids=ids, labels=target, num_items_in_batch=counted).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        took = seconds({"ours": ours, "bare": bare}, rounds)
        found[f"{tokens} tokens, trainer, tokens/s"] = tokens / took["ours"]
        found[f"{tokens} tokens, bare, tokens/s"] = tokens / took["bare"]
        found[f"{tokens} tokens, trainer's share of bare"] = took["bare"] / took["ours"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = args.model or save_tiny_qwen3(
            Path(folder) / "base", vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=3 * WIDTH,
            num_hidden_layers=8, head_dim=64, max_position_embeddings=2048,
        )  # fmt: skip
        words = json.loads((base / "config.json").read_text())["vocab_size"]
        (found,) = in_ranks(1, measured, Path(folder), base, words, args.tokens, args.rounds)
    tell(found, args.json)


if __name__ == "__main__":
    main()
