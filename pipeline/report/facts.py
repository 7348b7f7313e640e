"""What a run directory says about its run: read once, a step at a time, and reduced to small facts.

Invariant: works on a run at any point of its life. What is not there is None or empty, never zero; rates have the
same denominator everywhere (episodes that were judged: those that infrastructure failed, or that the committee could
not decide, are counted apart).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import Config, loading
from pipeline.records import Episode, Failure, Probe, Verdict
from pipeline.report.strata import Sort, Strata, sort_of
from pipeline.store import events, manifest, metrics, own
from pipeline.store.digests import MANIFEST
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_keyed, read_table
from pipeline.store.verify import verify

PLAYED = tuple(name for name, stage in RUN_STAGES.items() if stage.plays)
"""The stages that play episodes."""
DIVERSITY = ("skeletons", "skeleton_entropy", "skeleton_top_share")
ADVERSARY = "adversary.json"
"""What `audit-verifiers --adversary` left in the run directory."""
PROVENANCE = "provenance.jsonl"
_BROWSED = 72
"""Problems that can be looked through, at most."""
PRUNED = "a problem whose writer dropped a skill"
REFINED = "the problem that was refined most"
REJECTED = "a problem that the committee rejected"


@dataclass(frozen=True)
class Sample:
    """One whole trajectory with what was made of it."""

    why: str
    stage: str
    episode: Episode
    verdict: Verdict | None
    probe: Probe | None


@dataclass(frozen=True)
class Browsed:
    """Problems of a stage, to be looked through."""

    stage: str
    counts: Counter[Sort]
    """Of all that were submitted."""
    entries: list[tuple[Sort, Sample]]


@dataclass
class Played:
    """Counts over all episodes of a stage."""

    episodes: int = 0
    tokens: int = 0
    """Sampled for them and their probes."""
    judged: int = 0
    accepted: int = 0
    undecided: int = 0
    failed: int = 0
    pruned: int = 0
    pruned_accepted: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    def take(self, outcome: str, reason: str, verdict: Verdict | None, pruned: bool) -> None:
        """Count one episode."""
        self.episodes += 1
        if outcome not in ("ok", "model_error"):
            self.failed += 1
            self.causes[f"{outcome}: {reason}"] += 1
            return
        if verdict and verdict.decision == "undecided":
            self.undecided += 1
            self.causes[f"undecided: {verdict.reason}"] += 1
            return
        accepted = verdict is not None and verdict.accepted
        self.judged += 1
        self.accepted += accepted
        self.pruned += pruned
        self.pruned_accepted += pruned and accepted
        if not accepted:
            self.causes[f"rejected: {verdict.reason}" if verdict else reason or "nothing submitted"] += 1

    def validity(self, pruned: bool | None = None) -> float | None:
        """Accepted of judged; of those that pruned, or did not, if asked."""
        accepted, judged = self.accepted, self.judged
        if pruned is not None:
            accepted, judged = self.pruned_accepted, self.pruned
            if not pruned:
                accepted, judged = self.accepted - accepted, self.judged - judged
        return accepted / judged if judged else None


@dataclass
class Facts:
    run: RunDir
    config: Config
    config_text: str
    results: dict[str, dict[str, Any]]
    """Stage -> what it left in stages/<stage>.json."""
    steps: dict[str, int]
    """Stage -> whole step directories."""
    rows: dict[str, list[dict[str, Any]]]
    """Stage -> metrics by step, the trainer's joined in as train/<name>."""
    provenance: list[dict[str, Any]]
    adversary: dict[str, Any] | None
    """What the adversary found, where it was let loose on this run's judges."""
    curriculum: dict[str, Any] | None
    """As the last step of MGPO has left it; None before the first."""
    played: dict[str, Played]
    spent: dict[str, float]
    """Stage -> US dollars that endpoints were paid in it, all of its attempts together; {} of an earlier version."""
    samples: list[Sample]
    browsed: Browsed | None
    """Of the latest stage that plays; None before the first."""
    damaged: list[str]
    """What is not as it was written, a line each; the other fields are without it."""

    def status(self, stage: str) -> str:
        """done · part done · not run"""
        if stage in self.results:
            return "done"
        return "part done" if self.steps.get(stage) or self.rows.get(stage) else "not run"

    def result(self, stage: str, name: str) -> Any:
        return self.results.get(stage, {}).get("result", {}).get(name)

    def wall_s(self) -> float:
        """Seconds of all finished stages."""
        return sum(r["wall_s"] for r in self.results.values())

    def pass_at_k(self) -> list[float]:
        return [p["pass_at_k"] for p in self.provenance if p["pass_at_k"] is not None]

    def pass_rate(self) -> list[float]:
        """The prober's rate on each problem; empty where its rows do not say it, as earlier versions wrote them."""
        return [p["pass_rate"] for p in self.provenance if p.get("pass_rate") is not None]

    def diversity(self) -> dict[str, float]:
        """Of the data set; empty where its rows do not say their skeletons, as earlier versions wrote them."""
        found = {name: self.result("synthesize", name) for name in DIVERSITY}
        return {} if None in found.values() else found

    def solver(self, when: str) -> float | None:
        """The solver's mean on the benchmark, "before" or "after"."""
        figures = self.result("evaluate", when)
        return figures["mean"] if figures else None

    def trend(self, stage: str, name: str) -> tuple[float | None, float | None]:
        """Means of a metric over the first and the last steps: three of each, fewer where they would overlap."""
        values = [row[name] for row in self.rows.get(stage, []) if name in row]
        if len(values) < 2:
            return None, None
        n = min(3, len(values) // 2)
        return sum(values[:n]) / n, sum(values[-n:]) / n


def gather(run: RunDir) -> Facts:
    """Read everything the report tells. Raises Failure for a file that is there and cannot be read."""
    path = run.path("config.yaml")
    config = loading.load(path)
    results = {s: r for s in RUN_STAGES if (r := run.result(s)) is not None}
    played: dict[str, Played] = {}
    found: dict[str, dict[str, _Ref]] = {}
    strata: dict[str, Strata[tuple[Path, int]]] = {}
    for stage in PLAYED:
        if steps := run.steps(stage):
            played[stage], found[stage], strata[stage] = _count(steps)
    return Facts(
        run=run,
        config=config,
        config_text=path.read_text(encoding="utf-8"),
        results=results,
        steps={s: len(run.steps(s)) for s in RUN_STAGES},
        rows=_joined(metrics.read(run)),
        provenance=_provenance(run.path("dataset")) if "synthesize" in results else [],
        adversary=_adversary(run),
        curriculum=_curriculum(run),
        played=played,
        spent=events.spent(run),
        samples=_samples(found),
        browsed=_browsed(strata),
        damaged=[str(finding) for finding in verify(run, whole=False)],
    )


def _joined(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """A trainer beside its driver logs as <stage>-train; here both are one row a step."""
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for stage, some in rows.items():
        steps = stages.setdefault(stage.removesuffix("-train"), {})
        for row in some:
            steps[row["step"]] = steps.get(row["step"], {}) | row
    return {stage: [steps[n] for n in sorted(steps)] for stage, steps in stages.items()}


def _provenance(folder: Path) -> list[dict[str, Any]]:
    """Where the problems of a data set came from; an ablation's has no such file. Raises Damage."""
    if PROVENANCE not in manifest.listed(folder / MANIFEST, manifest.read(folder / MANIFEST)):
        return []
    lines = manifest.verified(folder / PROVENANCE).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _curriculum(run: RunDir) -> dict[str, Any] | None:
    """As the last step says it; an ablation's has no such file."""
    steps = run.steps("mgpo")
    if not steps or "state.json" not in manifest.listed(steps[-1] / MANIFEST, manifest.read(steps[-1] / MANIFEST)):
        return None
    state = json.loads(manifest.verified(steps[-1] / "state.json").read_text(encoding="utf-8"))
    found: dict[str, Any] | None = state.get("curriculum")
    return found


def _adversary(run: RunDir) -> dict[str, Any] | None:
    path = run.path(ADVERSARY)
    if not os.path.lexists(path):
        return None
    if wrong := own.sealed_damage(run, ADVERSARY):
        raise Failure(f"{path}: {wrong}; {run.file_again(ADVERSARY, 'audit-verifiers --adversary')}")
    return manifest.read(path)


# ---------------------------------------------------------------- episodes


@dataclass(frozen=True)
class _Ref:
    """Where an episode lies, and how good a sample it is among those of its kind."""

    step: Path
    row: int
    worth: float


_COLUMNS = [
    "task.category",
    "task.skills.list.element.id",
    "active",
    "id",
    "attempt",
    "submitted.id",
    "submitted.answer_kind",
    "outcome",
    "sampled_tokens",
    "turns.list.element.stage",
]
"""Counting needs no texts."""


def _judgements(step: Path) -> list[tuple[Verdict | None, Probe | None]]:
    """Of each episode of a step: by its key, for two episodes may submit one question with different answers."""
    verdicts = read_keyed(step / "verdicts.parquet", Verdict)
    probes = read_keyed(step / "probes.parquet", Probe)
    episodes = read_table(step / "episodes.parquet", ["id", "attempt"])
    keys = zip(episodes.column("id").to_pylist(), episodes.column("attempt").to_pylist(), strict=True)
    return [(verdicts.get(key), probes.get(key)) for key in keys]


def _count(steps: list[Path]) -> tuple[Played, dict[str, _Ref], Strata[tuple[Path, int]]]:
    """Counts of a stage, of each kind of episode the best sample (the newest of equals), and where problems of each
    sort lie."""
    played, best, strata = Played(), dict[str, _Ref](), Strata[tuple[Path, int]]()
    for step in steps:
        episodes = read_table(step / "episodes.parquet", _COLUMNS).to_pylist()
        for row, (e, (verdict, probe)) in enumerate(zip(episodes, _judgements(step), strict=True)):
            pruned = len(e["active"]) < len(e["task"]["skills"])
            played.take(e["outcome"]["kind"], e["outcome"]["reason"], verdict, pruned)
            played.tokens += e["sampled_tokens"] + (probe.tokens + sum(w.tokens for w in probe.weaker) if probe else 0)
            for kind, worth in _kinds(e, verdict, probe, pruned):
                if kind not in best or worth >= best[kind].worth:
                    best[kind] = _Ref(step, row, worth)
            if e["submitted"] is not None:
                sort = sort_of(e["task"]["category"], e["submitted"]["answer_kind"], verdict, probe)
                strata.take(sort, f"{step.name}/{e['id']}/{e['attempt']}", (step, row))
    return played, best, strata


def _kinds(
    e: dict[str, Any], verdict: Verdict | None, probe: Probe | None, pruned: bool
) -> Iterator[tuple[str, float]]:
    """What an episode could be a sample of, and its worth as such."""
    if verdict and verdict.decision == "rejected":
        yield REJECTED, 0
    if verdict and verdict.accepted:
        hardness = 1 - probe.pass_at_k if probe and probe.solved else 0.0
        best = "the hardest problem that the prober solves" if probe else "an accepted problem"
        yield f"{best}, {e['task']['category']}", hardness
        if pruned:
            yield PRUNED, hardness
        if refined := sum(t["stage"] == "refine" for t in e["turns"]):
            yield REFINED, refined


def _samples(found: dict[str, dict[str, _Ref]]) -> list[Sample]:
    """Of the latest stage that has any: three categories, one of each other kind, the rejected one last."""
    stage = next((s for s in reversed(PLAYED) if found.get(s)), None)
    if stage is None:
        return []
    kinds = found[stage]
    others = [k for k in (PRUNED, REFINED, REJECTED) if k in kinds]
    by_category = sorted(kinds.keys() - set(others), key=lambda k: (-kinds[k].worth, k))[:3]
    chosen: dict[tuple[Path, int], list[str]] = {}
    for kind in (*by_category, *others):
        chosen.setdefault((kinds[kind].step, kinds[kind].row), []).append(kind)
    whole = _read(chosen, stage)
    return [replace(whole[where], why="; ".join(why)) for where, why in chosen.items()]


def _browsed(strata: dict[str, Strata[tuple[Path, int]]]) -> Browsed | None:
    stage = next((s for s in reversed(PLAYED) if strata.get(s)), None)
    if stage is None:
        return None
    chosen = strata[stage].chosen(_BROWSED)
    whole = _read([where for _, where in chosen], stage)
    entries = sorted(chosen, key=lambda one: one[0])
    return Browsed(stage, strata[stage].counts, [(sort, whole[where]) for sort, where in entries])


def _read(places: Collection[tuple[Path, int]], stage: str) -> dict[tuple[Path, int], Sample]:
    """Whole trajectories, by where they lie; each step is read once."""
    found = {}
    for step in sorted({step for step, _ in places}):
        judged, table = _judgements(step), read_table(step / "episodes.parquet")
        for row in sorted(row for other, row in places if other == step):
            (episode,) = Episode.from_arrow(table.slice(row, 1))
            found[step, row] = Sample("", stage, episode, *judged[row])
    return found
