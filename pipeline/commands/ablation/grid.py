"""What is compared. An arm is a set of config overrides and the policy it starts from; a comparison is a family of
pairs of arms.

Invariant: the two arms of a pair differ in one thing, which the comparison names, and in nothing else; where two
comparisons name the same setting they share the arm. Arms whose best learning rates may differ are each trained at the
best of the same sweep (`SWEEP`). Arms that differ in training alone share their SFT; one that lacks a stage or tool
lacks it from the teacher's trajectories on, or it would have been taught what it is then refused.
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
    data: Literal["written", "generator", "none"] = "written"
    """What its solver learns from: what the arm writes, sound problems of the domain's generator, as many as the full
    method has written, or nothing: the solver as it is."""
    sweep: bool = False
    """Whether it is trained at the best learning rate of `SWEEP`."""
    gate: bool = False
    """It is played in rounds (rounds.py), in which the solver of one round probes the next."""


@dataclass(frozen=True)
class Comparison:
    title: str
    arms: tuple[str, ...]
    """In the order that the paper found, or expects, worst first."""
    differs: str
    """The one thing in which the arms of a pair differ."""
    tested: tuple[str, ...] = ("verified_rate", "hard_yield_per_1k")
    """Metrics that a pair is decided by, all pairs of the comparison together; others are shown."""
    paper: tuple[float, ...] = ()
    """The paper's figure of each arm; empty where it gives none."""
    measure: str = "solver"
    """What the paper's figure is of."""
    pairs: tuple[tuple[str, str], ...] = ()
    """(lower, higher); empty: each arm with the last, and neighbours where the paper ranks them."""
    by_tokens: bool = False
    """Trained arms are compared once more where they have sampled equally many tokens."""
    solvers: bool = False
    """Whether a solver is trained on what each arm writes, if nothing else is said."""

    @property
    def orderings(self) -> tuple[tuple[str, str], ...]:
        ranked = pairwise(self.arms) if self.paper else ()
        return self.pairs or tuple(dict.fromkeys([*ranked, *((arm, self.arms[-1]) for arm in self.arms[:-1])]))


def _only(stages: str, tools: str) -> tuple[str, ...]:
    return (f"episode.limits.stages=[{stages}]", f"episode.limits.tools=[{tools}]")


_ONE_SHOT = _only("draft, finalize", "")
SEEDS = "SEEDS"
"""In an override: where seed problems lie, which depends on the domain."""


def _rewriting(kind: str) -> tuple[str, ...]:
    return (f"synthesize.rewrite={{kind: {kind}, seeds: {SEEDS}}}",)


_BATCHES = "mgpo.mini_batches=4"
"""From the second update of a step on the policy is not the one that sampled: gate and clip act."""
SWEEP = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
"""Learning rates of `mgpo` that arms which differ in their objective are tried at, all of them the same."""
QUICK_SWEEP = (4e-4, 8e-4)
TUNING_SEED = 900
"""Of the sweep; no seed that is measured."""

