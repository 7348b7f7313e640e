"""The numbers of a run: `metrics.jsonl`, one flat JSON object a line, mirrored to TensorBoard and to Ray's gauges.

Invariant: a line that ends in a newline is whole. What a crash left half-written is cut off before the next line is
appended, and readers pass over it. A step done again after a resume is logged again; readers take the last one
(TensorBoard, which cannot, shows both).
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from pipeline.records import Failure
from pipeline.store.files import writing
from pipeline.store.rundir import RunDir
from pipeline.watch.gauges import Gauges

FILE = "metrics.jsonl"
_FACTS = ("time", "stage", "step")


class Metrics:
    """Appends to a run's metrics. One writer at a time, which holding the run directory ensures."""

    def __init__(self, run: RunDir):
        self._path = path = run.path(FILE)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise Failure(f"{path}: {e.strerror}; expected a file this user may write to") from None
        os.ftruncate(self._file, _whole(path.read_bytes()))
        self._board = _board(str(run.path("tensorboard")))
        self._gauges = Gauges(run.root.name)

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step. A value that is not finite is written as null."""
        if reserved := [name for name in values if name in _FACTS]:
            raise ValueError(f"metric names {reserved} are taken by the facts of the line")
        now = time.time()
        numbers = {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
        line = json.dumps({"time": round(now, 3), "stage": stage, "step": step, **numbers}) + "\n"
        with writing(self._path):
            if os.write(self._file, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, "the disk took a part of the line")
            os.fsync(self._file)
            if self._board is not None:
                _mirror(self._board, {f"{stage}/{name}": v for name, v in numbers.items() if v is not None}, step, now)
        self._gauges.show(stage, numbers)

    def show(self, stage: str, values: Mapping[str, float]) -> None:
        """Figures of the moment, which belong to no step: for the gauges only."""
        self._gauges.show(stage, values)

    def close(self) -> None:
        os.close(self._file)
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Stage -> its rows by ascending step, the last line of each step; null values are absent.

    Raises Failure naming a line that is whole and yet no metrics line.
    """
    path = run.path(FILE)
    if not path.exists():
        return {}
    content = path.read_bytes()
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for number, line in enumerate(content[: _whole(content)].splitlines(), start=1):
        try:
            row = json.loads(line)
            stages.setdefault(row["stage"], {})[row["step"]] = {k: v for k, v in row.items() if v is not None}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Failure(f"{path}:{number}: no metrics line; expected an object with stage and step") from None
    return {stage: [rows[step] for step in sorted(rows)] for stage, rows in stages.items()}


def _whole(content: bytes) -> int:
    """How many bytes of the file are whole lines."""
    return content.rfind(b"\n") + 1


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
