"""From source to binary, once for each source of a judging call.

Invariant: compiling is hostile work and goes through a slot's walls like any run; a compiler that fails tells about the
program, one that cannot start about the sandbox.

`Builds` may be shared by threads. Consumes requests for a source's binary; the first compiles, later ones wait for it,
at most as long as all stages may take; its end unblocks them. Nothing is remembered of an infrastructure error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from .api import CLAIMED, Limits, Result
from .conclude import one_line
from .toolchains import Toolchain

LIMITS = Limits(wall_s=20.0, cpu_s=15.0, memory_mb=1024, file_mb=16, scratch_mb=128)
"""Of each stage, whatever the program's own limits are."""

RunStage = Callable[[int, bytes], tuple[Result, bytes]]
"""(number of the stage, its input) -> how it ended, its output."""


class Builds:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._made: dict[tuple[str, bytes], Future[bytes | Result]] = {}

    def get(self, language: str, source: bytes, make: Callable[[], bytes | Result]) -> bytes | Result:
        """The binary, or why there is none. What `make` raises is raised to all who wait."""
        key = language, source
        with self._guard:
            future = self._made.get(key)
            mine = future is None
            if future is None:
                future = self._made[key] = Future()
        if mine:
            try:
                future.set_result(make())
            except BaseException as e:
                future.set_exception(e)
            if future.exception() is not None:
                with self._guard:
                    del self._made[key]
        return future.result()


def build(chain: Toolchain, source: bytes, run_stage: RunStage) -> bytes | Result:
    data = source
    for number in range(len(chain.stages)):
        result, output = run_stage(number, data)
        if not result.ok:
            said = [line for line in result.stderr.splitlines() if line.strip()]
            words = next((line for line in said if "error" in line), said[-1] if said else result.reason)
            ended = result.status in ("error", *CLAIMED)  # and not stopped: it said why
            reason = f"does not compile: {words}" if ended else f"compiling: {result.reason}"
            return replace(result, reason=one_line(reason), stdout="")
        data = output
    return data
