"""The episode loop and the sandbox that its programs run in."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline.config.cluster import PoolConfig
from pipeline.config.models import SamplingConfig
from pipeline.config.section import Section
from pipeline.config.types import Positive, Seconds
from pipeline.records import COGNITIVE_STAGES, CognitiveStage


class EpisodeLimits(Section):
    max_turns: Positive = 16
    """Turns of the agent; after as many without a submission the episode has failed."""
    max_tokens: Positive = 20480
    """Tokens of the whole episode, prompt included."""
    max_turn_tokens: Positive = 4096
    """Tokens that the agent may write in a turn."""
    max_tool_calls: Positive = 8
    """exec calls; a call over the limit is answered with a message."""
    max_tool_chars: Positive = 4000
    """Characters of a tool result the agent is shown."""
    wall_s: Seconds = 1800
    """An episode that takes longer ends. If its programs ran for half of this, the policy did it, and learns from it;
    else it is an infra error, and played again."""
    tools: tuple[Literal["exec", "edit", "skill"], ...] = ("exec", "edit", "skill")
    """What the agent may call beside submit; another call is answered as one that could not be read."""
    max_repeats: Positive | None = 2
    """Turns that repeat an earlier one word for word, where no turn since then has said anything new; so many end the
    episode. None: they are neither counted nor told."""
    teach: bool = True
    """Tell the agent what a turn lacked, and show it the form; explain a skill in full. Off: only the next stage, as
    the mini world's models were made with."""
    stages: tuple[CognitiveStage, ...] = COGNITIVE_STAGES
    """Cognitive stages of the loop, for ablations. A turn that names another one is answered as malformed."""

    @model_validator(mode="after")
    def _has_ends(self) -> EpisodeLimits:
        if not {"draft", "finalize"} <= set(self.stages):
            raise ValueError(f"stages {list(self.stages)} must hold draft and finalize")
        return self


class EpisodeConfig(Section):
    limits: EpisodeLimits = EpisodeLimits()
    """After which an episode ends."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, max_tokens=4096)
    """Recorded log-probabilities are the whole distribution's, whatever `top_p` cuts off."""
    attempts: Positive = 3
    """How often a task is issued before an infra error counts it failed."""
    show_skills: bool = True
    """Off: the agent is told its category only (the ablation's bare prompt)."""


class SandboxConfig(Section):
    minimum: Literal["strong+", "strong", "unsafe"] = "strong"
    """Isolation level below which the pool refuses to start."""
    slots: Positive = 2
    """Executions side by side in a replica."""
    queue: Positive = 512
    """Executions that may wait in a replica."""
    wall_s: Seconds = 5
    """Of an execution."""
    cpu_s: Seconds = 4
    """CPU time of an execution."""
    memory_mb: Positive = 512
    """Of an execution."""
    pool: PoolConfig = PoolConfig(max_ongoing=256)
