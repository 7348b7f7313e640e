"""What each baseline makes of recorded rollouts: the mean fused advantage by cognitive stage, of Refine step by step.

    python -m tests.benchmarks.bench_credit RUN_DIR [--omega 0.5]

Reads steps/mgpo/*/rollouts.parquet; computes steps 1 to 3 of the method, and step 5 with an implicit reward of 0, as
the trainer does. "centred" is what is left of the fused advantage after step 5; "share" is that of the actions of a
stage that are discouraged by it. ± is the standard error over steps.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow.parquet as pq
import torch

from pipeline.config import MGPOConfig
from pipeline.records import COGNITIVE_STAGES
from trainers.batches import StepBatch
from trainers.objectives.mgpo import advantages, zero_sum

CREDITS: dict[str, dict[str, Any]] = {
    "group (the paper)": {},
    "group, lone: group": {"lone": "group"},
    "group, zero-sum over trajectories": {"zero_sum": "trajectories"},
    "stage": {"baseline": "stage"},
    "stage, lone: group": {"baseline": "stage", "lone": "group"},
    "stage, zero-sum over trajectories": {"baseline": "stage", "zero_sum": "trajectories"},
    "stage, both": {"baseline": "stage", "lone": "group", "zero_sum": "trajectories"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--omega", type=float, default=0.5)
    args = parser.parse_args()
    files = sorted(args.run.glob("steps/mgpo/*/rollouts.parquet"))
    if not files:
        raise SystemExit(f"{args.run}: holds no steps/mgpo/*/rollouts.parquet")
    steps = [StepBatch.from_arrow([pq.read_table(file)]).tokens for file in files]
    stages = torch.cat([step.stage_A for step in steps])
    actions = torch.bincount(stages, minlength=len(COGNITIVE_STAGES)).tolist()
    shares = ", ".join(f"{stage} {n}" for stage, n in zip(COGNITIVE_STAGES, actions, strict=True))
    print(f"{len(steps)} steps; actions: {shares}; omega {args.omega:g}\n")
    heads = [f"{stage}: A, centred, share" for stage in COGNITIVE_STAGES]
    print("| baseline | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    refined: dict[str, list[float]] = {}
    for name, credit in CREDITS.items():
        config = MGPOConfig(omega=args.omega, **credit)
        cells = []
        for index, stage in enumerate(COGNITIVE_STAGES):
            means, centred, negative = [], [], []
            for step in steps:
                fused_A = advantages(config, step)
                left_A = zero_sum(config, step, fused_A, torch.zeros_like(fused_A), lambda sums: sums)
                here_A = step.stage_A == index
                if here_A.any():
                    means.append(float(fused_A[here_A].mean()))
                    centred.append(float(left_A[here_A].mean()))
                    negative.append(float((left_A[here_A] < 0).float().mean()))
            cells.append(f"{_told(means)}, {_told(centred)}, {100 * fmean(negative):.0f} %" if means else "–")
            if stage == "refine":
                refined[name] = means
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\nRefine, mean fused advantage by step:\n")
    for name, means in refined.items():
        print(f"{name:36s}" + " ".join(f"{m:+.2f}" for m in means))


def _told(values: list[float]) -> str:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{fmean(values):+.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
