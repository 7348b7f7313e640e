"""Packed log-probabilities against a stock Qwen3, one trajectory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import MGPOConfig
from pipeline.records import Failure, Rollout
from tests.trainers.worlds import alone, batch_of, save_tiny_qwen3, some_rollouts, tiny_qwen3, totals_of
from trainers import head
from trainers.batches import MicroBatch, StepBatch
from trainers.objectives import make
from trainers.policy import Policy


def packed(policy: Policy, batch: StepBatch, budget: int) -> tuple[torch.Tensor, torch.Tensor]:
    logp, entropy = torch.zeros(len(batch.loss_N)), torch.zeros(len(batch.loss_N))
    for micro in batch.micro_batches(budget):
        logp[micro.token_K], entropy[micro.token_K] = policy(micro)
    return logp, entropy


def one_by_one(lm: torch.nn.Module, rollouts: list[Rollout]) -> torch.Tensor:
    """transformers' own attention, no packing."""
    parts = []
    for rollout in rollouts:
        logits = lm(input_ids=torch.tensor([rollout.token_ids])).logits[0].log_softmax(-1)
        places = [p for p, m in enumerate(rollout.loss_mask) if m]
        parts.append(logits[[p - 1 for p in places], [rollout.token_ids[p] for p in places]])
    return torch.cat(parts)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return save_tiny_qwen3(tmp_path / "base")


@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_packed_equals_one_by_one(model_dir: Path, budget: int) -> None:
    rollouts = some_rollouts(0)
    policy = Policy.load(model_dir, torch.float32)
    logp, entropy = packed(policy, batch_of(rollouts), budget)
    torch.testing.assert_close(logp, one_by_one(tiny_qwen3(), rollouts), rtol=1e-4, atol=1e-5)
    assert (entropy > 0).all()


def test_gradients_are_those_of_one_by_one(model_dir: Path) -> None:
    rollouts = some_rollouts(1)
    policy, lm = Policy.load(model_dir, torch.float32), tiny_qwen3()
    packed(policy, batch_of(rollouts), 64)[0].sum().backward()
    one_by_one(lm, rollouts).sum().backward()
    for (name, mine), theirs in zip(policy.lm.named_parameters(), lm.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_chunks_of_the_vocabulary_projection_change_nothing(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(some_rollouts(2))
    whole, cut = Policy.load(model_dir, torch.float32), Policy.load(model_dir, torch.float32)
    a = packed(whole, batch, 10_000)
    monkeypatch.setattr(head, "CHUNK", 3 * 40)  # three tokens at a time
    b = packed(cut, batch, 10_000)
    torch.testing.assert_close(a, b)
    a[0].sum().backward()
    b[0].sum().backward()
    for mine, theirs in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_no_tensor_is_larger_than_a_chunk_of_logits(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(some_rollouts(2))
    policy = Policy.load(model_dir, torch.float32)
    (micro,) = batch.micro_batches(10_000)
    chunk = 30 * 40
    assert len(batch.loss_N) > 100
    monkeypatch.setattr(head, "CHUNK", chunk)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, tuple) else (made,):
                if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (40,) and tensor.shape != (32, 40):
                    largest = max(largest, tensor.numel())
            return made

    with Watch():
        policy(micro)[0].sum().backward()
    assert largest == chunk


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_every_row_enters_the_same_modules_in_the_same_order(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Forwards and backwards, many loss tokens or few or none: under ZeRO-3 each entry is a collective of all ranks."""
    policy = Policy.load(model_dir, torch.float32).train()
    if again:
        policy.lm.gradient_checkpointing_enable()
    monkeypatch.setattr(head, "CHUNK", 7 * 40)
    entered: list[str] = []
    for name, module in policy.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
        module.register_full_backward_pre_hook(lambda *_, name=name: entered.append(f"{name} back"))
    seen = []
    for micro in (*batch_of(some_rollouts(2)).micro_batches(60), MicroBatch.filler()):
        entered.clear()
        policy(micro)[0].sum().backward()
        seen.append([*entered])
    assert len({tuple(row) for row in seen}) == 1 and seen[0].count("lm.lm_head") == 1
    assert seen[0].count("lm.model.layers.1") == (2 if again else 1)


def test_tool_tokens_are_context_never_targets(model_dir: Path) -> None:
    """What a tool said moves the loss of later tokens only, and its own ids are never predicted."""
    rollout = next(r for r in some_rollouts(3) if len(r.action_stage) >= 2)
    tool = rollout.action_index.index(0) + rollout.action_index.count(0)  # the token after the first action
    assert rollout.loss_mask[tool] == 0
    ids = list(rollout.token_ids)
    ids[tool] = (ids[tool] + 1) % 40
    other = rollout.model_copy(update={"token_ids": tuple(ids)})
    policy = Policy.load(model_dir, torch.float32)
    before, after = (packed(policy, batch_of([r]), 100)[0] for r in (rollout, other))
    first = rollout.action_index.count(0)
    assert before[:first].equal(after[:first])
    assert not before[first:].allclose(after[first:])
    for micro in batch_of([rollout]).micro_batches(100):
        assert micro.target_K.tolist() == [t for t, m in zip(rollout.token_ids, rollout.loss_mask, strict=True) if m]


def test_only_masked_positions_of_the_output_get_gradient(model_dir: Path) -> None:
    """The gradient of the MGPO loss with respect to the final hidden states is zero wherever the next token is the
    prompt's or a tool's."""
    rollouts = some_rollouts(4)
    batch = batch_of(rollouts)
    policy = Policy.load(model_dir, torch.float32)
    (micro,) = batch.micro_batches(10_000)
    hidden: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        hidden.append(output)

    policy.lm.base_model.norm.register_forward_hook(keep)
    logp, _ = policy(micro)
    at = micro.token_K
    step = batch.tokens.select(at)
    config = MGPOConfig(beta=0.0)
    weight = make(config).weights(step, logp.detach(), logp.detach(), totals_of(batch), alone)
    (-(weight * logp).sum()).backward()
    assert hidden[0].grad is not None
    touched = set(hidden[0].grad[0].abs().sum(-1).nonzero()[:, 0].tolist())
    allowed = set(micro.predict_K.tolist())
    assert touched
    assert touched <= allowed
    assert len(allowed) < micro.input_ids_1L.numel()


def test_a_directory_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="expected a Hugging Face model directory") as caught:
        Policy.load(tmp_path, torch.float32)
    assert "\n" not in str(caught.value)
