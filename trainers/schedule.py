"""The learning rate of a step.

Invariant: it follows from the step's number and the spec alone, so that a run that is resumed goes on exactly; and it
is never 0 in the first step.
"""

from __future__ import annotations

import math

from trainers.spec import TrainSpec


def learning_rate(spec: TrainSpec, step: int) -> float:
    """Of step 1, 2, …: a linear warm-up times the schedule, which falls from the first step on. Without a warm-up it is
    that of transformers' schedulers."""
    return spec.lr * min(1.0, step / (spec.warmup_steps + 1)) * _left(spec, step)


def _left(spec: TrainSpec, step: int) -> float:
    if spec.schedule == "constant" or spec.steps is None:
        return 1.0
    if spec.schedule == "linear":
        return max(spec.lr_end, 1.0 - (1.0 - spec.lr_end) * (step - 1) / spec.steps)
    gone = min(1.0, (step - 1) / spec.steps)
    return spec.lr_end + (1.0 - spec.lr_end) * (1 + math.cos(math.pi * gone)) / 2
