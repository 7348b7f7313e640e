"""What is made of the rollouts of a step: mini-batches and the learning rate. The updates themselves are held against a
plain loop in test_precision.py, where DeepSpeed is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import RunConfig
from transformers import get_scheduler

from pipeline.config import MGPOConfig
from pipeline.records import Rollout
from tests.trainers.oracles import log_probabilities, weights_of
from tests.trainers.worlds import batch_of, owners, ragged
from trainers import launch
from trainers.launch import _environment, _Trainer
from trainers.schedule import learning_rate
from trainers.spec import TrainSpec

STEPS = 20


def spec_of(root: Path = Path("/nowhere"), **changes: Any) -> TrainSpec:
    settings: dict[str, Any] = {"base_model": root, "objective": MGPOConfig(), "lr": 1e-3, "storage": root, "name": "x"}
    return TrainSpec(**(settings | changes))


# ---------------------------------------------------------------- the learning rate


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_without_a_warm_up_a_schedule_is_that_of_transformers(schedule: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=STEPS)
    for step in range(1, STEPS + 1):
        ours = learning_rate(spec_of(schedule=schedule, steps=STEPS), step)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


@given(
    st.sampled_from(["constant", "linear", "cosine"]), st.integers(0, 30), st.integers(1, 100),
    st.sampled_from([0.0, 0.1, 1.0]),
)  # fmt: skip
def test_a_rate_rises_over_its_warm_up_and_falls_to_its_end(schedule: Any, warmup: int, steps: int, end: float) -> None:
    rates = [
        learning_rate(spec_of(schedule=schedule, warmup_steps=warmup, steps=steps, lr_end=end), s)
        for s in range(1, steps + 2)
    ]
    assert all(0 < rate <= 1e-3 for rate in rates[:-1])
    falling = rates[warmup:]
    assert falling == sorted(falling, reverse=True)
    if warmup < steps:
        assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 1e-3 * end, abs=1e-15)


def test_what_the_bundled_sft_did_is_what_it_does() -> None:
    """A line to a tenth, from the first step on, under a warm-up of ten steps."""
    spec = spec_of(schedule="linear", lr_end=0.1, warmup_steps=10, steps=STEPS)
    for step in range(1, STEPS + 1):
        assert learning_rate(spec, step) == 1e-3 * min(1.0, step / 11) * max(0.1, 1.0 - 0.9 * (step - 1) / STEPS)


def test_workers_keep_to_the_nodes_that_their_labels_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def told(*_: Any, scaling_config: Any, **__: Any) -> None:
        raise Told(scaling_config.label_selector)

    monkeypatch.setattr(launch, "_Trainer", told)
    for labels in ({"market": "!spot"}, {}):
        with pytest.raises(Told) as found:
            launch.Launcher().train(spec_of(labels=labels), None)
        assert found.value.args == (labels or None,)


def test_ray_is_told_how_many_workers_there_are_at_least_and_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def told(*_: Any, scaling_config: Any, **__: Any) -> None:
        raise Told(scaling_config)

    monkeypatch.setattr(launch, "_Trainer", told)
    for fewest, expected in ((None, (4, 4, False)), (4, (4, 4, False)), (2, (2, 4, True))):
        with pytest.raises(Told) as found:
            spec = spec_of(workers=4, min_workers=fewest, resize_s=70, resources={"trainer": 1.0})
            launch.Launcher().train(spec, None)
        (config,) = found.value.args
        assert (config.min_workers, config.max_workers, config.elasticity_enabled) == expected
        assert config.elastic_resize_monitor_interval_s == 70 and config.placement_strategy == "PACK"


# ---------------------------------------------------------------- mini-batches


@settings(max_examples=60, deadline=None)
@given(ragged(), st.integers(1, 5), st.integers(0, 9))
def test_mini_batches_are_whole_groups_and_each_is_the_batch_of_its_rollouts(
    rollouts: list[Rollout], count: int, seed: int
) -> None:
    batch = batch_of(rollouts)
    parts = batch.mini_batches(count, (seed,))
    assert len(parts) == count
    assert sum(part.trajectories for part in parts) == batch.trajectories
    groups = [rollout.group_id for rollout in rollouts]
    dealt: dict[str, int] = {}
    config = MGPOConfig(scope="batch")
    for number, part in enumerate(parts):
        own = owners(rollouts, batch, part)
        for rollout in own:
            assert dealt.setdefault(rollout.group_id, number) == number
        again = batch_of(own)
        assert part.ids_T.tolist() == again.ids_T.tolist() and part.loss_N.tolist() == again.loss_N.tolist()
        assert part.start_S.tolist() == again.start_S.tolist() and part.tokens.groups == again.tokens.groups
        logp, ref = log_probabilities(again, 3)
        if len(logp):
            torch.testing.assert_close(weights_of(config, part, logp, ref), weights_of(config, again, logp, ref))
    assert set(dealt) == set(groups)
    sizes = [len({rollout.group_id for rollout in owners(rollouts, batch, part)}) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    same = batch.mini_batches(count, (seed,))  # a replayed step is cut as it was
    assert [p.ids_T.tolist() for p in same] == [p.ids_T.tolist() for p in parts]


# ---------------------------------------------------------------- actors of Ray Train's own


def test_a_trainer_has_no_cleaner_that_would_outlive_it(tmp_path: Path) -> None:
    runs = RunConfig(name="run", storage_path=str(tmp_path))
    trainer = _Trainer(print, torch_config=TorchConfig(backend="gloo"), run_config=runs)
    made = {type(one).__name__ for one in trainer._create_default_callbacks()}
    assert {"BackendSetupCallback", "WorkingDirectorySetupCallback"} <= made
    assert "PlacementGroupCleanerCallback" not in made


# ---------------------------------------------------------------- threads


def test_threads_of_a_cpu_worker_sleep_while_they_wait() -> None:
    """Those that spin take the core that the other one needs, where others use the cores too."""
    assert _environment(spec_of(use_gpu=False), ())["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in _environment(spec_of(use_gpu=True), ())
    theirs = _environment(spec_of(use_gpu=False), ["OMP_WAIT_POLICY", "OMP_NUM_THREADS"])
    assert theirs.keys() == _environment(spec_of(use_gpu=False), ()).keys() - {"OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
