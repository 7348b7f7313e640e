"""Runs in the sandbox pool, batched: callers ask for one run each, one pool call carries all that are due.

Consumes single requests from any number of coroutines of one event loop; produces one result each. A request waits for
at most `linger_s` before its batch leaves, and then for the pool. Who unblocks it: the pool's answer, or its failure,
which becomes the result `infra` of every request of the batch: nothing a program did, so nothing is concluded from it.
A batch belongs to none of its callers: one that gives up takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence

from sandbox.api import Request, Result

RunBatch = Callable[[list[Request]], Awaitable[Sequence[Result]]]


class Executor:
    """`run_batch` is the pool's method: a Serve handle's `run_batch.remote`, or any coroutine function like it."""

    def __init__(self, run_batch: RunBatch, *, max_batch: int = 64, linger_s: float = 0.002):
        self._run_batch = run_batch
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._waiting: list[tuple[Request, asyncio.Future[Result]]] = []
        self._senders: set[asyncio.Task[None]] = set()
        self.failed = 0
        """Requests so far from whose result nothing can be concluded."""

    async def run(self, request: Request) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._waiting) == 1:
            # In a context of its own: else Serve would count the batch as part of the request that happened to start
            # it, and cancel the two together.
            sender = asyncio.create_task(self._send_soon(), context=contextvars.Context())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await future

    async def _send_soon(self) -> None:
        """Started by the first request of a batch; takes all that came while it lingered."""
        await asyncio.sleep(self._linger_s)
        waiting, self._waiting = self._waiting, []
        parts = [waiting[i : i + self._max_batch] for i in range(0, len(waiting), self._max_batch)]
        await asyncio.gather(*(self._send(part) for part in parts))

    async def _send(self, part: list[tuple[Request, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run_batch([request for request, _ in part])
            if len(results) != len(part):
                raise RuntimeError(f"{len(results)} results for {len(part)} requests")
        except (Exception, asyncio.CancelledError) as e:  # whatever the pool fails with, its callers must hear of it
            results = [Result("infra", f"sandbox pool: {type(e).__name__}: {str(e)[:200]}")] * len(part)
        self.failed += sum(result.status == "infra" for result in results)
        for (_, future), result in zip(part, results, strict=True):
            if not future.done():  # a caller that gave up has cancelled it
                future.set_result(result)