ARMS = {
    FULL: Arm("the whole method: MGPO with omega 0.5, all stages and tools"),
    "sft": Arm("pi_ref, not trained further", trained="sft"),
    "none": Arm("no data: the solver as it is", trained="no", start=None, data="none"),
    "generator": Arm(
        "sound problems of the domain's generator, as many as the full method wrote", trained="no", start=None,
        data="generator",
    ),
    "one-shot-unfiltered": Arm(
        "pi_ref of one-shot; all that it hands in", (*_ONE_SHOT, "synthesize.filter=none"), "sft", start="one-shot"
    ),
    "grpo": Arm(
        "GRPO on the terminal reward, at its best rate, with the KL penalty that MGPO's beta is",
        (_BATCHES, "mgpo.objective={name: grpo, kl: 0.1}"), sweep=True,
    ),
    "mgpo-0": Arm("MGPO, omega 0, at its best rate", (_BATCHES, "mgpo.objective.omega=0"), sweep=True),
    "mgpo-0.5": Arm("MGPO, omega 0.5, at its best rate", (_BATCHES,), sweep=True),
    "pass-at-k": Arm("rho as Pass@k, not as the rate", ("reward.rho=pass_at_k",)),
    "no-pruning": Arm("skills cannot be dropped", ("episode.limits.tools=[exec, skill]",), start="no-pruning"),
    "own-answer": Arm(
        "gate: the proposer's own answer is the truth",
        ("committee.verifiers=[{kind: author}]", "committee.quorum=1", "committee.required=1"), gate=True,
    ),
    "committee": Arm("gate: two of three verifiers, with the second audit", gate=True),
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
    "base": Arm("base model, draft and submit, no skills shown", (*_ONE_SHOT, "episode.show_skills=false"), "no"),
    "base-skills": Arm("base model, draft and submit", _ONE_SHOT, "no"),
    "base-workflow": Arm("base model, all stages and tools", (), "no"),
    "one-shot-filtered": Arm("pi_ref of one-shot; what the committee accepts", _ONE_SHOT, "sft", start="one-shot"),
    "metamath": Arm("seed problems rewritten as by MetaMath", _rewriting("metamath"), "no", start=None),
    "wizardmath": Arm("seed problems evolved as by WizardMath", _rewriting("wizardmath"), "no", start=None),
}  # fmt: skip

COMPARISONS = {
    "sources": Comparison(
        "Data source for the solver", ("none", "one-shot-unfiltered", "sft", FULL, "generator"),
        "the problems that the solver learns from", ("solver",), solvers=True,
        pairs=(("none", "generator"), ("none", FULL), ("one-shot-unfiltered", FULL), ("sft", FULL),
               (FULL, "generator")),
    ),
    "objective": Comparison(
        "Objective", ("grpo", "mgpo-0", "mgpo-0.5"), "the objective, each at the best rate of one sweep",
        ("solved_yield_per_1k",), (31.8, 35.1, 38.3), by_tokens=True,
    ),
    "rho": Comparison(
        "Reading of rho", ("pass-at-k", FULL), "rho in the reward: Pass@k, or the rate",
        ("solved_yield_per_1k", "hard_yield_per_1k"), by_tokens=True,
    ),
    "pruning": Comparison(
        "Pruning", ("no-pruning", FULL), "the tool that drops skills", ("verified_rate",), (68.7, 82.3),
        "verified_rate", by_tokens=True,
    ),
    "rounds": Comparison(
        "Gate", ("own-answer", "committee"), "who says what is valid",
        ("label_accuracy", "label_change", "solver"),
    ),
    "start": Comparison("Reinforcement over SFT", ("sft", FULL), "MGPO after SFT"),
    "loop": Comparison(
        "Loop", ("one-shot", "reflection", "tools", FULL), "the stages and tools of an episode",
        paper=(31.5, 33.4, 33.8, 38.3),
    ),
    "proposer": Comparison(
        "Proposer", ("base", "base-skills", "base-workflow", FULL), "what the proposer is shown, may do and was taught",
        paper=(32.8, 34.6, 36.4, 38.3),
    ),
    "omega": Comparison("omega", ("omega-0", "omega-0.25", "omega-1", FULL), "omega"),
    "baselines": Comparison(
        "Data sources of the paper",
        ("one-shot-unfiltered", "metamath", "wizardmath", "one-shot-filtered", "base", "none", "base-skills",
         "base-workflow", "sft", FULL),
        "the problems that the solver learns from", ("solver",), solvers=True,
    ),
}  # fmt: skip

DECIDING = ("sources", "objective", "rho", "pruning")
"""Run where nothing is named, in this order."""
ROUNDS = 3

