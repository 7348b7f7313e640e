"""What is compared. An arm is a set of config overrides and the policy it starts from; a comparison is a row of arms.

Invariant: arms of one comparison differ in the part they are about and in nothing else (GRPO also in its learning
rate); where two comparisons name the same setting they share the arm (the full method stands at the end of each). Arms
that differ in training alone share their SFT; one that lacks a stage or tool lacks it from the teacher's trajectories
on, or it would have been taught what it is then refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipeline.records import Failure

FULL = "full"


@dataclass(frozen=True)
class Arm:
    meaning: str
    overrides: tuple[str, ...] = ()
    """Dotted config overrides, as `--set` takes them."""
    trained: Literal["no", "sft", "mgpo"] = "mgpo"
    """How far its proposer is trained: the base model, pi_ref, or pi_ref and then MGPO (or what replaces it)."""
    start: str | None = FULL
    """The arm whose skills and SFT it has; its own where its teacher plays under its overrides too. None: it has no
    proposer, and there is nothing of one to measure."""
    writes: bool = True
    """Whether its solver is trained at all."""


@dataclass(frozen=True)
class Comparison:
    title: str
    arms: tuple[str, ...]
    """In the order that the paper found, worst first."""
    paper: tuple[float | None, ...]
    """The paper's figure of each arm, where it gives one."""
    measure: str = "solver"
    """What the paper's figure is of."""

    @property
    def orderings(self) -> tuple[tuple[str, str], ...]:
        """(lower, higher) pairs to check: each arm with the last, and neighbours where the paper ranks them."""
        ranked = pairwise(self.arms) if None not in self.paper else ()
        return tuple(dict.fromkeys([*ranked, *((arm, self.arms[-1]) for arm in self.arms[:-1])]))


def _only(stages: str, tools: str) -> tuple[str, ...]:
    return (f"episode.limits.stages=[{stages}]", f"episode.limits.tools=[{tools}]")


_ONE_SHOT = _only("draft, finalize", "")
SEEDS = "SEEDS"
"""In an override: where seed problems lie, which depends on the domain."""


def _rewriting(kind: str) -> tuple[str, ...]:
    return (f"synthesize.rewrite={{kind: {kind}, seeds: {SEEDS}}}",)


ARMS = {
    FULL: Arm("the whole method: MGPO with omega 0.5, all stages and tools"),
    "sft": Arm("pi_ref, not trained further", trained="sft"),
    # At MGPO's learning rate GRPO, which nothing pulls back to pi_ref, diverged (README.md): it has that of `solve`.
    "grpo": Arm(
        "GRPO on the terminal reward instead of MGPO, at lr 2e-4", ("mgpo.objective={name: grpo}", "mgpo.lr=2e-4")
    ),
    "omega-0": Arm("MGPO without the stage advantage", ("mgpo.objective.name=mgpo_no_stage",)),
    "omega-0.25": Arm("MGPO, omega 0.25", ("mgpo.objective.omega=0.25",)),
    "omega-1": Arm("MGPO, omega 1", ("mgpo.objective.omega=1",)),
    "one-shot": Arm("draft and submit", _ONE_SHOT, start="one-shot"),
    "reflection": Arm(
        "draft, refine and submit; no code is run", _only("draft, refine, finalize", "edit, skill"), start="reflection"
    ),
    "tools": Arm(
        "draft, check by code and submit; nothing is mended",
        _only("draft, check, finalize", "exec, skill"),
        start="tools",
    ),
    "no-pruning": Arm("skills cannot be dropped", ("episode.limits.tools=[exec, skill]",), start="no-pruning"),
    "base": Arm("base model, draft and submit, no skills shown", (*_ONE_SHOT, "episode.show_skills=false"), "no"),
    "base-skills": Arm("base model, draft and submit", _ONE_SHOT, "no"),
    "base-workflow": Arm("base model, all stages and tools", (), "no"),
    "none": Arm("no data: the solver as it is", trained="no", start=None, writes=False),
    "one-shot-unfiltered": Arm(
        "pi_ref of one-shot; all that it hands in", (*_ONE_SHOT, "synthesize.filter=none"), "sft", start="one-shot"
    ),
    "one-shot-filtered": Arm("pi_ref of one-shot; what the committee accepts", _ONE_SHOT, "sft", start="one-shot"),
    "metamath": Arm("seed problems rewritten as by MetaMath", _rewriting("metamath"), "no", start=None),
    "wizardmath": Arm("seed problems evolved as by WizardMath", _rewriting("wizardmath"), "no", start=None),
}

