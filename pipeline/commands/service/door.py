"""Who is let in: at most so many requests at once, nobody once the service stops.

Invariant: whoever was let in is let out, however it ends; who is refused was never begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Full(Exception):
    """As many are inside as may be."""


class Closed(Exception):
    """The service stops."""


class Door:
    def __init__(self, most: int):
        self.most, self.inside, self.closed = most, 0, False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises Closed or Full at once: nobody waits at the door itself."""
        if self.closed:
            raise Closed
        if self.inside >= self.most:
            raise Full
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if self.inside == 0:
                self._empty.set()

    def close(self) -> None:
        """From now on nobody is let in; those inside stay."""
        self.closed = True

    async def emptied(self) -> None:
        """Until nobody is inside."""
        await self._empty.wait()
