"""A slot: one zygote kept healthy, and runs in it judged by what the kernel says of them.

Invariant: a slot answers every request with a `Result` and never raises for what a program did. It refuses to exist
below its minimum level, and proves its walls by attacking them through the same path that programs take.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

from . import claims, selftest
from .api import LEVELS, LevelName, Limits, Request, Result, SandboxUnavailable, Status
from .host import InfraError, Run, Zygote
from .platforms import describe

RECYCLE_AFTER = 1000


class Slot:
    """Runs code. Context manager; may be shared by threads, whose runs are then side by side in one zygote."""

    def __init__(
        self,
        minimum: str = "strong",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        packages: tuple[str, ...] = ("numpy", "sympy"),
        recycle_after: int = RECYCLE_AFTER,
    ):
        if minimum not in LEVELS:
            raise SandboxUnavailable(f"minimum level {minimum!r}: expected one of {', '.join(LEVELS)}")
        self.minimum, self.limits, self.packages = minimum, limits, packages
        self.recycle_after = recycle_after
        self._guard = threading.Lock()
        self._runs = 0
        self._closed = False
        self._zygote: Zygote | None = None
        self._retired: list[Zygote] = []
        self.restarts = 0
        """How often a new zygote had to be made."""
        try:
            self._zygote = self._start()
        except InfraError as e:
            raise SandboxUnavailable(str(e)) from None

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._guard:
            self._closed = True
            for zygote in [*self._retired, self._zygote]:
                if zygote is not None:
                    zygote.close()
            self._zygote, self._retired = None, []

    @property
    def level(self) -> LevelName:
        return self.platform.level

    def run(self, request: Request) -> Result:
        """Run a script in a new process; returns when it and all it made are gone."""
        limits = request.limits or self.limits
        try:
            job = _job(request, limits)
        except ValueError as e:
            return Result("error", str(e), level=self.level)
        run = Run(limits, request.stdin.encode("utf-8", "surrogatepass"))
        try:
            try:
                self.begin(run, job)
                run.watch()
            finally:
                run.finish()
        except InfraError as e:
            return Result("infra", str(e), level=self.level)
        return conclude(run, self.level, wants_value=bool(request.value or request.entry))

    def begin(self, run: Run, job: bytes) -> None:
        """Start a run in a healthy zygote: a new one if the last died or has served its time. Raises InfraError."""
        with self._guard:
            run.order(self._healthy(), job)
        run.await_walls()

    def _healthy(self) -> Zygote:
        if self._closed:
            raise InfraError("the slot is closed")
        self._retired = [old for old in self._retired if not old.reaped()]
        self._runs += 1
        if self._zygote is not None and not self._zygote.alive:
            self._zygote.kill()
            self._zygote = None
        elif self._zygote is not None and self._runs > self.recycle_after:
            self._zygote.retire()
            self._retired.append(self._zygote)
            self._zygote = None
        if self._zygote is None:
            self._zygote = self._start()
            self._runs = 1
            self.restarts += 1
        return self._zygote

    def _start(self) -> Zygote:
        zygote = Zygote(self.packages)
        try:
            platform = describe(zygote.layers)
            if LEVELS.index(platform.level) < LEVELS.index(self.minimum):
                raise SandboxUnavailable(
                    f"this machine reaches level {platform.level}, {self.minimum} is asked for: {'; '.join(platform.missing)}"
                )
            run = Run(Limits())
            try:
                run.order(zygote, selftest.job())
                run.await_walls()
                run.watch()
            finally:
                run.finish()
            failures = selftest.failures(conclude(run, platform.level, wants_value=True))
            if failures and platform.level != "unsafe":
                raise SandboxUnavailable(f"level {platform.level} does not hold here: {'; '.join(failures)}")
        except BaseException:
            zygote.kill()
            raise
        self.platform = platform
        return zygote


def _job(request: Request, limits: Limits) -> bytes:
    try:
        source = request.code.encode()
        job = {"code": request.code, "value": request.value, "entry": request.entry, "args": request.args}
        data = json.dumps(job, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("code: lone surrogates are no Unicode text") from None
    if len(source) > limits.code_kb << 10:
        raise ValueError(f"code: {len(source) >> 10} KB; the limit is {limits.code_kb} KB")
    return data


def conclude(run: Run, level: str, wants_value: bool) -> Result:
    """The result of a finished run: its status from facts, its words as claims."""
    facts = run.exit
    assert facts is not None
    status, reason, value = _ending(run, facts["exit"], facts["cpu_s"], facts["peak_kb"] / 1024)
    if status in ("ok", "error"):
        status, reason, value = _words(run, status, reason, wants_value)
    return Result(
        status,
        reason,
        run.stdout.decode("utf-8", "replace"),
        run.stderr.decode("utf-8", "replace"),
        value,
        run.truncated,
        time.monotonic() - run.started,
        facts["cpu_s"],
        facts["peak_kb"] / 1024,
        level,
    )


def _ending(run: Run, code: int, cpu_s: float, peak_mb: float) -> tuple[Status, str, None]:
    killed = code == -signal.SIGKILL
    if run.verdict is not None and (killed or run.verdict[0] == "output_limit"):
        return *run.verdict, None
    if code >= 0:
        return ("ok", "", None) if code == 0 else ("error", f"exit code {code}", None)
    if killed and cpu_s >= run.limits.cpu_s:
        return "cpu_limit", f"more than {run.limits.cpu_s:g} s of CPU time", None
    if killed and peak_mb > run.limits.memory_mb / 2:
        return "memory_limit", f"killed by the system with {peak_mb:.0f} MB resident", None
    if killed:
        return "infra", "killed from outside the sandbox", None
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    if name == "SIGSYS":
        return "violation", "a forbidden system call", None
    return ("disk_limit" if name == "SIGXFSZ" else "crash"), name, None


def _words(run: Run, status: Status, reason: str, wants_value: bool) -> tuple[Status, str, Any]:
    """What the run's report adds: the exception's name, the limit it met, the value."""
    try:
        said = claims.read(bytes(run.report))
        if not isinstance(said, dict):
            raise ValueError("no object")
    except ValueError as e:
        if wants_value and status == "ok":
            return "error", f"no value: {e}", None
        return status, reason, None
    if status == "error" or "reason" in said:
        words = " ".join(str(said.get("reason", reason)).split())[:500] or reason
        limit = said.get("limit")
        return (limit if limit in ("memory_limit", "disk_limit") else "error"), words, None
    if wants_value and "value" not in said:
        return "error", "no value was exported", None
    return status, "", said.get("value") if wants_value else None
