"""Evaluation: the solver before and after, on problems whose skill combinations nobody trained on (Mean@k); or any
models alone (`evaluate.model`, `evaluate.models`), on any benchmark.

Models are measured one after the other, on the same problems with the same seeds, and two are compared problem by
problem. The solver's two are served by one pool, as two versions of its weights. Each model is one atomic step, with
its score, its answers to every item (`answers.jsonl`, `items.parquet`), and what changed against those before it
(`changed.parquet`).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.answers.values import Judgement
from actors.calls import within
from actors.execution import Executor
from actors.solver import Answered
from pipeline.config import ModelConfig
from pipeline.flow.context import Context
from pipeline.pools.publish import publish_checkpoint
from pipeline.scoring import benchmarks, items, problems
from pipeline.scoring.evaluation import judge, score
from pipeline.scoring.measures import compare, measures, verdict
from pipeline.store.manifest import verified
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import Watchdog, watching

_CHUNK = 40
"""Problems in one call."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Measured:
    """What is measured: a model alone, or the solver with the weights of a checkpoint."""

    name: str
    model: ModelConfig | None = None
    checkpoint: Path | None = None


async def run(context: Context) -> dict[str, Any]:
    config = context.config.evaluate
    rows, left_out = await asyncio.to_thread(_rows, context)  # it may be downloaded
    measured = _measured(context)
    done = len(context.run.steps("evaluate"))
    async with (
        watching("evaluate", context.config.watchdog_s) as watchdog,
        showing(context.metrics, "evaluate-now", watchdog.now),
    ):
        for number, one in enumerate(measured, start=1):
            if number > done:
                answered, outcomes = await _answers(context, one, rows, watchdog)
                texts = [[text for text, _ in group] for group in answered]
                said = items.table(rows, texts, outcomes, [[cut for _, cut in group] for group in answered])
                figures = measures(list(items.items_of(said).values()), context.seed("evaluate", "bootstrap"))
                result = score(rows, outcomes) | {"measures": figures}
                earlier = _kept(context.run.steps("evaluate")) if config.models else []
                with context.run.new_step("evaluate", number) as folder:
                    (folder / "score.json").write_text(json.dumps(result))
                    items.write(folder / items.FILE, said)
                    (folder / "answers.jsonl").write_text(_lines(rows, texts, outcomes))
                    if earlier:
                        items.write(folder / items.CHANGED_FILE, _changed(context, measured, earlier, said))
                    context.metrics.log("evaluate", number, {"mean": result["mean"]})
    folders = context.run.steps("evaluate")
    scores = {
        one.name: json.loads(verified(folder / "score.json").read_text())
        for one, folder in zip(measured, folders, strict=True)
    }
    several = bool(config.models)
    before, after = (None if several else scores.get(name) for name in ("before", "after"))
    return {
        "problems": len(rows),
        "samples": config.samples,
        "before": before,
        "after": after,
        "gain": after["mean"] - before["mean"] if before and after else None,
        "paired": _paired(context, folders) if before and after else None,
        "score": None if several else scores.get("score"),
        "models": {
            one.name: scores[one.name] | {"items": str(folder / items.FILE)}
            for one, folder in zip(measured, folders, strict=True)
        } if several else {},
        "pairs": _pairs(context, measured, folders) if several else {},
        "left_out": left_out,
        "answers": [str(folder / "answers.jsonl") for folder in folders],
    }  # fmt: skip


def _measured(context: Context) -> list[_Measured]:
    config = context.config.evaluate
    if config.model is not None:
        return [_Measured("score", config.model)]
    if config.models:
        seen: Counter[str] = Counter()
        named = []
        for model in config.models:
            seen[model.path] += 1
            times = seen[model.path]
            named.append(_Measured(f"{model.path} ({times})" if times > 1 else model.path, model))
        return named
    return [
        _Measured("before", checkpoint=context.domain.model(context.config.solve.base.path)),
        _Measured("after", checkpoint=Path(context.result_of("solve")["checkpoint"])),
    ]


