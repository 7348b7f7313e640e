"""asyncio in a time of its own: where nothing can be done but wait, the clock goes to when the wait is over."""

import asyncio
import heapq


class _Loop(asyncio.SelectorEventLoop):
    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


def run(work):
    """What `work` returns, as by `asyncio.run`; nothing outside the loop may be waited for."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
