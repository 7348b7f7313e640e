"""The real loop: Ray Train, DeepSpeed, gloo, a tiny random Qwen3, with a loader and a weight store that remember."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipeline.config import GRPOConfig, LoRAConfig, MGPOConfig, SFTConfig
from pipeline.records import Failure, Rollout
from tests.trainers.worlds import make_rollout, save_tiny_qwen3, some_rollouts
from trainers.launch import Launcher
from trainers.loader import StepWork
from trainers.spec import TrainSpec

pytestmark = pytest.mark.engine

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", include_dashboard=False, num_cpus=4, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen3(tmp_path_factory.mktemp("model") / "base")


class Deadly:
    """Whoever unpickles it is gone, as if the kernel had killed it for memory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)",)


@ray.remote(num_cpus=0)
class MemoryLoader:
    """Serves the same rollouts for a step however often it is asked; whole groups, dealt round the ranks. `kill` names
    the (rank, step) that is served a deadly batch the first time, once Ray Train has registered a checkpoint in
    `registered`, which it does when it next looks for reports."""

    def __init__(
        self,
        steps: dict[int, list[Rollout]],
        fail_at: int | None = None,
        kill: tuple[int, int] | None = None,
        registered: Path | None = None,
    ):
        self.steps, self.fail_at, self.kill, self.registered = steps, fail_at, kill, registered
        self.asked: list[tuple[int, int]] = []
        self.done: dict[int, dict[str, float]] = {}

    def next_batch(self, rank: int, world: int, step: int) -> StepWork | None:
        self.asked.append((rank, step))
        if step == self.fail_at:
            raise Failure(f"no progress for 1 s: waited for step {step}", "infra_error")
        if (rank, step) == self.kill:
            self.kill = None
            end = time.monotonic() + 30
            while self.registered and not self.registered.exists() and time.monotonic() < end:
                time.sleep(0.05)
            return StepWork(step=step, batches=[Deadly()])
        if step not in self.steps:
            return None
        groups = sorted({r.group_id for r in self.steps[step]})
        mine = [r for r in self.steps[step] if groups.index(r.group_id) % world == rank]
        return StepWork(step=step, batches=[ray.put(Rollout.to_arrow(mine))] if mine else [])

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        self.done[step] = metrics

    def history(self) -> tuple[list[tuple[int, int]], dict[int, dict[str, float]]]:
        return self.asked, self.done


@ray.remote(num_cpus=0)
class MemoryWeights:
    def __init__(self) -> None:
        self.open: dict[str, Any] = {}
        self.versions: dict[int, dict[str, Any]] = {}

    def latest(self) -> int:
        return max(self.versions, default=0)

    def begin(self, version: int) -> None:
        assert version > self.latest(), "published again"
        self.open = {}

    def put_chunk(self, version: int, tensors: dict[str, Any]) -> None:
        assert not self.open.keys() & tensors.keys()
        self.open |= tensors

    def commit(self, version: int) -> None:
        self.versions[version] = self.open

    def get(self, version: int) -> dict[str, Any]:
        return self.versions[version]


def mgpo_steps(count: int) -> dict[int, list[Rollout]]:
    """Step 2 has one group only, so the second of two ranks has nothing to do in it."""
    return {step: some_rollouts(step, groups=1 if step == 2 else 3) for step in range(1, count + 1)}


def spec_of(base: Path, storage: Path, name: str, **changes: Any) -> TrainSpec:
    settings: dict[str, Any] = {
        "base_model": base,
        "objective": MGPOConfig(),
        "lr": 1e-2,
        "warmup_steps": 1,
        "cpus_per_worker": 0.5,
        "micro_batch_tokens": 60,  # several micro-batches, not equally many on each rank
        "storage": storage,
        "name": name,
        "checkpoint_every": 2,
        "publish_dtype": "float32",
        "step_timeout_s": 60,
    }
    return TrainSpec(**(settings | changes))


def tensors_of(weights: Any, version: int) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(raw) for name, (_, _, raw) in ray.get(weights.get.remote(version)).items()}


@pytest.fixture(scope="module")
def uninterrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """Two workers under ZeRO-3, all steps: (summary, loader, weights)."""
    loader, weights = MemoryLoader.remote(mgpo_steps(STEPS)), MemoryWeights.remote()
    spec = spec_of(base, tmp_path_factory.mktemp("runs"), "whole", workers=2, zero_stage=3)
    return Launcher().train(spec, loader, weights), loader, weights


