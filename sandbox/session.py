"""Sessions: variables persist from cell to cell, each cell under the limits of a run.

Invariant: a cell that ran to its end, with or without an exception, is part of the session's state; one that was
stopped, crashed or ended its process is not, and the next cell finds the state from before it. The state lives in one
walled-in process, frozen between cells. If that process is lost, a new one replays the cells that count, with twice
their limits; so the list of those cells, which is all that a caller elsewhere has to keep, *is* the session. Cells that
do otherwise when they are run again are the program's own doing, and the outcome is an `error`.

A replay is bounded by what the cells took when they were live, which is kept with them: else a program that is slow
only when it is replayed would have each call of its session take as long as all cells together may. Nor does any replay
take more than `_REPLAY` wall limits, whatever the cells took.

A session takes cells for `lifetime_s`, and holds at most `MAX_CELLS` of them; `over` says when that is reached. The end
of its lifetime is no fault of the program: a new session with the same cells goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from .api import Cell, LevelName, Limits, Request, Result
from .host import MAX_CELLS, Run
from .server import InfraError

_LONGEST_S = 7 * 86400.0
_REPLAY = 8


def check_cell(code: str, value: str | None = None, before: Sequence[Cell | str] = ()) -> None:
    """Raises ValueError for what is no cell, or cannot come after these, as `Request` does."""
    Request(code, value=value)
    if not isinstance(before, list | tuple) or not all(isinstance(cell, Cell | str) for cell in before):
        raise ValueError(f"session.cells: {before!r:.80}; expected a list of cells, as a session returns them, or code")


class Starts(Protocol):
    """What a session needs of its slot: to start a run in it, and to read what came of one."""

    @property
    def level(self) -> LevelName: ...

    def begin(self, run: Run, job: bytes) -> None: ...

    def conclude(self, run: Run, wants_value: bool, facts: dict[str, Any] | None = None) -> Result: ...


class Session:
    """Made by `Slot.session`. One caller at a time; a second waits."""

    def __init__(self, slot: Starts, limits: Limits, cells: Sequence[Cell | str], lifetime_s: float):
        check_cell("", before=cells)
        if not isinstance(limits, Limits):
            raise ValueError(f"session.limits: {type(limits).__name__}; expected Limits")
        if not isinstance(lifetime_s, int | float) or not 0 < lifetime_s <= _LONGEST_S:  # NaN is neither
            raise ValueError(
                f"session.lifetime_s: {lifetime_s!r}; expected more than 0 and up to {_LONGEST_S:g} seconds"
            )
        self._slot, self._limits = slot, limits
        self._cells = list(cells)
        """Plain code is a cell that has not run yet."""
        self._ends = time.monotonic() + lifetime_s
        self._run: Run | None = None
        self._guard = threading.Lock()
        self._over = ""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def cells(self) -> tuple[Cell | str, ...]:
        """The cells that make up the state: what to pass to `Slot.session` to have the same session elsewhere."""
        return tuple(self._cells)

    @property
    def own_kb(self) -> int:
        """The memory that it holds beyond what its process began with, between cells."""
        run = self._run
        return 0 if run is None else max(run.resident_kb() - run.peak_before_kb, 0)

    @property
    def over(self) -> str:
        """Why it takes no further cell; empty while it does."""
        if not self._over and len(self._cells) >= MAX_CELLS:
            return f"the session holds {MAX_CELLS} cells"
        return self._over or ("the session's lifetime is over" if time.monotonic() > self._ends else "")

    def run(self, code: str, value: str | None = None) -> Result:
        """Run a cell; `value` names a variable to export after it. Raises ValueError for what is no cell."""
        check_cell(code, value)
        with self._guard:
            level = self._slot.level
            if over := self.over:
                self._stop(over)
                # Only how many cells there are is the program's own doing.
                return Result("error" if len(self._cells) >= MAX_CELLS else "infra", over, level=level)
            try:
                size = len(code.encode())
            except UnicodeEncodeError:
                return Result("error", "code: lone surrogates are no Unicode text", level=level)
            if size > self._limits.code_kb << 10:
                return Result("error", f"code: over the limit of {self._limits.code_kb} KB", level=level)
            try:
                if self._run is None and (failed := self._rebuild()) is not None:
                    return failed
                result = self._cell({"code": code, "value": value})
            except (InfraError, OSError) as e:
                self._drop()
                return Result("infra", str(e), level=level)
            if self._run is not None:
                self._cells.append(Cell(code, result.wall_s))
            return result

    def close(self) -> None:
        with self._guard:
            self._stop("the session is closed")

    def _stop(self, why: str) -> None:
        self._over = self._over or why
        self._drop()

    def _drop(self) -> None:
        """End the process, if there is one."""
        if self._run is not None:
            run, self._run = self._run, None
            try:
                run.kill("infra", self._over)
                run.watch()
            except InfraError:
                pass  # `finish` kills the zygote then
            finally:
                run.finish()

    def _rebuild(self) -> Result | None:
        """A new process with the state of `cells`; or why there is none, if they do not run as they did. Raises
        InfraError."""
        wall_s, most_s = self._limits.wall_s, _REPLAY * self._limits.wall_s
        took = [cell.wall_s for cell in self._cells if isinstance(cell, Cell)]
        if sum(took) > most_s:
            why = f"its cells took {sum(took):.1f} s, and what takes more than {most_s:g} s is not run again"
            return Result("error", f"the session cannot be rebuilt: {why}", level=self._slot.level)
        # They are not judged again, and the machine may be slower now.
        left_s = min(2 * (sum(took) + (len(self._cells) - len(took) + 1) * wall_s), most_s)
        run = self._run = Run(self._limits, session_s=max(self._ends - time.monotonic(), 0.0) + left_s)
        self._slot.begin(run, b"")
        for n, cell in enumerate(self._cells):
            code, ran = (cell, False) if isinstance(cell, str) else (cell.code, True)
            run.limits = replace(
                self._limits, wall_s=min(2 * wall_s, max(left_s, 0.01), 3600), cpu_s=min(2 * self._limits.cpu_s, 3600)
            )
            again = self._cell({"code": code, "value": None})
            if self._run is None:
                if again.status == "infra":
                    raise InfraError(again.reason)
                why = f"{'a cell that had ended' if ran else 'one of its cells'} now gives {again.status}"
                return replace(again, status="error", reason=f"the session cannot be rebuilt: {why}: {again.reason}")
            left_s -= again.wall_s
            if not ran:
                self._cells[n] = Cell(code, again.wall_s)
        run.limits = self._limits
        return None

    def _cell(self, job: dict[str, Any]) -> Result:
        """One cell in the live process; if it does not survive the cell, `_run` is None afterwards."""
        run, wants_value = self._run, job["value"] is not None
        assert run is not None
        run.pause(False)
        run.send_cell(job)
        run.watch()
        if run.exit is None and run.verdict is None:
            run.freeze()
        if run.exit is None and run.verdict is None:
            cpu_s = max(run.cpu_s() - run.cpu_before, 0.0)  # a thread may have ended it meanwhile
            return self._slot.conclude(run, wants_value, {"exit": 0, "cpu_s": cpu_s, "peak_kb": run.resident_kb()})
        self._run = None
        try:
            if run.exit is None:
                run.watch()
        finally:
            run.finish()
        result = self._slot.conclude(run, wants_value)
        if result.ok:
            return replace(result, status="error", reason="the cell ended its process: exit code 0", value=None)
        return result
