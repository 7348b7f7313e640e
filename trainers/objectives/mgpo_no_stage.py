"""MGPO without the stage advantage, the paper's ablation: A(i,t) = A_E(i), everything else as in MGPO."""

from __future__ import annotations

from pipeline.config import MGPONoStageConfig
from trainers.objectives.mgpo import MGPO


class MGPONoStage(MGPO):
    def __init__(self, config: MGPONoStageConfig):
        super().__init__(config.model_copy(update={"omega": 0.0}))
