"""The stages of a run, in order. Each module has `run(context) -> result`, resumes what is half done, and leaves
`stages/<name>.json`. A new stage is one module and one entry here."""

from __future__ import annotations

import importlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pipeline.flow.context import Context
from pipeline.records import Lost, Stalled
from pipeline.store import verify

T = TypeVar("T")
STAGES = ("acquire", "sft", "mgpo", "synthesize", "solve", "evaluate")
_PUBLISHING = ("mgpo", "solve")


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
    start = time.monotonic()
    module = importlib.import_module(f"pipeline.stages.{name}")
    result = await resuming(context, name, lambda: module.run(context))
    context.cluster.end_loaders()
    context.run.finish(name, result, time.monotonic() - start)
    return result


async def resuming(context: Context, name: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work of a stage; where a process that it cannot do without is gone, begin again from its last step on
    disk.

    Raises the last loss after `max_stage_restarts` without a step in between, and a stall at once if `on_stall` is
    "fail".
    """
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
            # Pools may go on where a trainer brings the weights again, unless sparing them has not helped, or nothing
            # moves any more: what hangs is one of them as likely as not.
            whole = isinstance(e, Stalled) or name not in _PUBLISHING or left < config.max_stage_restarts
            left -= 1
            context.progress.say(name, f"{e}; begins again from what is on disk")
            await context.cluster.restart(whole)