def test_zero_3_on_two_workers_takes_the_step_of_zero_0_on_one(
    base: Path, tmp_path: Path, uninterrupted: tuple[Any, Any, Any]
) -> None:
    _, sharded_feed, sharded_weights = uninterrupted
    loader, weights = MemoryLoader.remote(mgpo_steps(2)), MemoryWeights.remote()
    Launcher().train(spec_of(base, tmp_path, "single"), loader, weights)
    one, two = (ray.get(f.history.remote())[1] for f in (loader, sharded_feed))
    for step in (1, 2):
        for key in (
            "loss",
            "nll",
            "tokens",
            "trajectories",
            "weight_rms",
            "ref_kl",
            "degenerate_groups",
            "entropy",
            "grad_norm",
        ):
            assert one[step][key] == pytest.approx(two[step][key], rel=1e-3, abs=1e-5), (step, key)
    before = dict(load_file(base / "model.safetensors"))
    for version in (1, 2):
        single, sharded = tensors_of(weights, version), tensors_of(sharded_weights, version)
        assert single.keys() == sharded.keys() == before.keys()
        size = sum(tensor.nbytes for tensor in single.values())
        assert one[version]["published_bytes"] == two[version]["published_bytes"] == size
        moved = max((single[n] - before[n]).abs().max() for n in single)
        assert moved > 1e-3
        for name in single:
            torch.testing.assert_close(single[name], sharded[name], rtol=0, atol=float(moved) * 0.02, msg=name)


