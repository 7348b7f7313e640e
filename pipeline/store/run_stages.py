"""The stages of a run, in order: their names, and what each leaves in the run directory. Whoever treats one stage
otherwise than another asks here.

A new stage is one entry here, the module `pipeline.stages.<name>`, its section of the config and its keys of `--json`.
The stages of an episode (draft, check, ...) are another thing: `pipeline.records.COGNITIVE_STAGES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunStage:
    summary: str
    """What it does, in a line of `propose --help`."""
    plays: bool = False
    """Its steps hold the episodes that it played, with their verdicts."""
    trains: bool = False
    """Its steps hold the rollouts that its trainer was given."""
    on_policy: bool = False
    """Its trainer sees each rollout once, and publishes weights to the pool that samples the next ones."""

    @property
    def issues_attempts(self) -> bool:
        """It has a ledger."""
        return self.plays or self.trains


RUN_STAGES = {
    "acquire": RunStage("read the corpus and build the skill library"),
    "sft": RunStage("collect teacher trajectories and clone the accepted ones", plays=True, trains=True),
    "mgpo": RunStage("train the proposer on what it writes", plays=True, trains=True, on_policy=True),
    "synthesize": RunStage("write the data set with the trained proposer", plays=True),
    "solve": RunStage("train a solver on the data set with GRPO", trains=True, on_policy=True),
    "evaluate": RunStage("score the solver before and after"),
}