def _paired(context: Context, folders: list[Path]) -> dict[str, Any] | None:
    """The second model against the first; None where an earlier version did not write what each item got."""
    if not all((folder / items.FILE).is_file() for folder in folders):
        return None
    one, other = _kept(folders)
    return _compared(context, one, other)


def _kept(folders: Sequence[Path]) -> list[pa.Table]:
    return [items.read(verified(folder / items.FILE)) for folder in folders]


def _compared(context: Context, one: pa.Table, other: pa.Table) -> dict[str, Any]:
    found = compare(items.items_of(one), items.items_of(other), context.seed("evaluate", "bootstrap"))
    return {key: found[key] for key in ("problems", "difference", "interval", "p", "better", "worse")}


def _pairs(context: Context, measured: Sequence[_Measured], folders: Sequence[Path]) -> dict[str, Any]:
    """Each model against each before it."""
    found = {}
    for (one, kept), (other, against) in combinations(zip(measured, _kept(folders), strict=True), 2):
        pair = _compared(context, kept, against)
        found[f"{one.name} ~ {other.name}"] = {"verdict": verdict(pair, other.name), **pair}
    return found


def _changed(context: Context, measured: Sequence[_Measured], earlier: Sequence[pa.Table], said: pa.Table) -> pa.Table:
    """The items that the next model answers otherwise than each before it."""
    seed, mine = context.seed("evaluate", "bootstrap"), items.items_of(said)
    return pa.concat_tables(
        items.changed(compare(items.items_of(kept), mine, seed), kept, one.name)
        for one, kept in zip(measured, earlier, strict=False)
    )


def _rows(context: Context) -> tuple[Rows, dict[str, int]]:
    """The problems that are asked, and how many of the file are left out by why."""
    config, seed = context.config.evaluate, context.config.seed
    schema = config.mapping()
    files = benchmarks.files(context.domain, config.benchmark, schema)
    found = benchmarks.read(files, schema, config.problems, seed)
    rows = found.rows
    if config.shots:
        source = benchmarks.files(context.domain, config.shots_from, schema) if config.shots_from else files
        rows = benchmarks.with_shots(rows, benchmarks.read(source, schema, None, seed).rows, config.shots, seed)
    return rows, dict(sorted(found.left_out.items()))


def _lines(rows: Rows, texts: list[list[str]], outcomes: list[list[Judgement]]) -> str:
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


async def _answers(
    context: Context, measured: _Measured, rows: Rows, watchdog: Watchdog
) -> tuple[list[list[Answered]], list[list[Judgement]]]:
    """The answers of a model, and what each is worth."""
    config, name = context.config.evaluate, measured.name
    if measured.model is not None:
        solver, sandbox = await asyncio.gather(context.cluster.measured(measured.model), context.cluster.sandbox())
    else:
        assert measured.checkpoint is not None
        solver, sandbox = await asyncio.gather(context.cluster.student(), context.cluster.sandbox())
        version = await asyncio.to_thread(publish_checkpoint, context.cluster.weights("student"), measured.checkpoint)
        await within(solver.broadcast("sync", version).results_async(), "weight update", 300)
    answered: list[list[Answered]] = []
    with context.progress.stage(f"evaluate: {name}", len(rows), "problem") as progress:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            asked = [row["question"] for row in chunk]
            kinds = [problems.of_row(row).answer_kind for row in chunk]
            seed = context.seed("evaluate", start)
            watchdog.beat(f"the solver {name}, problems from {start + 1} on")
            response = solver.answers_many.remote(asked, config.samples, config.sampling, seed, kinds)
            answered += await within(response, "solver", context.config.watchdog_s)
            progress.advance(len(chunk))
    watchdog.beat(f"the judging of the solver {name}")
    posed = [problems.of_row(r) for r, group in zip(rows, answered, strict=True) for _ in group]
    flat = await judge(posed, [text for group in answered for text, _ in group], Executor(sandbox.run_batch.remote))
    n = config.samples
    return answered, [flat[i : i + n] for i in range(0, len(flat), n)]
