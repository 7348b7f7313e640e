"""What people are told at the end of a run: stages with time and result, the few figures that matter, and in words
whether it got better.

Invariant: everything shown is in `summary.json` or in the results of the stages; a figure that is not known yet is left
out, an interval that is not known is not invented.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.commands.tables import columns, duration
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store import manifest, own
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

Shown = Callable[[Path], str]
_WIDTH = 78
_COUNTS = (
    *("sft.trajectories", "sft.epochs", "mgpo.steps", "mgpo.groups", "mgpo.group_size", "synthesize.target"),
    *("solve.steps", "solve.problems", "evaluate.problems", "evaluate.samples"),
)
"""Settings that make a run short or long."""


def of(run: RunDir) -> dict[str, Any]:
    """The summary as the last report has it, or as of now where a stage has ended since."""
    from pipeline import report

    path = run.path(report.SUMMARY)
    if own.sealed_damage(run, report.SUMMARY) is None:
        written = path.stat().st_mtime_ns
        if all(p.lstat().st_mtime_ns <= written for p in run.path("stages").glob("*.json")):
            return manifest.read(path) | {"run_dir": str(run.root)}  # it may have been moved
    return report.summary(run)


def render(run: RunDir, config: Config, shown: Shown) -> str:
    found = of(run)
    rows = [("stage", "time", "result")]
    for stage in RUN_STAGES:
        facts, done = found["stages"][stage], run.result(stage)
        took = duration(facts["wall_s"]) if facts["wall_s"] is not None else "-"
        rows.append((stage, took, _TOLD[stage](done["result"]) if done else facts["status"]))
    figures = [line for line in map(_line, _figures(found)) if line]
    parts = [columns(rows, right=(1,))]
    if figures:
        parts.append(columns(figures))
    if words := _left_out(run) + _words(found):
        parts.append("\n".join(map(_wrapped, words)))
    if short := _shortened(config):
        parts.append(_wrapped(short))
    files = [("data set", run.path("dataset", "problems.jsonl")), ("report", run.path("report.html"))]
    parts.append(columns([(what, shown(path)) for what, path in files if path.is_file()] or [("run", shown(run.root))]))
    return "\n\n".join(parts)


def _acquire(r: dict[str, Any]) -> str:
    return f"{r.get('kept')} skills from {r.get('documents')} documents"


def _sft(r: dict[str, Any]) -> str:
    losses = f", loss {r['loss_first']:.2f} → {r['loss_last']:.2f}" if "loss_first" in r and "loss_last" in r else ""
    return f"{r.get('accepted')} of {r.get('trajectories')} teacher episodes accepted{losses}"


def _mgpo(r: dict[str, Any]) -> str:
    return f"{r.get('steps')} steps, {r.get('episodes')} episodes"


def _synthesize(r: dict[str, Any]) -> str:
    by = r.get("ended_by")
    ended = f", ended by its target of {by}" if by not in (None, "problems") else ""
    return f"{r.get('accepted')} problems of {r.get('episodes')} episodes{ended}"


def _solve(r: dict[str, Any]) -> str:
    warm = r.get("warmup")
    after = f", after SFT on {warm['solutions']} worked solutions" if warm else ""
    return f"{r.get('steps')} steps on {r.get('problems')} problems{after}"


def _evaluate(r: dict[str, Any]) -> str:
    means = " → ".join(_percent(r[when]["mean"]) for when in ("before", "after", "score") if r.get(when))
    means = means or ", ".join(f"{name} {_percent(found['mean'])}" for name, found in (r.get("models") or {}).items())
    return f"Mean@{r.get('samples')} on {r.get('problems')} problems: {means}"


_TOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "acquire": _acquire, "sft": _sft, "mgpo": _mgpo, "synthesize": _synthesize, "solve": _solve, "evaluate": _evaluate,
}  # fmt: skip


def _figures(f: dict[str, Any]) -> list[tuple[str, float | None, list[float] | None]]:
    return [
        ("validity: accepted of judged", f["validity"], f.get("validity_interval")),
        ("prober's right answers", f.get("mean_pass_rate"), f.get("mean_pass_rate_interval")),
        ("prober's Pass@k", f["mean_pass_at_k"], f.get("mean_pass_at_k_interval")),
        ("solver before", f["solver_before"], f.get("solver_before_interval")),
        ("solver after", f["solver_after"], f.get("solver_after_interval")),
    ]


def _line(figure: tuple[str, float | None, list[float] | None]) -> tuple[str, str, str] | None:
    name, value, interval = figure
    if value is None:
        return None
    told = f"95 % interval {_percent(interval[0])} to {_percent(interval[1])}" if interval else ""
    return name, _percent(value), told


def _left_out(run: RunDir) -> list[str]:
    """Why not every problem that the committee accepted is a row."""
    done = run.result("synthesize")
    if done is None:
        return []
    result = done["result"]
    counts = {"that no prober solves above chance": result.get("unsolved", 0), **result.get("left_out", {})}
    told = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return [f"Accepted, and no row of the data set: {told}."] if told else []


def _words(f: dict[str, Any]) -> list[str]:
    """Whether it got better."""
    found = []
    if f["spot_checks"]:
        found.append(
            f"Of {f['spot_checks']} problems spoiled on purpose the committee accepted {f['spot_checks_accepted']}."
        )
    first, last = f["hard_yield_first"], f["hard_yield_last"]
    if first is not None and last is not None:
        found.append(
            "Proposer: hard yield (of 1,000 sampled tokens, the accepted problems, each counted by how often the "
            f"prober fails it) {first:.2f} in its first steps, {last:.2f} in its last; its tasks change on the way, so "
            "this alone proves no gain."
        )
    before, after = f.get("solver_before_interval"), f.get("solver_after_interval")
    if f["solver_gain"] is not None and before and after:
        paired = f.get("solver_gain_interval")
        found.append(_gain(f["solver_gain"], paired or _apart(f["solver_gain"], before, after), bool(paired)))
    return found


def _apart(gain: float, before: list[float], after: list[float]) -> list[float]:
    """The interval of the gain where that of each problem is not known: as if the two were measured on different
    problems, which is cautious."""
    half = math.hypot((before[1] - before[0]) / 2, (after[1] - after[0]) / 2)
    return [gain - half, gain + half]


def _gain(gain: float, interval: list[float], paired: bool) -> str:
    low, high = interval
    how = ", each problem compared with itself" if paired else ""
    points = f"{gain * 100:+.1f} points (95 % interval {low * 100:+.1f} to {high * 100:+.1f}{how})"
    if low > 0:
        return f"Solver: it got better, {points}."
    if high < 0:
        return f"Solver: it got worse, {points}."
    return f"Solver: no change is shown, {points}."


def _shortened(config: Config) -> str | None:
    """What a run with its domain's own counts adds to one that has smaller ones."""
    try:
        whole = loading.validate({"domain": config.domain.model_dump()})
    except Failure:  # a domain whose defaults are no whole config has no run of its own size
        return None
    pairs = [(name, _field(config, name), _field(whole, name)) for name in _COUNTS]
    fewer = [
        f"{name} {ours} of {theirs}" for name, ours, theirs in pairs if ours is not None and theirs and ours < theirs
    ]
    return f"A short run: {', '.join(fewer)}. Its figures show that the loop works, not how well." if fewer else None


def _field(config: Config, name: str) -> Any:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
