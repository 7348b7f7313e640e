"""Evaluation: the solver before and after, on problems whose skill combinations nobody trained on (Mean@k).

Both models are served by one pool, one after the other, as two versions of its weights. Each is one atomic step.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from actors.calls import within
from actors.execution import Executor
from pipeline.flow.context import Context
from pipeline.pools.publish import publish_checkpoint
from pipeline.scoring import problems
from pipeline.scoring.evaluation import judge, score
from pipeline.store.manifest import verified
from pipeline.watch.watchdog import Watchdog, watching

_CHUNK = 40
"""Problems in one call."""


async def run(context: Context) -> dict[str, Any]:
    config = context.config.evaluate
    models = {
        "before": context.domain.resolve(context.config.solve.base.path),
        "after": Path(context.result_of("solve")["checkpoint"]),
    }
    rows = problems.read(context.domain.resolve(config.benchmark), config.problems, context.config.seed)
    done = len(context.run.steps("evaluate"))
    async with watching("evaluate", context.config.watchdog_s) as watchdog:
        for number, (name, model) in enumerate(models.items(), start=1):
            if number > done:
                result = await _measure(context, name, model, rows, watchdog)
                with context.run.new_step("evaluate", number) as folder:
                    (folder / "score.json").write_text(json.dumps(result))
                    context.metrics.log("evaluate", number, {"mean": result["mean"]})
    before, after = (json.loads(verified(s / "score.json").read_text()) for s in context.run.steps("evaluate"))
    return {
        "problems": len(rows),
        "samples": config.samples,
        "before": before,
        "after": after,
        "gain": after["mean"] - before["mean"],
    }


async def _measure(
    context: Context, name: str, model: Path, rows: list[dict[str, Any]], watchdog: Watchdog
) -> dict[str, Any]:
    config = context.config.evaluate
    student, sandbox = await asyncio.gather(context.cluster.student(), context.cluster.sandbox())
    version = await asyncio.to_thread(publish_checkpoint, context.cluster.weights("student"), model)
    await within(student.broadcast("sync", version).results_async(), "weight update", 300)
    texts: list[list[str]] = []
    with context.progress.stage(f"evaluate: {name}", len(rows), "problem") as progress:
        for start in range(0, len(rows), _CHUNK):
            chunk = [r["question"] for r in rows[start : start + _CHUNK]]
            seed = context.seed("evaluate", start)
            watchdog.beat(f"the solver {name}, problems from {start + 1} on")
            response = student.answers_many.remote(chunk, config.samples, config.sampling, seed)
            texts += await within(response, "student", context.config.watchdog_s)
            progress.advance(len(chunk))
    watchdog.beat(f"the judging of the solver {name}")
    asked = [problems.of_row(r) for r, group in zip(rows, texts, strict=True) for _ in group]
    flat = await judge(asked, [t for group in texts for t in group], Executor(sandbox.run_batch.remote))
    n = config.samples
    return score(rows, [flat[i : i + n] for i in range(0, len(flat), n)])
