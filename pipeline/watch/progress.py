"""What the user watches while a run works: one line a stage on stderr, never on stdout.

On a terminal the running stage has a bar with rate, time left and a few facts. Elsewhere (CI, nohup, `ray job submit`)
it prints a plain line at most every ten seconds, and one when the stage ends.

The first units of a process are not like those that follow: the first step compiles, pools start. So rate and time left
count from when the first units were done, and are not told before others follow.

Invariant: stdout is never touched, so a command's one JSON object can be piped. A quiet command says nothing here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from pipeline.watch import verbosity

EVERY_S = 10.0
_AT_ONCE_S = 0.05
"""Units told of within this time were done together."""


class Progress:
    """Tells of stages. Used as a context, so that a bar never outlives what it shows."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._bars: Bars | None = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb" and not verbosity.quiet():
            self._bars = Bars(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}", markup=False),
                console=Console(file=self._stream),
                redirect_stdout=False,
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, name: str, text: str) -> None:
        """One lasting line: `name · text`."""
        if verbosity.quiet():
            return
        if self._bars:
            self._bars.console.print(Text.assemble((name, "bold"), f" · {text}"), soft_wrap=True)
        else:
            print(f"{name} · {text}", file=self._stream, flush=True)

    def skip(self, name: str) -> None:
        self.say(name, "done before, skipped")

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Handle]:
        """A running stage of `total` units (a singular noun; None if unknown), `done` of them by an earlier run."""
        if done:
            self.say(name, f"resumes at {unit} {done + 1}" + (f" of {total}" if total is not None else ""))
        else:
            self.say(name, "starts" if total is None else f"starts, {_count(total, unit)}")
        handle = Handle(self, name, total, unit, done)
        try:
            yield handle
        except BaseException:
            handle._close("stopped")
            raise
        handle._close("done")


class Handle:
    """One running stage."""

    def __init__(self, progress: Progress, name: str, total: int | None, unit: str, done: int):
        self._progress = progress
        self._name, self._total, self._unit = name, total, unit
        self._done = done
        self._warm: tuple[float, int] | None = None
        """When the first units were done, and how many there were then."""
        self._start = self._told = progress._clock()
        self._facts: dict[str, object] = {}
        self._task = None
        if progress._bars:
            self._task = progress._bars.add_task(name, total=total, completed=done, line=self._count_of())

    def advance(self, n: int = 1, **facts: object) -> None:
        """`n` more units are done (0: only the facts changed). Facts stay shown until given again."""
        self._done += n
        self._facts.update(facts)
        bars, now = self._progress._bars, self._progress._clock()
        if n and (self._warm is None or now - self._warm[0] < _AT_ONCE_S):
            self._warm = (self._warm or (now, 0))[0], self._done
        if bars and self._task is not None:
            bars.update(self._task, completed=self._done, line=self._line(now))
        elif now - self._told >= EVERY_S:
            self._told = now
            self._progress.say(self._name, self._line(now))

    def _close(self, how: str) -> None:
        now = self._progress._clock()
        if self._progress._bars and self._task is not None:
            self._progress._bars.remove_task(self._task)
            self._progress._bars.refresh()
        done = f"{_count(self._done, self._unit)}" if how == "done" else self._count_of()
        self._progress.say(
            self._name, " · ".join([f"{how}, {done} in {_duration(now - self._start)}", *self._shown_facts()])
        )

    def _line(self, now: float) -> str:
        parts = [self._count_of()]
        since, before = self._warm or (now, self._done)
        here, elapsed = self._done - before, now - since
        if here > 0 and elapsed > 0:
            rate = here / elapsed
            parts.append(f"{rate:.1f} {self._unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{self._unit}")
            if self._total is not None and self._total > self._done:
                parts.append(f"{_duration((self._total - self._done) / rate)} left")
        return " · ".join(parts + self._shown_facts())

    def _count_of(self) -> str:
        return _count(self._done, self._unit) if self._total is None else f"{self._done}/{self._total} {self._unit}s"

    def _shown_facts(self) -> list[str]:
        return [f"{name.replace('_', ' ')} {_number(value)}" for name, value in self._facts.items()]


def _count(n: int, unit: str) -> str:
    return f"{n} {unit}" if n == 1 else f"{n} {unit}s"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
