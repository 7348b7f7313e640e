"""Deadlines that stand still while what they bound waits for its turn.

Invariant: time that a call spends in a queue of ours (`queueing`) counts for no `work_timeout` and no `WorkClock`
around it, whichever task of theirs waits. Where several calls of one block run side by side, time stands still while
any of them waits; each call that runs has a deadline of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar


class WorkClock:
    """Seconds since it was made, without those in which a call waited."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self.begun = clock, clock()
        self._waiting, self._since, self._waited = 0, 0.0, 0.0

    def __call__(self) -> float:
        now = self._clock()
        return now - self.begun - self._waited - (now - self._since if self._waiting else 0.0)

    def enter(self) -> None:
        self._waiting += 1
        if self._waiting == 1:
            self._since = self._clock()
            self.stopped()

    def leave(self) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self._waited += self._clock() - self._since
            self.started()

    def stopped(self) -> None:
        """Time stands still from now on."""

    def started(self) -> None:
        """Time goes on."""


class _Deadline(WorkClock):
    """Moves a timeout of asyncio's along with the clock."""

    def __init__(self, seconds: float, timeout: asyncio.Timeout):
        super().__init__(asyncio.get_running_loop().time)
        self._seconds, self._timeout, self.over = seconds, timeout, False

    def stopped(self) -> None:
        if not (self.over or self._timeout.expired()):
            self._timeout.reschedule(None)

    def started(self) -> None:
        if not (self.over or self._timeout.expired()):
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds - self())


_clocks: ContextVar[tuple[WorkClock, ...]] = ContextVar("clocks", default=())


@contextmanager
def queueing() -> Iterator[None]:
    """While this block waits for its turn, no clock around it runs."""
    clocks = _clocks.get()
    for clock in clocks:
        clock.enter()
    try:
        yield
    finally:
        for clock in clocks:
            clock.leave()


@contextmanager
def stopping(clock: WorkClock) -> Iterator[WorkClock]:
    """The clock stands still while a call of this block, or of a task that it starts, is `queueing`."""
    token = _clocks.set((*_clocks.get(), clock))
    try:
        yield clock
    finally:
        _clocks.reset(token)


@asynccontextmanager
async def work_timeout(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout` for work. Raises TimeoutError after so many seconds of it."""
    async with asyncio.timeout(seconds) as timeout:
        deadline = _Deadline(seconds, timeout)
        with stopping(deadline):
            try:
                yield
            finally:
                deadline.over = True
