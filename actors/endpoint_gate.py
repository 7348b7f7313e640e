"""The way to one endpoint: how many calls are under way, how fast they go out, and who waits.

Invariant: a process has one gate for each endpoint (base URL and key), whoever asks it. A call passes in the order in
which it came, when a place is free, the rates allow it and the endpoint has not asked everybody to wait. An endpoint
that is busy (429) is asked by half as many at once, then by one more for each round of replies.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.queueing import queueing

_MINUTE_S = 60.0


class Gate:
    def __init__(
        self,
        concurrency: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._most = concurrency
        self._now = float(concurrency)
        self._requests = _Rate(requests_per_minute, clock)
        self._tokens = _Rate(tokens_per_minute, clock)
        self._line: deque[asyncio.Future[None]] = deque()
        self._held, self._era = 0, 0
        self._opened = asyncio.Event()
        self._opened.set()
        self.under_way = 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def at_once(self) -> int:
        """Calls that may be under way now."""
        return int(self._now)

    @asynccontextmanager
    async def place(self, tokens: int) -> AsyncIterator[int]:
        """A place for one call of at most so many tokens. Waiting for it counts for no deadline. Yields what `busy`
        wants to know."""
        with queueing():
            await self._turn()
            try:
                await self._requests.take(1)
                await self._tokens.take(tokens)
                await self._opened.wait()  # it may have been closed while this call waited for its rate
            except BaseException:
                self._free()
                raise
        try:
            yield self._era
        finally:
            self._free()

    def close(self) -> None:
        """Nobody passes any more, until whoever closed it calls `reopen`."""
        self._held += 1
        self._opened.clear()

    async def reopen(self, seconds: float) -> None:
        """Open it after so long: the endpoint has asked for it."""
        try:
            with queueing():
                await asyncio.sleep(seconds)
        finally:
            self._held -= 1
            if not self._held:
                self._opened.set()
            self._admit()

    def busy(self, era: int) -> None:
        """A call that passed in `era` came back with a 429: half as many at once, unless others that went out with it
        have said so already."""
        if era == self._era:
            self._era += 1
            self._now = max(1.0, self._now / 2)

    def answered(self, tokens: int, expected: int) -> None:
        """A call has come back; it took `tokens`, of which `expected` were taken from the rate beforehand."""
        self._now = min(float(self._most), self._now + 1 / self._now)
        self._tokens.correct(expected - tokens)
        self._admit()

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free()
            elif turn in self._line:
                self._line.remove(turn)
            raise

    def _admit(self) -> None:
        while self._line and not self._held and self.under_way < self.at_once:
            turn = self._line.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)

    def _free(self) -> None:
        self.under_way -= 1
        self._admit()


class _Rate:
    """So many units a minute, evenly; what has been saved up is a second's worth, or one call's."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float]):
        self._per_s = None if per_minute is None else per_minute / _MINUTE_S
        self._clock = clock
        self._next = clock()

    async def take(self, units: int) -> None:
        """Reserve units; returns when they are due."""
        if self._per_s is None:
            return
        now = self._clock()
        due = self._next = max(self._next, now - 1)
        self._next += units / self._per_s
        if due > now:
            await asyncio.sleep(due - now)

    def correct(self, units: int) -> None:
        """Give back units that were not used (or take more that were)."""
        if self._per_s is not None:
            self._next -= units / self._per_s


_gates: dict[tuple[asyncio.AbstractEventLoop, str, str], Gate] = {}


def gate_of(base_url: str, api_key_env: str, make: Callable[[], Gate]) -> Gate:
    """The gate of an endpoint in this event loop, made by whoever asks first."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _gates if key[0].is_closed()]:
        del _gates[key]
    return _gates.setdefault((loop, base_url, api_key_env), make())
