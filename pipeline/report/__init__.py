"""The report of a run: `report.html` for people, a flat summary for programs. Both tell a run at any point of its life.

A figure that is not known yet is null in the summary and named as missing on the page. Holds what is read (`facts`) and
how it is shown. May import the store and the vocabulary; must never know Ray, a pool, or a stage that is running.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.facts import DIVERSITY, Facts, gather
from pipeline.report.page import render
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

SUMMARY_KEYS = {
    "run_dir": "the run directory",
    "name": "name of the run in its config",
    "stages": "stage -> {status: done | part done | not run, wall_s, steps}",
    "wall_s": "seconds of all finished stages",
    "problems": "accepted, distinct problems in the data set",
    "validity": "accepted of judged episodes in synthesis",
    "validity_pruned": "the same, of episodes that dropped a skill",
    "validity_unpruned": "the same, of episodes that kept all skills",
    "prune_rate": "share of synthesis episodes that dropped a skill",
    "mean_pass_at_k": "of the data set's problems",
    "mean_difficulty": "1 - Pass@k, of the data set's problems",
    "spot_checks": "problems spoiled on purpose during MGPO and synthesis",
    "spot_checks_accepted": "of them accepted by the committee: its false accepts",
    "unsolved": "valid problems that no prober solves above chance, kept out of the data set",
    "guessable": "problems of the data set of which a guess is right one time in two",
    "skeletons": "distinct skeletons in the data set",
    "skeleton_entropy": "of them, 1: all different",
    "skeleton_top_share": "share of the commonest",
    "near_duplicates": "share of the data set that means what another problem of it does",
    "exploit_share": "of the adversary's tries: paid, and wrong, ill-posed, vacuous, off task, guessable or copied",
    "canaries": "secrets planted as answers during MGPO and synthesis",
    "canaries_leaked": "of them about to be shown to a judge or a prober, and held back",
    "hard_yield_first": "accepted problems weighted by 1 - Pass@k per 1000 sampled tokens, MGPO's first steps",
    "hard_yield_last": "the same, MGPO's last steps",
    "solver_before": "the solver's score on the benchmark before training",
    "solver_after": "and after",
    "solver_gain": "after - before",
}
"""Keys of `summary`, with their meaning: what `propose report --help` lists."""


def write(run: RunDir) -> Path:
    """Make report.html of whatever the run directory holds."""
    return run.write_text("report.html", render(gather(run)))


def summary(run: RunDir) -> dict[str, Any]:
    """One flat object with SUMMARY_KEYS; null where a stage has not come that far."""
    facts = gather(run)
    before, after = facts.solver("before"), facts.solver("after")
    first, last = facts.trend("mgpo", "hard_yield_per_1k")
    played = facts.played.get("synthesize")
    pass_at_k = facts.pass_at_k()
    return {
        "run_dir": str(run.root),
        "name": facts.config.name,
        "stages": {s: _stage(facts, s) for s in RUN_STAGES},
        "wall_s": round(facts.wall_s(), 2),
        "problems": len(facts.provenance) if facts.status("synthesize") == "done" else None,
        "validity": played.validity() if played else None,
        "validity_pruned": played.validity(pruned=True) if played else None,
        "validity_unpruned": played.validity(pruned=False) if played else None,
        "prune_rate": played.pruned / played.judged if played and played.judged else None,
        "mean_pass_at_k": sum(pass_at_k) / len(pass_at_k) if pass_at_k else None,
        "mean_difficulty": 1 - sum(pass_at_k) / len(pass_at_k) if pass_at_k else None,
        "spot_checks": _sum(facts, "planted"),
        "spot_checks_accepted": _sum(facts, "planted_accepted"),
        "unsolved": facts.result("synthesize", "unsolved"),
        "guessable": facts.result("synthesize", "guessable"),
        **{name: facts.diversity().get(name) for name in DIVERSITY},
        "exploit_share": facts.adversary["exploit_share"] if facts.adversary else None,
        "canaries": _sum(facts, "canaries"),
        "canaries_leaked": _sum(facts, "canaries_leaked"),
        "hard_yield_first": first,
        "hard_yield_last": last,
        "solver_before": before,
        "solver_after": after,
        "solver_gain": after - before if before is not None and after is not None else None,
    }


def _sum(facts: Facts, metric: str) -> int | None:
    found = [row[metric] for stage in ("mgpo", "synthesize") for row in facts.rows.get(stage, ()) if metric in row]
    return int(sum(found)) if found else None


def _stage(facts: Facts, stage: str) -> dict[str, Any]:
    return {
        "status": facts.status(stage),
        "wall_s": facts.results.get(stage, {}).get("wall_s"),
        "steps": facts.steps[stage],
    }
