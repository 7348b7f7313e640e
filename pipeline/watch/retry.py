"""Doing a thing again where infrastructure failed it, a bounded number of times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pipeline.records import Lost

PAUSE_S = 0.5
"""Before the second attempt; before the n-th, n - 1 times as long."""


class Attempts:
    """The attempts at one piece of work: `async for number in attempts`, left by `return`, `break` or `raise`.

    A worker that died under the work may have died of it: `note` remembers that, `deadly` says that it was no accident.
    """

    def __init__(self, most: int):
        self._most = most
        self.last = False
        """Whether the present attempt is the last."""
        self.again = 0
        """Attempts after the first."""
        self.deaths: list[str] = []

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(1, self._most + 1):
            if number > 1:
                self.again += 1
                await asyncio.sleep(PAUSE_S * (number - 1))
            self.last = number == self._most
            yield number

    def note(self, error: Exception) -> None:
        """What the present attempt failed of."""
        if isinstance(error, Lost):
            self.deaths.append(str(error))

    @property
    def deadly(self) -> bool:
        return len(self.deaths) > 1
