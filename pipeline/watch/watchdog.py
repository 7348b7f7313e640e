"""The watchdog: ends a stage that makes no progress, and names what it was stuck on.

Invariant: no wait is for ever. Single calls have their deadline in `actors.calls.within`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipeline.records import Stalled


class Watchdog:
    """`beat` says that there was progress, and what is awaited next."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float):
        self._timeout = timeout
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.queues: Callable[[], str] = lambda: ""
        """What is under way and since when; asked when the time is over, before what is under way is cancelled."""
        self.under_way = ""
        self.beat("the first result")

    def now(self) -> dict[str, float]:
        """Figures of the moment."""
        return {"quiet_s": asyncio.get_running_loop().time() - self._beaten, "patience_s": self._seconds}

    def beat(self, waiting_for: str) -> None:
        self.waiting_for = waiting_for
        self.close()
        self._beaten = asyncio.get_running_loop().time()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self.under_way = self.queues()
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@asynccontextmanager
async def watching(stage: str, seconds: float) -> AsyncIterator[Watchdog]:
    """Ends the block after `seconds` without a beat: raises Stalled, one line that names the stage, what it waited
    for, and what is under way."""
    timeout = asyncio.timeout(None)
    watchdog = Watchdog(timeout, seconds)
    try:
        async with timeout:
            yield watchdog
    except TimeoutError:
        if not timeout.expired():
            raise  # the block's own
        line = f"{stage}: no progress for {seconds:g} s; waited for {watchdog.waiting_for}"
        raise Stalled("; ".join(filter(None, (line, watchdog.under_way)))) from None
    finally:
        watchdog.close()
