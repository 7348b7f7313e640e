"""For all tests: no example of hypothesis has a deadline, because a busy machine is no failure; what a test starts can
be interrupted, though a shell's background job, which the tests may be, hands its children SIGINT ignored; torch
computes with one thread, because several files run at a time and the models are too small to share out; and in this
process a sync to the disk does not wait for the disk, because no test cuts the power (when it is called is tested where
it matters, and what a test starts as a process syncs for real).

Files that take longest go first, so that none of them holds a worker at the end while the others have nothing to do:
whole pipelines, then what starts engines and Rays, then the rest.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _fsync(file: int) -> None:
    os.fstat(file)  # refused where the real one would be


os.fsync = _fsync

_LONGEST_FIRST = ("pipeline", "engine")


@pytest.hookimpl(trylast=True)  # of what was selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: [mark not in marks[item.path] for mark in _LONGEST_FIRST])
