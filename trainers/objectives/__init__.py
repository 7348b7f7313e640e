"""Objectives: what a step of training follows. One file each, and one entry in `pipeline.config.objectives.OBJECTIVES`.

Pure functions of tensors: they know no Ray, no DeepSpeed, no files.
"""

from __future__ import annotations

from pipeline.config import ObjectiveConfig
from trainers.objectives.base import Objective


def make(config: ObjectiveConfig) -> Objective:
    """The objective that a config section names."""
    objective: Objective = config.load()(config)
    return objective