COMPARISONS = {
    "rl": Comparison("Objective", ("grpo", "omega-0", FULL), (31.8, 35.1, 38.3)),
    "start": Comparison("Reinforcement over SFT", ("sft", FULL), (None, None)),
    "loop": Comparison("Loop", ("one-shot", "reflection", "tools", FULL), (31.5, 33.4, 33.8, 38.3)),
    "proposer": Comparison(
        "Proposer", ("base", "base-skills", "base-workflow", FULL), (32.8, 34.6, 36.4, 38.3)
    ),
    "pruning": Comparison("Pruning", ("no-pruning", FULL), (68.7, 82.3), "verified_rate"),
    "omega": Comparison("omega", ("omega-0", "omega-0.25", "omega-1", FULL), (None, None, None, None)),
    "sources": Comparison(
        "Data source",
        ("one-shot-unfiltered", "metamath", "wizardmath", "one-shot-filtered", "base", "none", "base-skills",
         "base-workflow", "sft", FULL),
        (None, 30.8, 31.0, 31.5, 32.8, 34.2, 34.6, 36.4, None, 38.3),
    ),
}  # fmt: skip

SOURCES = "sources"
"""The comparison of what solvers learn from."""

QUICK = (
    "sft.trajectories=300",
    "sft.epochs=2",
    "mgpo.curriculum.min_skills=1",
    "mgpo.curriculum.max_skills=2",
    "mgpo.steps=2",
    "mgpo.groups=4",
    "mgpo.group_size=6",
    "committee.spot_checks=0",
    "episode.sampling.top_p=0.9",
)
"""A grid to see that it works, not what is better."""
QUICK_COMPARISONS = ("rl", "start")


def arms_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The arms of the named comparisons, each once, in the grid's order."""
    wanted = {arm for name in names for arm in COMPARISONS[name].arms}
    return tuple(arm for arm in ARMS if arm in wanted)


def wanted(only: str | None, quick: bool, solvers: bool) -> tuple[str, ...]:
    """The comparisons that `--only` names, else all; without `solvers` none of data sources, which are compared by
    them. Raises Failure for a name that is none."""
    every = tuple(name for name in COMPARISONS if solvers or name != SOURCES)
    names = tuple(only.split(",")) if only else QUICK_COMPARISONS if quick else every
    if unknown := [name for name in names if name not in COMPARISONS]:
        raise Failure(f"--only {unknown[0]}: no comparison; expected some of {', '.join(COMPARISONS)}")
    if SOURCES in names and not solvers:
        raise Failure(
            f"--only {SOURCES}: sources are compared by the solvers that learn from them; expected --downstream"
        )
    return names


@dataclass(frozen=True)
class Budget:
    """What is written for a solver: so many episodes, or until so many tokens are sampled, probes among them."""

    episodes: int = 0
    tokens: int = 0

    def __bool__(self) -> bool:
        return bool(self.episodes or self.tokens)

    @property
    def settings(self) -> dict[str, int]:
        """Of `synthesize`: it ends with the budget, whatever came of it."""
        most = self.tokens or self.episodes  # of episodes and of problems: each takes a token at least
        return {"target": most, "max_episodes": most, "target_tokens": self.tokens} if self.tokens else {
            "target": most, "max_episodes": most, "target_episodes": self.episodes
        }  # fmt: skip


def counts(
    seeds: int | None, episodes: int | None, downstream: int | None, tokens: int | None, quick: bool
) -> tuple[int, int, Budget]:
    """Seeds, measured episodes, what is written for a solver; what is not given is the grid's. Raises Failure."""
    own = (2, 40, 0) if quick else (3, 160, 240)
    if tokens and downstream:
        raise Failure("--downstream and --tokens: each says how much is written for a solver; expected one of the two")
    first, second, third = (n if n is not None else d for n, d in zip((seeds, episodes, downstream), own, strict=True))
    return first, second, Budget(tokens=tokens) if tokens else Budget(episodes=third)


def tables() -> Mapping[str, Mapping[str, str]]:
    """What the grid holds, for its help."""
    return {
        "comparisons": {name: ", ".join(c.arms) for name, c in COMPARISONS.items()},
        "arms": {name: arm.meaning for name, arm in ARMS.items()},
    }
