"""A slot: one zygote kept healthy, and runs in it judged by what the kernel says of them.

Invariant: a slot answers every request with a `Result` and never raises for what a program did. It refuses to exist
below its minimum level, and proves its walls by attacking them through the same path that programs take.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from . import builds, judge, selftest
from .api import LEVELS, Case, Cell, Layer, LevelName, Limits, Request, Result, SandboxUnavailable, Verdict
from .builds import Builds
from .conclude import conclude
from .host import Run
from .languages import LANGUAGES, toolchain
from .platforms import describe
from .server import InfraError, Zygote
from .session import Session
from .toolchains import Missing

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
        self._proved: set[str] = set()
        """Languages whose programs the zygote's walls were tried with."""
        self.restarts = 0
        """How often a new zygote had to be made."""
        self._left = 0
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
    def left(self) -> int:
        """Scratch directories that could not be removed when their runs ended."""
        return self._left + (self._zygote.left if self._zygote is not None else 0)

    @property
    def level(self) -> LevelName:
        return self.platform.level

    def run(self, request: Request, known: Builds | None = None) -> Result:
        """Run a script in a new process; returns when it is gone. A program to be compiled is
        compiled first, once for all runs that share `known`."""
        limits = request.limits or self.limits
        run = Run(limits, request.stdin.encode("utf-8", "surrogatepass"), language=request.language)
        try:
            job = _job(request, limits)
            if request.language != "python":
                self._prove(request.language)
                made = (known or Builds()).get(request.language, job, lambda: self._compile(request.language, job))
                if isinstance(made, Result):
                    return made
                job = made
            self._once(run, job)
        except ValueError as e:
            return Result("error", str(e), level=self.level)
        except (InfraError, OSError) as e:
            return Result("infra", str(e), level=self.level)
        return self.conclude(run, bool(request.value or request.entry))

    def _once(self, run: Run, job: bytes) -> None:
        try:
            self.begin(run, job)
            run.watch()
        finally:
            run.finish()

    def offers(self, language: str) -> Layer:
        """Whether a language works here, tried."""
        try:
            self._prove(language)
        except InfraError as e:
            return Layer(language, False, str(e))
        return Layer(language, True, "compiled behind the same walls, static binaries")

    def _prove(self, language: str) -> None:
        """The walls around compiled programs, attacked once by each zygote's first. Raises InfraError."""
        if language in self._proved:
            return
        made = self._compile(language, LANGUAGES[language].attacks.encode())
        if isinstance(made, Result):
            raise InfraError(f"{language} does not work here: {made.status}: {made.reason}")
        run = Run(Limits(), language=language)
        self._once(run, made)
        result = conclude(run, self.level, wants_value=False)
        if failures := selftest.program_failures(result):
            raise InfraError(f"{language} programs are not walled in: {'; '.join(failures)}")
        self._proved.add(language)

    def _compile(self, language: str, source: bytes) -> bytes | Result:
        """A binary, or why there is none. Raises InfraError."""
        try:
            chain = toolchain(language)
        except Missing as e:
            raise InfraError(str(e)) from None

        def run_stage(number: int, data: bytes) -> tuple[Result, bytes]:
            run = Run(builds.LIMITS, language=language, stage=number)
            self._once(run, data)
            return conclude(run, self.level, wants_value=False), run.output

        return builds.build(chain, source, run_stage)

    def judge_calls(
        self, code: str, entry: str, cases: Sequence[Case], limits: Limits | None = None, tolerance: float = 0.0
    ) -> list[Verdict]:
        """Call `entry` once for each case, in a process of its own, and compare what it returns with `expected`."""
        results = [self.run(judge.call_request(code, entry, case, limits)) for case in cases]
        return [judge.call_verdict(result, case, tolerance) for result, case in zip(results, cases, strict=True)]

    def judge_stdio(
        self, code: str, cases: Sequence[Case], limits: Limits | None = None, language: str = "python"
    ) -> list[Verdict]:
        """Run the script once for each case, in a process of its own, and compare what it prints with `stdout`."""
        known = Builds()
        results = [self.run(judge.script_request(code, case, limits, language), known) for case in cases]
        return [judge.script_verdict(result, case) for result, case in zip(results, cases, strict=True)]

    def session(
        self, limits: Limits | None = None, cells: Sequence[Cell | str] = (), lifetime_s: float = 600.0
    ) -> Session:
        """A stateful session; `cells` rebuild the state of an earlier one, or are code to run before its first cell."""
        return Session(self, limits or self.limits, cells, lifetime_s)

    def begin(self, run: Run, job: bytes) -> None:
        """Start a run in a healthy zygote: a new one if the last died or has served its time. Raises InfraError."""
        with self._guard:
            try:
                zygote = self._healthy()
            except (SandboxUnavailable, OSError) as e:  # it could be made before
                raise InfraError(f"no new fork server: {e}") from None
            run.order(zygote, job)
        try:
            run.await_walls()
        except (InfraError, OSError):
            self._doubt()
            raise

    def conclude(self, run: Run, wants_value: bool, facts: dict[str, Any] | None = None) -> Result:
        """`conclude`, for what programs did. An end that none of them explains is the last in its zygote."""
        result = conclude(run, self.level, wants_value, facts)
        if result.status == "infra":
            self._doubt()
        return result

    def _doubt(self) -> None:
        """Something went wrong that should not: the next run has a new zygote. Other runs of this one end in peace."""
        with self._guard:
            self._runs = self.recycle_after

    def _healthy(self) -> Zygote:
        if self._closed:
            raise InfraError("the slot is closed")
        self._retired = [old for old in self._retired if not old.reaped()]
        self._runs += 1
        old = self._zygote
        if old is not None and (not old.alive or self._runs > self.recycle_after):
            if old.alive:
                old.retire()
                self._retired.append(old)
            else:
                old.kill()
            self._left += old.left
            self._zygote = None
        if self._zygote is None:
            self._zygote = self._start()
            self._proved.clear()
            self._runs = 1
            self.restarts += 1
        return self._zygote

    def _start(self) -> Zygote:
        zygote = Zygote(self.packages)
        try:
            platform = describe(zygote.layers)
            if LEVELS.index(platform.level) < LEVELS.index(self.minimum):
                raise SandboxUnavailable(
                    f"this machine reaches level {platform.level}, {self.minimum} is asked for: "
                    + "; ".join(platform.missing)
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
        source = data = request.code.encode()
        if request.language == "python":
            job = {"code": request.code, "value": request.value, "entry": request.entry, "args": request.args}
            data = json.dumps(job, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("code: lone surrogates are no Unicode text") from None
    most_kb = limits.code_kb if request.language == "python" else min(limits.code_kb, builds.LIMITS.file_mb << 10)
    if len(source) > most_kb << 10:
        raise ValueError(f"code: {len(source) >> 10} KB; the limit is {most_kb} KB")
    return data
