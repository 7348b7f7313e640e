"""The episode's `exec` tool: a session in the sandbox pool.

The pool's sessions are lists of cells, which any replica can replay; this side keeps the list. So the scripts of the
active skills are simply its first cell, a retry after an infrastructure failure may land on another replica, and
nothing is lost with a replica. A call waits for the pool, whose own deadline comes a little before ours.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

from actors.calls import within
from actors.scripts import names
from pipeline.records import Failure, Skill, ToolResult
from sandbox import Cell, Result

_DEADLINE_S = 330.0
_CLOSE_S = 10.0
_STATUS = {"ok": "ok", "timeout": "timeout", "error": "error", "crash": "error", "violation": "error"}
"""Of a run that the sandbox ended or refused something, `limit`: which one is in the words."""


class SandboxTools:
    """`pool`: the Serve handle of the sandbox pool."""

    def __init__(self, pool: Any):
        self._pool = pool
        self._session = uuid.uuid4().hex
        self._cells: tuple[Cell | str, ...] = ()
        self._defined: set[str] = set()

    async def set_skills(self, skills: Sequence[Skill]) -> None:
        """Takes effect with the next `exec`. Variables of the session stay."""
        found = {s.script: names(s.script) for s in skills if s.script}
        scripts = {script: own.defined | own.imported for script, own in found.items() if own is not None}
        forget = f"for _name in {sorted(self._defined)!r}: globals().pop(_name, None)" if self._defined else ""
        if cell := "\n\n".join([forget, *scripts]).strip():
            self._cells += (cell,)
        self._defined = set().union(*scripts.values())

    async def exec(self, code: str) -> ToolResult:
        for _ in range(2):
            result, cells = await self._run(code)
            if result.status != "infra":
                self._cells = cells
                break
        else:
            raise Failure(f"sandbox: {result.reason}", "infra_error")
        content = result.stdout.rstrip("\n")
        if result.status != "ok":
            content = f"{content}\nError: {result.reason or result.status}".lstrip("\n")
        status = _STATUS.get(result.status, "limit")
        return ToolResult(tool="exec", status=status, content=content, wall_s=result.wall_s)  # type: ignore[arg-type]

    async def _run(self, code: str) -> tuple[Result, tuple[Cell | str, ...]]:
        """A failure of the call itself (a replica died under it) is an infra result like the sandbox's own."""
        try:
            return await within(self._pool.session_run.remote(self._session, code, self._cells), "sandbox", _DEADLINE_S)
        except Failure as e:
            return Result("infra", str(e)), self._cells

    async def close(self) -> None:
        with contextlib.suppress(Failure):  # a session nobody closes is evicted when idle
            await within(self._pool.close_session.remote(self._session), "sandbox", _CLOSE_S)
