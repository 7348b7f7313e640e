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
    after: str | None = None
    """The stage whose result it takes up."""
    settings: tuple[str, ...] = ()
    """Dotted settings that this stage is the first to read: with others in them, it and those after it come out
    otherwise."""
    makes: str | None = None
    """The folder that it makes for the stages after it, and for others than this run."""
    part: str | None = None
    """A training that it begins with where one is asked for: it has a result and checkpoints of its own, under the name
    `<stage>.<part>`, and it is this that gathers."""
    gathers: str | None = None
    """The folder of what it hands to its trainer beside its steps, where there is anything."""
    reads: tuple[str, ...] = ()
    """What it builds on, itself included, as folders of the run directory; `stages/<name>` is that stage's result."""

    @property
    def issues_attempts(self) -> bool:
        """It has a ledger."""
        return self.plays or self.trains


RUN_STAGES: dict[str, RunStage] = {
    "acquire": RunStage(
        "read the corpus and build the skill library",
        settings=("domain", "seed", "teacher", "sandbox", "acquire", "mgpo.curriculum.min_skills"),
        makes="skills",
        reads=("steps/acquire",),
    ),
    "sft": RunStage(
        "collect teacher trajectories and clone the accepted ones",
        plays=True,
        trains=True,
        gathers="trajectories",
        after="acquire",
        settings=(
            *("proposer", "system_prompt", "episode", "committee", "prober", "trainer", "sft"),
            "mgpo.curriculum",
        ),
        reads=("stages/acquire", "skills", "steps/acquire", "steps/sft", "checkpoints/sft"),
    ),
    "mgpo": RunStage(
        "train the proposer on what it writes",
        plays=True,
        trains=True,
        on_policy=True,
        after="sft",
        settings=("mgpo", "reward", "committee.spot_checks", "committee.canaries"),
        reads=("stages/sft", "skills", "checkpoints/sft", "steps/sft", "steps/mgpo", "checkpoints/mgpo"),
    ),
    "synthesize": RunStage(
        "write the data set with the trained proposer",
        plays=True,
        after="mgpo",
        settings=("synthesize",),
        makes="dataset",
        # Which problems are new is told by all that were written before.
        reads=("stages/mgpo", "skills", "checkpoints/mgpo", "steps/sft", "steps/mgpo", "steps/synthesize"),
    ),
    "solve": RunStage(
        "train a solver on the data set with GRPO",
        trains=True,
        on_policy=True,
        part="warmup",
        gathers="solutions",
        after="synthesize",
        settings=("solve",),
        reads=("stages/synthesize", "dataset", "checkpoints/solve.warmup", "steps/solve", "checkpoints/solve"),
    ),
    "evaluate": RunStage(
        "score the solver before and after, or any models against each other",
        after="solve",
        settings=("evaluate",),
        reads=("stages/solve", "checkpoints/solve", "steps/evaluate"),
    ),
}

PRODUCTS = {stage.makes: name for name, stage in RUN_STAGES.items() if stage.makes}
"""Folder -> the stage that makes it."""
GATHERED = {
    stage.gathers: f"{name}.{stage.part}" if stage.part else name for name, stage in RUN_STAGES.items() if stage.gathers
}
"""Folder -> the stage that gathers it, or the part of one."""


def first_reader(field: str) -> str:
    """The stage that reads a dotted setting first; of a setting that no stage names, the first of all."""
    names = {name: stage for stage, kind in RUN_STAGES.items() for name in kind.settings}
    parts = field.split(".")
    for n in range(len(parts), 0, -1):
        if (stage := names.get(".".join(parts[:n]))) is not None:
            return stage
    return next(iter(RUN_STAGES))


def whole_of(name: str) -> str:
    """The stage of a part; any other name stays."""
    stage = name.partition(".")[0]
    return stage if stage in RUN_STAGES else name


def onwards(stage: str) -> list[str]:
    """A stage and those after it."""
    names = list(RUN_STAGES)
    return names[names.index(stage) :]
