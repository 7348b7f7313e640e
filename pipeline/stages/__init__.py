"""The stages of a run, in order. Each module has `run(context) -> result`, resumes what is half done, and leaves
`stages/<name>.json`. A new stage is one module and one entry here."""

from __future__ import annotations

import importlib
import time
from typing import Any

from pipeline.context import Context

STAGES = ("acquire", "sft", "mgpo", "synthesize", "solve", "evaluate")


async def run(context: Context, name: str) -> dict[str, Any]:
    """Run one stage, or say that it is done; returns its result."""
    done = context.run.result(name)
    if done is not None:
        context.progress.skip(name)
        result: dict[str, Any] = done["result"]
        return result
    start = time.monotonic()
    module = importlib.import_module(f"pipeline.stages.{name}")
    result = await module.run(context)
    context.run.finish(name, result, time.monotonic() - start)
    return result
