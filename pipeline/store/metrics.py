"""The numbers of a run: `metrics.jsonl`, one flat JSON object a line, mirrored to TensorBoard and to Ray's gauges.

Invariant: a line that ends in a newline is whole. What a crash left half-written is cut off before the next line is
appended; nothing else ever is. Readers pass over what is no line of ours, and `damage` counts it: figures are not worth
a run. A step done again after a resume is logged again; readers take the last one (TensorBoard, which cannot, shows
both).
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.records import Failure
from pipeline.store import chained
from pipeline.store.files import APPENDING, without, writing
from pipeline.store.rundir import RunDir
from pipeline.watch.gauges import Gauges
from pipeline.watch.trackers import Sending

FILE = "metrics.jsonl"
_FACTS = ("time", "stage", "step", "crc")
_BEGIN = b'{"time": '
"""How a line begins."""


class Metrics:
    """Appends to a run's metrics. One writer at a time, which holding the run directory ensures."""

    def __init__(self, run: RunDir, name: str | None = None):
        """`name`: of the run, where other runs have their figures too; None takes its directory's."""
        self._path = path = run.path(FILE)
        try:
            self._file = os.open(path, APPENDING, 0o644)
        except OSError as e:
            raise Failure(f"{path}: {e.strerror}; expected a file this user may write to; {without(path)}") from None
        self._chain = self._mend(path.read_bytes())
        self._board: Any = None
        self._folder = str(run.path("tensorboard"))
        self._gauges = Gauges(name or run.root.name)
        self.trackers: Sequence[Sending] = ()

    def _mend(self, content: bytes) -> int:
        """End the last line, or cut it off where a crash left half of it; returns the chain."""
        *whole, tail = content.split(b"\n")
        with writing(self._path):
            if chained.is_whole(tail) or (tail and not tail.startswith(_BEGIN)):
                os.write(self._file, b"\n")
                whole.append(tail)
            elif tail:
                os.ftruncate(self._file, len(content) - len(tail))
        return chained.stated(whole[-1]) if whole else 0

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step. A value that is not finite is written as null."""
        if reserved := [name for name in values if name in _FACTS]:
            raise ValueError(f"metric names {reserved} are taken by the facts of the line")
        now = time.time()
        numbers = {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
        facts = {"time": round(now, 3), "stage": stage, "step": step, **numbers}
        line, self._chain = chained.line(facts, self._chain)
        with writing(self._path):
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, "the disk took a part of the line")
            os.fsync(self._file)
            if self._board is None:  # not before there is something to show: a finished run writes nothing
                self._board = _board(self._folder)
            if self._board is not None:
                _mirror(self._board, {f"{stage}/{name}": v for name, v in numbers.items() if v is not None}, step, now)
        self._gauges.show(stage, numbers)
        for tracker in self.trackers:
            tracker.log(stage, step, {name: v for name, v in numbers.items() if v is not None})

    def show(self, stage: str, values: Mapping[str, float]) -> None:
        """Figures of the moment, which belong to no step: for the gauges only."""
        self._gauges.show(stage, values)

    def end(self, stage: str) -> None:
        """A stage is over, and its gauges with it."""
        self._gauges.end(stage)

    def close(self) -> None:
        self._gauges.close()
        os.close(self._file)
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Stage -> its rows by ascending step, the last line of each step; null values are absent, and so are lines that
    were damaged. Raises Failure where the file cannot be read."""
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for line in _lines(run):
        if line.follows and line.facts is not None and _is_row(line.facts):
            row = {k: v for k, v in line.facts.items() if v is not None}
            stages.setdefault(row["stage"], {})[row["step"]] = row
    return {stage: [rows[step] for step in sorted(rows)] for stage, rows in stages.items()}


def values(run: RunDir, stage: str, name: str) -> list[float]:
    """A metric of a stage, by ascending step; steps that lack it are left out."""
    return [row[name] for row in read(run).get(stage, []) if name in row]


def damage(run: RunDir) -> list[int]:
    """Numbers of the lines that are no metrics line, or do not follow from the line before them."""
    return [x.number for x in _lines(run) if not x.follows or x.facts is None or not _is_row(x.facts)]


def board_again(run: RunDir) -> None:
    """TensorBoard's events of all the rows."""
    board = _board(str(run.path("tensorboard")))
    if board is not None:
        for stage, rows in read(run).items():
            for row in rows:
                values = {f"{stage}/{name}": v for name, v in row.items() if name not in _FACTS}
                _mirror(board, values, row["step"], row["time"])
        board.close()


def _lines(run: RunDir) -> Iterator[chained.Line]:
    path = run.path(FILE)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return iter(())
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}; expected a file of metrics; {without(path)}") from None
    *_, tail = content.split(b"\n")
    return chained.lines(content + b"\n" if chained.is_whole(tail) else content)


def _is_row(facts: Mapping[str, Any]) -> bool:
    numbers = (v for name, v in facts.items() if name != "stage" and v is not None)
    return (
        isinstance(facts.get("stage"), str)
        and isinstance(facts.get("step"), int)
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    )


def _board(folder: str) -> Any:
    """TensorBoard's own event writer, which needs no torch; None where the light install has no tensorboard."""
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return None
    return EventFileWriter(folder)


def _mirror(board: Any, values: Mapping[str, float], step: int, now: float) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])
    board.add_event(Event(wall_time=now, step=step, summary=summary))
    board.flush()
