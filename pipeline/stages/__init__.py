"""The stages of a run; `pipeline.store.run_stages` lists them, in order. Each module has
`run(context) -> result`, resumes what is half done, and leaves `stages/<name>.json`.

Holds one module a stage, and the loop that begins one again where a process is gone. May import flow and every package
below it; must never know `cli`, a command, the report, or another stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pipeline.flow.context import Context
from pipeline.pools import endpoints
from pipeline.records import Failure, Halt, Lost, Stalled
from pipeline.store import events, verify
from pipeline.store.run_stages import RUN_STAGES
from pipeline.watch.gauges import showing

T = TypeVar("T")


async def run(context: Context, name: str) -> dict[str, Any]:
    """Run one stage, or say that it is done; returns its result."""
    result: dict[str, Any]
    done = context.run.result(name)
    if done is not None:
        verify.product_of(context.run, name)
        context.progress.skip(name)
        result = done["result"]
        return result
    verify.preflight(context.run, name)
    if name in events.finished(context.run):
        context.progress.say(name, f"stages/{name}.json is missing; it is made again from the steps on disk")
    start = time.monotonic()
    steps = len(context.run.steps(name))
    events.append(context.run, "stage_started", stage=name, steps=steps, pid=os.getpid(), usd=endpoints.paid())
    module = importlib.import_module(f"pipeline.stages.{name}")
    try:
        result = await with_restarts(context, name, lambda: module.run(context))
    except BaseException as e:
        with contextlib.suppress(Failure):  # a disk that takes no event, or another process that has the run
            context.run.check_lock()
            events.append(context.run, "stage_stopped", stage=name, cause=_cause(e), usd=endpoints.paid())
        raise
    finally:
        context.metrics.end(name)
    context.cluster.end_loaders()
    usd = endpoints.paid()
    context.run.finish(name, result, time.monotonic() - start)
    events.append(context.run, "stage_finished", stage=name, usd=usd)
    return result


def _cause(e: BaseException) -> str:
    if isinstance(e, asyncio.CancelledError | KeyboardInterrupt):
        return "interrupted"
    told = str(e) if isinstance(e, Failure | Halt) else f"{type(e).__name__}: {e}"
    return " ".join(told.split())


async def with_restarts(context: Context, name: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work of a stage; where a process that it cannot do without is gone, begin again from its last step on
    disk.

    Raises the last loss after `max_stage_restarts` without a step in between, and a stall at once if `on_stall` is
    "fail".
    """
    causes: list[str] = []

    def now() -> dict[str, float]:
        disk = shutil.disk_usage(context.run.root)
        return {"running": 1, "restarts": len(causes), "disk_free_bytes": disk.free, "disk_bytes": disk.total}

    async with showing(context.metrics, f"{name}-stage", now):
        return await _insist(context, name, work, causes)


async def _insist(context: Context, name: str, work: Callable[[], Awaitable[T]], causes: list[str]) -> T:
    """As `with_restarts`; `causes` grows by that of each restart."""
    config = context.config
    left, before = config.max_stage_restarts, 0
    while True:
        try:
            return await context.cluster.guarded(work())
        except Lost as e:
            reached = len(context.run.steps(name))
            if reached > before:
                left, before = config.max_stage_restarts, reached
            if left == 0 or (isinstance(e, Stalled) and config.on_stall == "fail"):
                raise
            # Pools go on where a trainer publishes the weights again. They are restarted too after a stall, because one
            # of them may be what hangs, and where the last restart left them alone and did not help.
            publishes = name in RUN_STAGES and RUN_STAGES[name].on_policy
            whole = isinstance(e, Stalled) or not publishes or left < config.max_stage_restarts
            left -= 1
            pools = "new" if whole else "kept"
            causes.append(str(e))
            events.append(context.run, "stage_restarted", stage=name, steps=reached, cause=str(e), pools=pools)
            context.progress.say(name, f"{e}; begins again from what is on disk")
            await context.cluster.restart(whole)
