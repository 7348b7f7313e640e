"""The sandbox pool: many runs side by side, to be deployed with Ray Serve.

Invariant: every request is answered with a `Result` within its deadline: what the program did, or `infra` if the
sandbox could not say. Nothing waits without bound.

Consumes requests (from any number of callers), produces results. A run waits for room in the queue, then for a free
slot; it is unblocked by the end of another run, which a slot guarantees at its wall limit plus a grace, or by its own
deadline. A slot whose zygote died makes a new one for the next run, so a failed run is tried once more elsewhere. What
a slot raises, which none should, is the `infra` of one run too: its batch and its neighbours never hear of it.

Sessions are sticky by content, not by address: a call brings the cells that make up the session's state, so any replica
can serve it; one that holds the session live runs the new cell alone, another replays first. Losing a replica, or
evicting an idle session, costs a replay and nothing else. Idle sessions are kept while there are no more than
`sessions` in all, and while they hold no more memory than runs in all slots may.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import Empty, LifoQueue
from typing import Any

from actors import meters
from sandbox import Case, Cell, Limits, Request, Result, SandboxUnavailable, Session, Slot, Verdict, judge
from sandbox.builds import Builds
from sandbox.session import check_cell

PACKAGES = ("numpy", "sympy", "math_verify")
"""What every run finds loaded: what agents compute with, and what answers are compared with."""

_HEALTH = Request("answer = 6 * 7", value="answer")


@dataclass
class _Live:
    session: Session
    used: float
    busy: bool


class SandboxPool:
    """`slots` runs at a time, `queue` requests admitted. Refuses to start below the level `minimum`."""

    def __init__(
        self,
        slots: int = 2,
        minimum: str = "strong",
        limits: dict[str, Any] | None = None,
        queue: int = 512,
        wait_s: float = 300.0,
        sessions: int = 64,
        idle_s: float = 120.0,
        lifetime_s: float = 600.0,
    ):
        self.limits = Limits(**(limits or {}))
        self._wait_s, self._idle_s, self._lifetime_s, self._most_sessions = wait_s, idle_s, lifetime_s, sessions
        self._room = asyncio.Semaphore(queue)
        self._workers = ThreadPoolExecutor(slots, thread_name_prefix="sandbox")
        self._slots: list[Slot] = []
        # As many workers as slots, each with one slot at most: only a health check makes a worker wait for one.
        self._free: LifoQueue[Slot] = LifoQueue()
        self._sessions: OrderedDict[str, _Live] = OrderedDict()
        self._guard = threading.Lock()
        self._statuses: Counter[str] = Counter()
        self._waiting = 0
        starts = [self._workers.submit(Slot, minimum, self.limits, PACKAGES) for _ in range(slots)]
        failure: BaseException | None = None
        for start in starts:
            try:
                self._slots.append(start.result())
            except SandboxUnavailable as e:
                failure = e
        if failure is not None:
            self.close()
            raise failure
        for slot in self._slots:
            self._free.put(slot)

    # ---------------------------------------------------------------- runs

    async def run(self, request: Request) -> Result:
        return (await self.run_batch([request]))[0]

    async def run_batch(self, requests: Sequence[Request]) -> list[Result]:
        """The results, in the order of the requests. A source that several of them share is compiled once."""
        known = Builds()
        runs = (self._admit(functools.partial(self._on_a_slot, request, known)) for request in requests)
        return list(await asyncio.gather(*runs))

    async def judge_calls(
        self, code: str, entry: str, cases: Sequence[Case], limits: Limits | None = None, tolerance: float = 0.0
    ) -> list[Verdict]:
        """`Slot.judge_calls`, the cases spread over the slots."""
        results = await self.run_batch([judge.call_request(code, entry, case, limits) for case in cases])
        return [judge.call_verdict(result, case, tolerance) for result, case in zip(results, cases, strict=True)]

    async def judge_stdio(
        self, code: str, cases: Sequence[Case], limits: Limits | None = None, language: str = "python"
    ) -> list[Verdict]:
        """`Slot.judge_stdio`, the cases spread over the slots."""
        results = await self.run_batch([judge.script_request(code, case, limits, language) for case in cases])
        return [judge.script_verdict(result, case) for result, case in zip(results, cases, strict=True)]

    def _on_a_slot(self, request: Request, known: Builds) -> Result:
        result = Result("infra", "no slot")
        for _ in range(2):
            try:
                slot = self._free.get(timeout=self._wait_s)  # there is one, but for the moment of a health check
            except Empty:
                break
            try:
                result = slot.run(request, known)
            except Exception as e:
                result = _raised(e)
            if result.status != "infra":
                self._free.put(slot)
                break
            with self._free.not_empty:  # below the others: if one of them is free, it is to be tried
                self._free.queue.insert(0, slot)
                self._free.not_empty.notify()
        self._done(result)
        return result

    def _done(self, result: Result) -> None:
        self._statuses[result.status] += 1
        meters.sandboxed(result.status, result.wall_s)

    async def _admit(self, work: Callable[[], Result]) -> Result:
        """Queue, then run in a worker thread; `infra` if its turn does not come in time."""
        came = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._room.acquire()
        except TimeoutError:
            return Result("infra", f"the queue is full and had no room for {self._wait_s:g} s")
        finally:
            self._waiting -= 1
        started = False

        def begin() -> Result:
            nonlocal started
            started = True
            meters.sandbox_waited(time.monotonic() - came)
            return work()

        future = self._workers.submit(begin)
        try:
            done = asyncio.wrap_future(future)
            await asyncio.wait([done], timeout=self._wait_s)
            if not started and future.cancel():
                return Result("infra", f"no free slot for {self._wait_s:g} s")
            return await done
        finally:
            future.cancel()  # a run of a caller that gave up must not begin; one that began goes on
            self._room.release()

    # ---------------------------------------------------------------- sessions

    async def session_run(
        self, session_id: str, code: str, cells: Sequence[Cell | str] = (), value: str | None = None
    ) -> tuple[Result, tuple[Cell | str, ...]]:
        """Run a cell after `cells`, those that the call before returned (none at first); returns the cells that now
        make up the state. A cell that was stopped is not among them: the session is as before it. The name is the
        caller's own choice, and no other session's. Raises ValueError for what is no cell."""
        check_cell(code, value, cells)
        if not isinstance(session_id, str):
            raise ValueError(f"session: {session_id!r:.80}; expected a string")
        kept = tuple(cells)

        def work() -> Result:
            nonlocal kept
            result, kept = self._in_session(session_id, kept, code, value)
            if result.status == "infra":  # its time was up just now, or its fork server died
                result, kept = self._in_session(session_id, kept, code, value)
            self._done(result)
            return result

        result = await self._admit(work)
        return result, kept

    async def close_session(self, session_id: str) -> None:
        """Let go of a session if it is held here; elsewhere it is evicted when idle. Its process ends when a worker
        comes to it, for which the caller does not wait."""
        with self._guard:
            live = self._sessions.pop(session_id, None)
        if live is not None:
            self._workers.submit(live.session.close)

    def _in_session(
        self, session_id: str, cells: tuple[Cell | str, ...], code: str, value: str | None
    ) -> tuple[Result, tuple[Cell | str, ...]]:
        live, unwanted = self._take(session_id, cells)
        try:
            for old in unwanted:
                old.close()
            return live.session.run(code, value), live.session.cells
        except Exception as e:
            return _raised(e), cells
        finally:
            with self._guard:
                live.used, live.busy = time.monotonic(), False
                replaced = self._sessions.get(session_id) is not live
                unwanted = self._too_heavy() + ([live.session] if replaced else [])
            for old in unwanted:
                old.close()

    def _take(self, session_id: str, cells: tuple[Cell | str, ...]) -> tuple[_Live, list[Session]]:
        """The session with just these cells, live or to be rebuilt by its first run; and those to be closed."""
        now = time.monotonic()
        with self._guard:
            live = self._sessions.pop(session_id, None)
            unwanted = []
            if live is not None and (live.busy or live.session.cells != cells or live.session.over):
                if not live.busy:  # else its own caller closes it
                    unwanted.append(live.session)
                live = None
            if live is None:
                slot = self._slots[hash(session_id) % len(self._slots)]
                live = _Live(slot.session(self.limits, cells, self._lifetime_s), now, busy=True)
            live.busy = True
            self._sessions[session_id] = live
            idle = [name for name, one in self._sessions.items() if not one.busy]
            spare = len(self._sessions) - self._most_sessions
            for n, name in enumerate(idle):  # least recently used first
                if n < spare or self._sessions[name].used < now - self._idle_s:
                    unwanted.append(self._sessions.pop(name).session)
        return live, unwanted

    def _too_heavy(self) -> list[Session]:
        """Take out idle sessions, the least recently used first, until the memory of the others is within its bound."""
        held = {name: one.session.own_kb for name, one in self._sessions.items() if not one.busy}
        over = sum(held.values()) - len(self._slots) * (self.limits.memory_mb << 10)
        heavy = []
        for name, kb in held.items():
            if over > 0 < kb:
                heavy.append(self._sessions.pop(name).session)
                over -= kb
        return heavy

    # ---------------------------------------------------------------- health

    def check_health(self) -> None:
        """Called by Serve. Each slot that is free must answer; one that is busy proves itself by its work."""
        for slot in self._slots:
            if self._take_if_free(slot):
                try:
                    result = slot.run(_HEALTH)
                    if result.status == "infra":  # its zygote was found dead; the next run has a new one
                        result = slot.run(_HEALTH)
                finally:
                    self._free.put(slot)
                if result.value != 42:
                    raise RuntimeError(f"a slot does not work: {result.status}: {result.reason}")

    def _take_if_free(self, slot: Slot) -> bool:
        """Take this slot, wherever it is in the queue: `get` would return the one that was put back last, each time."""
        with self._free.mutex:
            if slot not in self._free.queue:
                return False
            self._free.queue.remove(slot)
            return True

    def stats(self) -> dict[str, Any]:
        """What metrics and `propose doctor` show."""
        platform = self._slots[0].platform
        return {
            "level": platform.level,
            "layers": [asdict(layer) for layer in platform.layers],
            "slots": len(self._slots),
            "free": self._free.qsize(),
            "waiting": self._waiting,
            "sessions": len(self._sessions),
            "restarts": sum(slot.restarts for slot in self._slots),
            "left": sum(slot.left for slot in self._slots),
            "statuses": dict(self._statuses),
        }

    def close(self) -> None:
        for live in list(self._sessions.values()):
            live.session.close()
        for slot in self._slots:
            slot.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        """Serve calls this when it stops a replica."""
        if hasattr(self, "_workers"):
            self.close()


def _raised(e: Exception) -> Result:
    return Result("infra", f"the slot raised {type(e).__name__}: {e}")
