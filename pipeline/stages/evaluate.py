"""Evaluation: the solver before and after, on problems whose skill combinations nobody trained on (Mean@k); or any one
model alone (`evaluate.model`), on any benchmark.

The solver's two models are served by one pool, one after the other, as two versions of its weights, and are asked the
same problems with the same seeds: the gain is that of each problem against itself. Each model is one atomic step, with
its score and its answers to every item (`answers.jsonl`, `items.parquet`).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from actors.answers.values import Judgement
from actors.calls import within
from actors.execution import Executor
from pipeline.flow.context import Context
from pipeline.pools.publish import publish_checkpoint
from pipeline.scoring import benchmarks, items, problems
from pipeline.scoring.evaluation import judge, score
from pipeline.scoring.measures import compare, measures
from pipeline.store.manifest import verified
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import Watchdog, watching

_CHUNK = 40
"""Problems in one call."""

Rows = list[dict[str, Any]]


async def run(context: Context) -> dict[str, Any]:
    config = context.config.evaluate
    rows, left_out = _rows(context)
    measured: dict[str, Path | None] = {"score": None}
    if config.model is None:
        measured = {
            "before": context.domain.model(context.config.solve.base.path),
            "after": Path(context.result_of("solve")["checkpoint"]),
        }
    done = len(context.run.steps("evaluate"))
    async with (
        watching("evaluate", context.config.watchdog_s) as watchdog,
        showing(context.metrics, "evaluate-now", watchdog.now),
    ):
        for number, (name, checkpoint) in enumerate(measured.items(), start=1):
            if number > done:
                texts, outcomes = await _measure(context, name, checkpoint, rows, watchdog)
                said = items.table(rows, texts, outcomes)
                figures = measures(list(items.items_of(said).values()), context.seed("evaluate", "bootstrap"))
                result = score(rows, outcomes) | {"measures": figures}
                with context.run.new_step("evaluate", number) as folder:
                    (folder / "score.json").write_text(json.dumps(result))
                    items.write(folder / items.FILE, said)
                    (folder / "answers.jsonl").write_text(_answers(rows, texts, outcomes))
                    context.metrics.log("evaluate", number, {"mean": result["mean"]})
    folders = context.run.steps("evaluate")
    scores = dict(zip(measured, (json.loads(verified(s / "score.json").read_text()) for s in folders), strict=True))
    before, after = scores.get("before"), scores.get("after")
    return {
        "problems": len(rows),
        "samples": config.samples,
        "before": before,
        "after": after,
        "gain": after["mean"] - before["mean"] if before and after else None,
        "paired": _paired(context, folders) if before and after else None,
        "score": scores.get("score"),
        "left_out": left_out,
        "answers": [str(folder / "answers.jsonl") for folder in folders],
    }


def _paired(context: Context, folders: list[Path]) -> dict[str, Any] | None:
    """The second model against the first; None where an earlier version did not write what each item got."""
    files = [folder / items.FILE for folder in folders]
    if not all(file.is_file() for file in files):
        return None
    one, other = (items.items_of(items.read(verified(file))) for file in files)
    found = compare(one, other, context.seed("evaluate", "bootstrap"))
    return {key: found[key] for key in ("problems", "difference", "interval", "p", "better", "worse")}


def _rows(context: Context) -> tuple[Rows, dict[str, int]]:
    """The problems that are asked, and how many of the file are left out by why."""
    config, seed = context.config.evaluate, context.config.seed
    path = context.domain.resolve(config.benchmark)
    schema = config.mapping()
    found = benchmarks.read(path, schema, config.problems, seed)
    rows = found.rows
    if config.shots:
        source = context.domain.resolve(config.shots_from) if config.shots_from else path
        rows = benchmarks.with_shots(rows, benchmarks.read(source, schema, None, seed).rows, config.shots, seed)
    return rows, dict(sorted(found.left_out.items()))


def _answers(rows: Rows, texts: list[list[str]], outcomes: list[list[Judgement]]) -> str:
    """A line an item: what was asked, what was given each time, and what became of it."""
    lines = [
        {
            "question": row["question"],
            "answer": row["answer"],
            "outputs": [{"text": t, "judged": o} for t, o in zip(given, judged, strict=True)],
        }
        for row, given, judged in zip(rows, texts, outcomes, strict=True)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


async def _measure(
    context: Context, name: str, checkpoint: Path | None, rows: Rows, watchdog: Watchdog
) -> tuple[list[list[str]], list[list[Judgement]]]:
    """The answers of the solver with these weights, or of `evaluate.model`, and what each is worth."""
    config = context.config.evaluate
    if config.model is not None:
        solver, sandbox = await asyncio.gather(context.cluster.measured(config.model), context.cluster.sandbox())
    else:
        assert checkpoint is not None
        solver, sandbox = await asyncio.gather(context.cluster.student(), context.cluster.sandbox())
        version = await asyncio.to_thread(publish_checkpoint, context.cluster.weights("student"), checkpoint)
        await within(solver.broadcast("sync", version).results_async(), "weight update", 300)
    texts: list[list[str]] = []
    with context.progress.stage(f"evaluate: {name}", len(rows), "problem") as progress:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            asked = [row["question"] for row in chunk]
            kinds = [problems.of_row(row).answer_kind for row in chunk]
            seed = context.seed("evaluate", start)
            watchdog.beat(f"the solver {name}, problems from {start + 1} on")
            response = solver.answers_many.remote(asked, config.samples, config.sampling, seed, kinds)
            texts += await within(response, "solver", context.config.watchdog_s)
            progress.advance(len(chunk))
    watchdog.beat(f"the judging of the solver {name}")
    posed = [problems.of_row(r) for r, group in zip(rows, texts, strict=True) for _ in group]
    flat = await judge(posed, [t for group in texts for t in group], Executor(sandbox.run_batch.remote))
    n = config.samples
    return texts, [flat[i : i + n] for i in range(0, len(flat), n)]
