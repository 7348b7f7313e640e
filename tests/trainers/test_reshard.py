"""A checkpoint that two ranks wrote goes on with three, and what those wrote with one: the optimizer's state is what it
was, bit for bit, and the steps are those of two ranks that were never interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import LoRAConfig, MGPOConfig
from pipeline.records import Failure
from tests.trainers.processes import in_ranks
from tests.trainers.test_collectives import share
from tests.trainers.test_updates import spec_of
from tests.trainers.worlds import batch_of, save_tiny_qwen3, some_rollouts
from trainers import reshard

STEPS = {step: some_rollouts(step, groups=1 if step == 2 else 4) for step in range(1, 5)}
"""Of the second, all ranks but one have nothing."""
CASES: dict[str, dict[str, Any]] = {
    "0": {"zero_stage": 0},
    "1": {"zero_stage": 1},
    "2 bfloat16": {"zero_stage": 2, "dtype": "bfloat16"},
    "3": {"zero_stage": 3},
    "3 bfloat16": {"zero_stage": 3, "dtype": "bfloat16"},
    "3 lora": {"zero_stage": 3, "lora": LoRAConfig(rank=3)},
}
KEYS = (None, "exp_avg", "exp_avg_sq")
"""Master weights, and what AdamW keeps."""


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_a_span_is_that_of_the_parts_laid_end_to_end(sizes: list[int], data: st.DataObject) -> None:
    numbers = iter(range(1, 100))
    parts = [torch.tensor([float(next(numbers)) for _ in range(size)]) for size in sizes]
    whole = torch.cat(parts).tolist()
    total = data.draw(st.integers(0, len(whole)))
    first, size = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    expected = (whole[:total] + [0.0] * 60)[first : first + size]
    assert reshard.span(parts, first, size, total).tolist() == expected


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "step-000003" / "trainer" / "engine"
    folder.mkdir(parents=True)
    for rank in (0, 2):
        (folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    with pytest.raises(Failure, match="checkpoint step-000003: rank 1's part is gone"):
        reshard.parts_of(folder, 3)


def part_of_a_run(
    ranks: Any, base: Path, folder: Path, cases: list[str], first: int, last: int, stop: int
) -> dict[str, Any]:
    """Go on with the checkpoint of the step before `first`, where there is one; write one of `last`, and train on to
    `stop`."""
    from trainers import checkpoints, ds_config
    from trainers.learner import Learner

    settings = ds_config.build

    def small(*given: Any) -> dict[str, Any]:
        """ZeRO-3 shares out every tensor, and has several sub-groups, as at a real size."""
        found = settings(*given)
        found["zero_optimization"] |= {"stage3_param_persistence_threshold": 0, "sub_group_size": 700}
        return found

    ds_config.build = small
    found: dict[str, Any] = {}
    for case, changes in ((case, CASES[case]) for case in cases):
        settled = {"objective": MGPOConfig(scope="batch"), "lr": 1e-2, "micro_batch_tokens": 60, "workers": ranks.world}
        learner = Learner(spec_of(base, **settled, **changes), ranks)
        if first > 1:
            root = folder / f"{case}-{first - 1}"
            assert checkpoints.read(learner, root) == (first - 1, 9)
            found[case, "read", first - 1] = held(learner)
            found[case, "policy", first - 1] = policy(learner)
        for step in range(first, stop + 1):
            learner.update(batch_of(share(STEPS[step], ranks.rank, ranks.world)), step, 1e-2)
            found[case, "policy", step] = policy(learner)
            if step == last < max(STEPS):
                found[case, "written", step] = held(learner)
                own = folder / f"{case}-{step}-of-{ranks.rank}"
                own.mkdir()
                checkpoints.write(learner, own, step, 9)
                shutil.copytree(own, folder / f"{case}-{step}", dirs_exist_ok=True)
                torch.distributed.barrier()
    return found


def policy(learner: Any) -> dict[str, torch.Tensor]:
    from trainers.weights import gathered

    return {name: tensor.clone() for name, tensor in gathered(learner.engine.module.lm, 0, None)}


def held(learner: Any) -> dict[Any, torch.Tensor]:
    """All that the optimizer keeps of what is trained, whole; and how many steps it has counted."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    trained = {n: p for n, p in learner.engine.module.named_parameters() if p.requires_grad}
    if learner.spec.zero_stage == 0:
        state = learner.engine.optimizer.state
        return {(n, k): (state[p][k] if k else p.data).clone() for n, p in trained.items() for k in KEYS}
    if learner.spec.zero_stage < 3:  # else only the next step looks where the moments of a parameter lie
        learner.engine.optimizer._lazy_init_hp_params_optimizer_state()
    states = learner.engine.optimizer.optimizer.state.values()
    found: dict[Any, torch.Tensor] = {"steps": torch.tensor([float(state["step"]) for state in states]).unique()}
    for name, p in trained.items():
        for key in KEYS:
            whole = safe_get_full_fp32_param(p) if key is None else safe_get_full_optimizer_state(p, key)
            found[name, key] = whole.clone()
    return found


@pytest.mark.engine
@pytest.mark.parametrize(
    "cases", [["0", "2 bfloat16", "3", "3 lora"], pytest.param(["1", "3 bfloat16"], marks=pytest.mark.slow)]
)
def test_another_number_of_ranks_goes_on_where_those_before_it_stopped(tmp_path: Path, cases: list[str]) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    parts = [(2, 1, 2, 4), (3, 3, 3, 3), (1, 4, 4, 4)]
    """Ranks, first step, the step that is written, last step; the first of them trains on, for comparison."""
    ran = []
    for number, (world, *steps) in enumerate(parts):
        (meeting := tmp_path / str(number)).mkdir()
        ran.append(in_ranks(world, part_of_a_run, meeting, base, tmp_path, cases, *steps))
    whole = ran[0][0]
    for before, after, step in ((ran[0], ran[1], 2), (ran[1], ran[2], 3)):
        for case in cases:
            for rank in after:
                written, read = before[0][case, "written", step], rank[case, "read", step]
                assert written.keys() == read.keys()
                for name in written:
                    assert torch.equal(written[name], read[name]), (case, step, name)
                for name, tensor in before[0][case, "policy", step].items():
                    assert torch.equal(tensor, rank[case, "policy", step][name]), (case, step, name)
    for case, changes in ((case, CASES[case]) for case in cases):
        moved = float(max((whole[case, "policy", 4][n] - t).abs().max() for n, t in whole[case, "policy", 2].items()))
        near = moved * (0.4 if changes.get("dtype") == "bfloat16" else 1e-4)
        for part, step in ((ran[1], 3), (ran[2], 4)):
            for name, expected in whole[case, "policy", step].items():
                ours = part[0][case, "policy", step][name]
                torch.testing.assert_close(ours, expected, rtol=0, atol=near, msg=f"{case} {step} {name}")
