"""The report of a run: `report.html` for people, a flat summary for programs. Both tell a run at any point of its life.

A figure that is not known yet is null in the summary and named as missing on the page. Holds what is read (`facts`) and
how it is shown. May import the store, the vocabulary, and statistics of scoring and actors; must never know Ray, a
pool, or a stage that is running.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from actors.passk import wilson
from pipeline.report import comparison
from pipeline.report.facts import DIVERSITY, Facts, gather
from pipeline.report.page import render
from pipeline.scoring.statistics import interval_of_mean
from pipeline.store.digests import seal
from pipeline.store.files import replace
from pipeline.store.own import SEAL_OF_PAGE
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

SUMMARY_KEYS = {
    "run_dir": "the run directory",
    "name": "name of the run in its config",
    "stages": "stage -> {status: done | part done | not run, wall_s, steps}",
    "wall_s": "seconds of all finished stages",
    "problems": "accepted, distinct problems in the data set",
    "validity": "accepted of judged episodes in synthesis",
    "validity_interval": "its 95 % interval",
    "validity_pruned": "the same, of episodes that dropped a skill",
    "validity_unpruned": "the same, of episodes that kept all skills",
    "prune_rate": "share of synthesis episodes that dropped a skill",
    "mean_pass_at_k": "of the data set's problems",
    "mean_pass_at_k_interval": "its 95 % interval",
    "mean_pass_rate": "share of the prober's samples that are right, mean over the data set's problems",
    "mean_pass_rate_interval": "its 95 % interval",
    "mean_difficulty": "1 - Pass@k, of the data set's problems",
    "spot_checks": "problems spoiled on purpose during MGPO and synthesis",
    "spot_checks_accepted": "of them accepted by the committee: its false accepts",
    "unsolved": "valid problems that no prober solves above chance, kept out of the data set",
    "guessable": "problems of the data set of which a guess is right one time in two",
    "skeletons": "distinct skeletons in the data set",
    "skeleton_entropy": "of them, 1: all different",
    "skeleton_top_share": "share of the commonest",
    "exploit_share": "of the adversary's tries: paid, and wrong, ill-posed, vacuous, off task, guessable or copied",
    "canaries": "secrets planted as answers during MGPO and synthesis",
    "canaries_leaked": "of them about to be shown to a judge or a prober, and held back",
    "hard_yield_first": "accepted problems weighted by 1 - Pass@k per 1000 sampled tokens, MGPO's first steps",
    "hard_yield_last": "the same, MGPO's last steps",
    "solver_before": "the solver's score on the benchmark before training",
    "solver_before_interval": "its 95 % interval",
    "solver_after": "and after",
    "solver_after_interval": "its 95 % interval",
    "solver_gain": "after - before",
    "solver_gain_interval": "its 95 % interval, each problem compared with itself",
}
"""Keys of `summary`, with their meaning: what `propose report --help` lists."""


SUMMARY = "summary.json"
"""The summary as of the last report, so that a finished run can be told of without reading it again."""


def write(run: RunDir) -> Path:
    """Make report.html and summary.json of whatever the run directory holds. What says the same already is left, which
    a disk that is full or read-only allows."""
    facts = gather(run)
    page = render(facts)
    digest = hashlib.sha256(page.encode()).hexdigest()
    _write(run, SUMMARY, seal(_summary(facts)))
    return _write(run, "report.html", f"{page}{SEAL_OF_PAGE}{digest} -->\n")


def _write(run: RunDir, name: str, text: str) -> Path:
    path = run.path(name)
    try:
        if path.read_bytes() == text.encode():
            return path
    except OSError:
        pass  # there is none, or none that can be read: `write_text` says what is wrong
    return run.write_text(name, text)


def write_comparison(
    a: RunDir, b: RunDir, compared: comparison.Compared | str, page: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the page of two runs side by side; returns their summaries. `compared` is said in `comparison.render`."""
    first, second = gather(a), gather(b)
    summaries = _summary(first), _summary(second)
    replace(page, comparison.render(first, second, *summaries, compared))
    return summaries


def summary(run: RunDir) -> dict[str, Any]:
    """One flat object with SUMMARY_KEYS; null where a stage has not come that far."""
    return _summary(gather(run))


def _summary(facts: Facts) -> dict[str, Any]:
    before, after = facts.solver("before"), facts.solver("after")
    first, last = facts.trend("mgpo", "hard_yield_per_1k")
    played = facts.played.get("synthesize")
    pass_at_k, rates = facts.pass_at_k(), facts.pass_rate()
    return {
        "run_dir": str(facts.run.root),
        "name": facts.config.name,
        "stages": {s: _stage(facts, s) for s in RUN_STAGES},
        "wall_s": round(facts.wall_s(), 2),
        "problems": len(facts.provenance) if facts.status("synthesize") == "done" else None,
        "validity": played.validity() if played else None,
        "validity_interval": list(wilson(played.judged, played.accepted)) if played and played.judged else None,
        "validity_pruned": played.validity(pruned=True) if played else None,
        "validity_unpruned": played.validity(pruned=False) if played else None,
        "prune_rate": played.pruned / played.judged if played and played.judged else None,
        "mean_pass_at_k": sum(pass_at_k) / len(pass_at_k) if pass_at_k else None,
        "mean_pass_at_k_interval": interval_of_mean(pass_at_k, 0.0, 1.0),
        "mean_pass_rate": sum(rates) / len(rates) if rates else None,
        "mean_pass_rate_interval": interval_of_mean(rates, 0.0, 1.0),
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
        "solver_before_interval": (facts.result("evaluate", "before") or {}).get("interval"),
        "solver_after": after,
        "solver_after_interval": (facts.result("evaluate", "after") or {}).get("interval"),
        "solver_gain": after - before if before is not None and after is not None else None,
        "solver_gain_interval": (facts.result("evaluate", "paired") or {}).get("interval"),
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
