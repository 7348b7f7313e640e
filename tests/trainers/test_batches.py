"""Arrow rollouts to packed micro-batches: nothing lost, nothing twice, bad fields named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Failure, Rollout
from tests.trainers.worlds import batch_of, ragged, some_rollouts
from trainers.batches import StepBatch


@settings(max_examples=80, deadline=None)
@given(ragged(), st.integers(1, 60))
def test_every_loss_token_is_in_one_micro_batch_behind_its_own_context(rollouts: list[Rollout], budget: int) -> None:
    batch = batch_of(rollouts)
    contexts = [
        (r.token_ids[:p], r.token_ids[p], r.logprobs[p])
        for r in rollouts
        for p in range(len(r.token_ids))
        if r.loss_mask[p]
    ]
    seen: dict[int, bool] = {}
    for micro in batch.micro_batches(budget):
        ids, places = micro.input_ids_1L[0].tolist(), micro.position_ids_1L[0].tolist()
        assert len(ids) == micro.boundaries[-1] <= max(budget, max(len(r.token_ids) for r in rollouts))
        for start, end in zip(micro.boundaries, micro.boundaries[1:], strict=False):
            assert places[start:end] == list(range(end - start))
        for predict, target, token in zip(
            micro.predict_K.tolist(), micro.target_K.tolist(), micro.token_K.tolist(), strict=True
        ):
            assert token not in seen
            seen[token] = True
            start = max(b for b in micro.boundaries if b <= predict)
            context, expected, logprob = contexts[token]
            assert tuple(ids[start : predict + 1]) == context
            assert target == expected
            assert float(batch.tokens.engine_K[token]) == pytest.approx(logprob)
    assert sorted(seen) == list(range(len(contexts)))


@settings(max_examples=40, deadline=None)
@given(ragged())
def test_facts_follow_their_tokens(rollouts: list[Rollout]) -> None:
    tokens = batch_of(rollouts).tokens
    expected = [
        (r.group_id, r.terminal_reward, r.action_stage[a], r.process_rewards[a])
        for r in rollouts
        for a, m in zip(r.action_index, r.loss_mask, strict=True)
        if m
    ]
    names = {int(g): r.group_id for g, r in zip(tokens.group_S, rollouts, strict=True)}
    got = [
        (names[int(tokens.group_S[s])], float(tokens.reward_S[s]), int(tokens.stage_A[a]), float(tokens.process_A[a]))
        for a, s in zip(tokens.action_K.tolist(), tokens.seq_K.tolist(), strict=True)
    ]
    assert got == expected


def test_slices_tables_and_several_batches_are_one_step() -> None:
    """Record batches that are slices of a buffer have offsets that do not start at 0."""
    rollouts = some_rollouts(1)
    whole = batch_of(rollouts)
    arrow = Rollout.to_arrow(rollouts)
    parts = StepBatch.from_arrow([arrow.slice(0, 5), pa.Table.from_batches([arrow.slice(5)])])
    assert (parts.ids_T == whole.ids_T).all()
    assert (parts.loss_N == whole.loss_N).all()
    assert parts.tokens.engine_K.equal(whole.tokens.engine_K)
    assert parts.tokens.action_K.equal(whole.tokens.action_K)


def test_an_empty_share_is_a_step_of_nothing() -> None:
    for batches in ([], [Rollout.to_arrow([])]):
        batch = StepBatch.from_arrow(batches)
        assert batch.trajectories == len(batch.loss_N) == 0
        assert batch.micro_batches(100) == []


def test_rows_are_filled_without_padding() -> None:
    rollouts = some_rollouts(2, groups=8)
    micro_batches = batch_of(rollouts).micro_batches(64)
    total = sum(len(r.token_ids) for r in rollouts)
    assert sum(m.input_ids_1L.numel() for m in micro_batches) == total
    assert len(micro_batches) <= 1.5 * np.ceil(total / 64)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"loss_mask": (0,)}, "loss_mask and token_ids differ in length"),
        ({"logprobs": (0.0,) * 3}, "logprobs and token_ids differ in length"),
        ({"process_rewards": ()}, "process_rewards and action_stage differ in length"),
        ({"action_index": (-1,) * 99}, "a loss token belongs to no action"),
        ({"action_index": (9,) * 99}, "a loss token belongs to no action"),
        ({"loss_mask": (1,) * 99}, "first token is a loss token"),
        ({"action_stage": (7,)}, "a stage index is outside"),
        ({"terminal_reward": float("nan")}, "terminal reward is not finite"),
        ({"process_rewards": (float("inf"),)}, "process reward is not finite"),
        ({"logprobs": (float("nan"),) * 99}, "log-probability is not finite"),
    ],
)
def test_fields_that_disagree_are_named_with_their_rollout(change: dict[str, tuple[int, ...]], problem: str) -> None:
    good = some_rollouts(3)
    bad = good[4]
    tokens, actions = len(bad.token_ids), len(bad.action_stage)
    fitted = {
        k: v[:tokens]
        if isinstance(v, tuple) and len(v) == 99
        else v * actions
        if isinstance(v, tuple) and v and k in ("action_stage", "process_rewards")
        else v
        for k, v in change.items()
    }
    if problem.startswith("first"):
        fitted["action_index"] = (0,) * tokens
    good[4] = bad.model_copy(update=fitted)
    with pytest.raises(Failure, match=problem) as caught:
        batch_of(good)
    assert f"rollout {bad.episode_id}:" in str(caught.value)
    assert "\n" not in str(caught.value)