STATED = ("mgpo.checkpoint_every=2", "trainer.keep_checkpoints=8")
"""Settings of every run: an arm is also measured where it has sampled as many tokens as another."""
QUICK = (
    "sft.trajectories=300",
    "sft.epochs=2",
    "mgpo.curriculum.min_skills=1",
    "mgpo.curriculum.max_skills=2",
    "mgpo.checkpoint_every=1",
    "mgpo.steps=2",
    "mgpo.groups=4",
    "mgpo.group_size=6",
    "solve.steps=3",
    "solve.problems=6",
    "evaluate.problems=40",
    "evaluate.samples=2",
    "synthesize.in_flight=32",
    "committee.spot_checks=0",
    "episode.sampling.top_p=0.9",
)
"""A grid to see that it works, not what is better."""
QUICK_COMPARISONS = ("rho", "pruning")


def arms_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The arms of the named comparisons, each once, in the grid's order."""
    wanted = {arm for name in names for arm in COMPARISONS[name].arms}
    return tuple(arm for arm in ARMS if arm in wanted)


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


@dataclass(frozen=True)
class Counts:
    """How much is trained and measured."""

    seeds: int
    episodes: int
    """Measured of each arm."""
    downstream: Budget
    """What is written for a solver."""
    all_solvers: bool = False
    """Whether every arm has a solver, and not those alone that are compared by theirs."""
    rates: tuple[float, ...] = SWEEP
    """Of the sweep."""

    def measures(self, arm: str, names: tuple[str, ...]) -> bool:
        """Whether what the arm's proposer writes is measured: where these comparisons are decided by it, not by what a
        solver learns."""
        if ARMS[arm].gate or ARMS[arm].start is None:
            return False
        return any(set(COMPARISONS[name].tested) != {"solver"} for name in names if arm in COMPARISONS[name].arms)

    def solver(self, arm: str, names: tuple[str, ...]) -> bool:
        """Whether the arm has a solver in these comparisons; those in rounds have theirs in any case."""
        if ARMS[arm].gate or not self.downstream:
            return False
        return self.all_solvers or any(COMPARISONS[name].solvers for name in names if arm in COMPARISONS[name].arms)


def counts(seeds: int | None, episodes: int | None, downstream: int | None, tokens: int | None, quick: bool) -> Counts:
    """What is not given is the grid's. Raises Failure."""
    own = (2, 40, 40) if quick else (8, 1000, 1000)
    if tokens and downstream:
        raise Failure("--downstream and --tokens: each says how much is written for a solver; expected one of the two")
    first, second, third = (n if n is not None else d for n, d in zip((seeds, episodes, downstream), own, strict=True))
    return Counts(
        first,
        second,
        Budget(tokens=tokens) if tokens else Budget(episodes=third),
        all_solvers=bool(downstream or tokens),
        rates=QUICK_SWEEP if quick else SWEEP,
    )


def wanted(only: str | None, quick: bool, counts: Counts) -> tuple[str, ...]:
    """The comparisons that `--only` names, else those that decide, without those of solvers where none is trained.
    Raises Failure for a name that is none, and for a comparison of solvers without any."""
    by_solvers = [name for name, c in COMPARISONS.items() if "solver" in c.tested and not counts.downstream]
    every = tuple(name for name in DECIDING if name not in by_solvers)
    names = tuple(dict.fromkeys(n.strip() for n in only.split(","))) if only else QUICK_COMPARISONS if quick else every
    if unknown := [name for name in names if name not in COMPARISONS]:
        raise Failure(f"--only {unknown[0]}: no comparison; expected some of {', '.join(COMPARISONS)}")
    if alone := [name for name in names if name in by_solvers]:
        raise Failure(
            f"--only {alone[0]}: it is decided by solvers that learn from what is written; expected --downstream"
        )
    return names


def tables() -> Mapping[str, Mapping[str, str]]:
    """What the grid holds, for its help."""
    return {
        "comparisons": {name: f"{', '.join(c.arms)} · differ in {c.differs}" for name, c in COMPARISONS.items()},
        "arms": {name: arm.meaning for name, arm in ARMS.items()},
    }
