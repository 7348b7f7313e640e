"""The plan of memory against what a process takes: SmolLM2-135M, one rank, the peak of its resident memory while it
trains on one row, less what it had before the model was loaded.

`python -m tests.realmodel.test_memory ZERO_STAGE DTYPE true|false TOKENS ...` prints measurement and plan, part by
part; true: activations are computed again.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import LoRAConfig, SFTConfig
from tests.realmodel.smollm import model_dir
from tests.trainers.processes import in_ranks
from tests.trainers.test_updates import spec_of
from tests.trainers.worlds import batch_of, make_rollout
from trainers.footprint import Footprint, Settings, Shape, footprint

pytestmark = pytest.mark.realmodel

WORDS = 49_152
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "1048576")  # what is freed leaves the process


def resident(field: str) -> int:
    """VmRSS, or VmHWM: its peak since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def rows_of(tokens: int) -> Any:
    """Two rows of so many tokens each, nearly all of them loss tokens; in trajectories of 256, because on a core
    attention in bfloat16 takes minutes backwards."""
    rng = np.random.default_rng(0)
    each = min(tokens, 256)
    rollouts = []
    for number in range(2 * tokens // each):
        rollout = make_rollout(str(number), "g", [(0, 0.0, each - 4)], 1.0, rng)
        rollouts.append(rollout.model_copy(update={"token_ids": tuple(rng.integers(0, WORDS, each).tolist())}))
    return batch_of(rollouts)


def measure(ranks: Any, base: Path, changes: dict[str, Any], lengths: list[int]) -> dict[Any, float]:
    from trainers.learner import Learner

    before = resident("VmRSS")
    learner = Learner(spec_of(base, objective=SFTConfig(), **changes), ranks)
    found: dict[Any, float] = {}
    learner.update(rows_of(64), 1, 1e-5)  # the optimizer's states come with its first step
    found["held"] = resident("VmRSS") - before
    for step, tokens in enumerate(lengths, 2):
        learner.spec = learner.spec.model_copy(update={"micro_batch_tokens": tokens})
        forget()
        learner.update(rows_of(tokens), step, 1e-5)
        found[tokens] = resident("VmHWM") - before
    return found


def planned(base: Path, changes: dict[str, Any], tokens: int) -> Footprint:
    shape = Shape.of(json.loads((base / "config.json").read_text()))
    assert shape is not None
    return footprint(
        shape,
        Settings(
            dtype=changes["dtype"], zero_stage=changes.get("zero_stage", 0), workers=1, tokens=tokens,
            checkpointing=changes["activation_checkpointing"], reference=None, offload=None, use_gpu=False,
            lora=changes.get("lora"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "checkpointing", "tokens", "lora"),
    [
        ("bfloat16", False, 2048, None),
        ("bfloat16", True, 2048, None),
        ("bfloat16", True, 8192, None),
        ("bfloat16", False, 8192, None),
        ("float32", True, 2048, None),
        ("float32", False, 2048, LoRAConfig()),
    ],
)
def test_the_plan_is_within_a_tenth_of_what_training_takes(
    tmp_path: Path, dtype: str, checkpointing: bool, tokens: int, lora: LoRAConfig | None
) -> None:
    base, changes = model_dir(), {"dtype": dtype, "activation_checkpointing": checkpointing, "lora": lora}
    (found,) = in_ranks(1, measure, tmp_path, base, changes, [tokens])
    assert found[tokens] == pytest.approx(planned(base, changes, tokens).peak, rel=0.1)


if __name__ == "__main__":
    stage, dtype, again, *lengths = sys.argv[1:]
    changes = {"zero_stage": int(stage), "dtype": dtype, "activation_checkpointing": again == "true"}
    with tempfile.TemporaryDirectory() as folder:
        (found,) = in_ranks(1, measure, Path(folder), model_dir(), changes, [int(tokens) for tokens in lengths])
    for tokens, measured in found.items():
        need = planned(model_dir(), changes, 64 if tokens == "held" else tokens)
        parts = {name: round(size / 1e6) for name, size in vars(need).items() if size}
        print(
            tokens,
            round(measured / 1e6),
            "MB; planned",
            round((need.held if tokens == "held" else need.peak) / 1e6),
            parts,
        )