def test_a_failed_run_resumes_at_its_checkpoint_and_ends_where_an_uninterrupted_one_does(
    base: Path, tmp_path: Path, uninterrupted: tuple[Any, Any, Any]
) -> None:
    whole, _, _ = uninterrupted
    spec = spec_of(base, tmp_path, "run", workers=2, zero_stage=3, publish_every=None)
    stalled = MemoryLoader.remote(mgpo_steps(STEPS), fail_at=4)
    with pytest.raises(Failure, match="training run: no progress for 1 s: waited for step 4") as caught:
        Launcher().train(spec, stalled)
    assert "\n" not in str(caught.value)
    assert caught.value.kind == "infra_error"
    asked, done = ray.get(stalled.history.remote())
    assert sorted(done) == [1, 2, 3]
    assert [done[s]["checkpoint"] for s in (1, 2, 3)] == [0.0, 1.0, 0.0]
    assert len([a for a in asked if a == (0, 1)]) == 1  # an expected failure does not restart the workers

    half_written = tmp_path / "run" / "step-000004"  # as a crash in the middle of an upload leaves it
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"half")

    loader, weights = MemoryLoader.remote(mgpo_steps(STEPS)), MemoryWeights.remote()
    summary = Launcher().train(spec.model_copy(update={"publish_every": 1}), loader, weights)
    asked, done = ray.get(loader.history.remote())
    assert min(step for _, step in asked) == 3
    assert sorted(done) == [3, 4]
    assert summary.step == whole.step == STEPS
    resumed, expected = (load_file(s.checkpoint / "model.safetensors") for s in (summary, whole))
    for name in expected:
        torch.testing.assert_close(resumed[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)
    for checkpoint in (summary.checkpoint, whole.checkpoint):  # each rollout once, also of the run that was resumed
        state = json.loads((checkpoint / "trainer" / "state.json").read_text())
        assert state["rollouts"] == sum(len(rollouts) for rollouts in mgpo_steps(STEPS).values())
    assert tensors_of(weights, 2)  # what step 2 had made is out again before step 3 is asked for

    model = AutoModelForCausalLM.from_pretrained(summary.checkpoint)
    torch.testing.assert_close(model.state_dict()["model.norm.weight"], expected["model.norm.weight"])
    assert (summary.checkpoint / "tokenizer.json").read_text() == "{}"
    assert len(list((tmp_path / "run").glob("step-*"))) == 2


@pytest.mark.slow
def test_a_killed_worker_comes_back_at_the_checkpoint_and_the_run_ends_as_if_nothing_had_happened(
    base: Path, tmp_path: Path, uninterrupted: tuple[Any, Any, Any]
) -> None:
    """Rank 1 dies when step 3 is trained and published, and step 2 is the last checkpoint."""
    whole, _, whole_weights = uninterrupted
    snapshot = tmp_path / "killed" / "checkpoint_manager_snapshot.json"
    loader, weights = MemoryLoader.remote(mgpo_steps(STEPS), kill=(1, 4), registered=snapshot), MemoryWeights.remote()
    summary = Launcher().train(spec_of(base, tmp_path, "killed", workers=2, zero_stage=3), loader, weights)
    asked, done = ray.get(loader.history.remote())
    assert [step for rank, step in asked if rank == 1] == [1, 2, 3, 4, 3, 4, 5]
    assert sorted(done) == [1, 2, 3, 4] and summary.step == whole.step
    resumed, expected = (load_file(s.checkpoint / "model.safetensors") for s in (summary, whole))
    assert resumed.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(resumed[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)
    for version in range(1, STEPS + 1):  # a version is published once (the store asserts it), and is the same
        ours, theirs = tensors_of(weights, version), tensors_of(whole_weights, version)
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6, msg=f"{version} {name}")
    state = json.loads((summary.checkpoint / "trainer" / "state.json").read_text())
    assert state["rollouts"] == sum(len(rollouts) for rollouts in mgpo_steps(STEPS).values())


@pytest.mark.slow
def test_an_adapter_is_trained_published_and_resumed_as_a_plain_model(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path, "adapter", workers=2, zero_stage=3, lora=LoRAConfig(rank=4))
    stalled, weights = MemoryLoader.remote(mgpo_steps(3), fail_at=3), MemoryWeights.remote()
    with pytest.raises(Failure, match="no progress"):
        Launcher().train(spec, stalled, weights)
    loader = MemoryLoader.remote(mgpo_steps(3))
    summary = Launcher().train(spec, loader, weights)
    asked, done = ray.get(loader.history.remote())
    assert min(step for _, step in asked) == 3 and sorted(done) == [3]
    before, stored = dict(load_file(base / "model.safetensors")), load_file(summary.checkpoint / "model.safetensors")
    sent = tensors_of(weights, 3)
    assert sent.keys() == stored.keys() == before.keys()
    assert all(torch.equal(sent[name], stored[name]) for name in sent)
    changed = {name for name in before if not torch.equal(before[name], stored[name])}
    assert changed == {name for name in before if "_proj." in name}
    loaded = AutoModelForCausalLM.from_pretrained(summary.checkpoint).state_dict()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    assert (summary.checkpoint / "adapter" / "adapter_config.json").exists()


def test_sft_learns_its_trajectories_by_heart_and_leaves_the_tools_words_alone(base: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rollouts = [make_rollout(str(i), str(i), [(0, 0.0, 5), (1, 0.0, 4)], 0.0, rng) for i in range(4)]
    loader = MemoryLoader.remote(dict.fromkeys(range(1, 41), rollouts))
    spec = spec_of(base, tmp_path, "sft", objective=SFTConfig(), zero_stage=2, checkpoint_every=100)
    summary = Launcher().train(spec, loader)
    losses = [m["loss"] for _, m in sorted(ray.get(loader.history.remote())[1].items())]
    assert losses[0] > 3
    assert losses[-1] < 0.1
    model = AutoModelForCausalLM.from_pretrained(summary.checkpoint)
    rollout = rollouts[0]
    with torch.no_grad():
        guess = model(torch.tensor([rollout.token_ids])).logits[0].log_softmax(-1)
    chance = [float(guess[p - 1, rollout.token_ids[p]]) for p in range(1, len(rollout.token_ids))]
    learned = [c for c, m in zip(chance, rollout.loss_mask[1:], strict=True) if m]
    never_trained = [c for c, m in zip(chance, rollout.loss_mask[1:], strict=True) if not m]
    assert min(learned) > -1
    assert np.mean(never_trained) < -3


def test_bad_rollouts_on_one_rank_end_all_ranks_with_one_line(base: Path, tmp_path: Path) -> None:
    good = some_rollouts(1)
    bad = good[-1].model_copy(update={"terminal_reward": float("nan")})
    loader = MemoryLoader.remote({1: [*good[:-1], bad]})
    spec = spec_of(base, tmp_path, "bad", objective=GRPOConfig(), workers=2, zero_stage=1)
    with pytest.raises(Failure, match=rf"training bad: rollout {bad.episode_id}: the terminal reward is not finite"):
        Launcher().train(spec, loader)
