"""Small worlds for trainer tests: ragged groups of rollouts, and a random Qwen3."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from pipeline.records import Rollout
from trainers.batches import StepBatch
from trainers.objectives.base import Totals

VOCABULARY = 40
PROMPT = 3
"""Tokens before the first action."""


def make_rollout(
    name: str,
    group: str,
    actions: list[tuple[int, float, int]],
    reward: float,
    rng: np.random.Generator,
    logprobs: np.ndarray | None = None,
) -> Rollout:
    """`actions` are (stage, process reward, tokens); a tool token follows each action."""
    mask, index = [0] * PROMPT, [-1] * PROMPT
    for number, (_, _, tokens) in enumerate(actions):
        mask += [1] * tokens + [0]
        index += [number] * tokens + [-1]
    engine = rng.normal(-2, 0.5, len(mask)) if logprobs is None else logprobs
    return Rollout(
        episode_id=name,
        attempt=0,
        group_id=group,
        token_ids=tuple(rng.integers(0, VOCABULARY, len(mask)).tolist()),
        loss_mask=tuple(mask),
        logprobs=tuple(float(np.float32(x)) if m else 0.0 for x, m in zip(engine, mask, strict=True)),
        versions=tuple(0 if m else -1 for m in mask),
        action_index=tuple(index),
        action_stage=tuple(stage for stage, _, _ in actions),
        action_kind=tuple(0 for _ in actions),
        process_rewards=tuple(float(np.float32(process)) for _, process, _ in actions),
        terminal_reward=float(np.float32(reward)),
    )


def some_rollouts(seed: int, groups: int = 3, members: int = 4) -> list[Rollout]:
    rng = np.random.default_rng(seed)
    rollouts = []
    for group in range(groups):
        for member in range(members):
            count = int(rng.integers(1, 5))
            actions = [(int(rng.integers(4)), float(rng.normal()), int(rng.integers(1, 9))) for _ in range(count)]
            rollouts.append(make_rollout(f"{group}-{member}", f"g{group}", actions, float(rng.normal()), rng))
    return rollouts


@st.composite
def ragged(draw: st.DrawFn) -> list[Rollout]:
    """Groups of any size, with ties, lone members, stages that occur once, and trajectories without actions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    value = st.sampled_from([-0.3, 0.0, 0.1, 0.2, 1.0, 3.0])
    action = st.tuples(st.integers(0, 3), value, st.integers(1, 3))
    rollouts = []
    for group in range(draw(st.integers(1, 3))):
        for member in range(draw(st.integers(1, 4))):
            actions = draw(st.lists(action, max_size=4))
            rollouts.append(make_rollout(f"{group}-{member}", f"g{group}", actions, draw(value), rng))
    return rollouts


def batch_of(rollouts: list[Rollout]) -> StepBatch:
    return StepBatch.from_arrow([Rollout.to_arrow(rollouts)])


def owners(rollouts: list[Rollout], batch: StepBatch, part: StepBatch) -> list[Rollout]:
    """The rollouts of a part, found by their tokens: an engine's log-probabilities are all different."""
    of: dict[tuple[int, ...], list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        of[tuple(rollout.token_ids)].append(rollout)
    spans = zip(part.start_S[:-1], part.start_S[1:], strict=True)
    return [of[tuple(part.ids_T[a:b].tolist())].pop(0) for a, b in spans]


def totals_of(batch: StepBatch) -> Totals:
    return Totals(tokens=float(len(batch.loss_N)), sequences=float(batch.trajectories))


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """all_reduce of a single rank."""
    return tensor


def tiny_qwen3(seed: int = 0, **changes: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    }
    return Qwen3ForCausalLM(Qwen3Config(**(settings | changes))).float()


def save_tiny_qwen3(path: Path, **changes: Any) -> Path:
    tiny_qwen3(**changes).save_pretrained(path)
    (path / "tokenizer.json").write_text("{}")
    return path
