"""The registry: an algorithm is one file and one entry here, under the name its config section carries."""

from __future__ import annotations

from typing import Any

from pipeline.config import GRPO as GRPOConfig
from pipeline.config import MGPO as MGPOConfig
from pipeline.config import SFTObjective
from trainers.objectives.base import Objective
from trainers.objectives.grpo import GRPO
from trainers.objectives.mgpo import MGPO
from trainers.objectives.mgpo_no_stage import MGPONoStage
from trainers.objectives.sft import SFT

ObjectiveConfig = MGPOConfig | GRPOConfig | SFTObjective

REGISTRY: dict[str, type[Any]] = {"sft": SFT, "grpo": GRPO, "mgpo": MGPO, "mgpo_no_stage": MGPONoStage}


def make(config: ObjectiveConfig) -> Objective:
    """The algorithm that a config section names."""
    objective: Objective = REGISTRY[config.name](config)
    return objective
