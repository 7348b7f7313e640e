"""For all tests: no example of hypothesis has a deadline, because a busy machine is no failure; what a test starts can
be interrupted, though a shell's background job, which the tests may be, hands its children SIGINT ignored; torch
computes with one thread, because several files run at a time and the models are too small to share out; and in this
process a sync to the disk does not wait for the disk, because no test cuts the power (when it is called is tested where
it matters, and what a test starts as a process syncs for real).

Files that take longest go first, so that none of them holds a worker at the end while the others have nothing to do:
whole pipelines, then what starts engines and Rays, then the rest. Of the files whose `pytestmark` says `pipeline`, one
runs at a time, and of those that say `engine`, because a whole pipeline takes 6 GB of memory and an engine 2.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _fsync(file: int) -> None:
    os.fstat(file)  # refused where the real one would be


os.fsync = _fsync


@pytest.fixture(scope="module", autouse=True)
def no_ray_left() -> Iterator[None]:
    """A file that breaks off in the middle leaves no Ray to the next one."""
    yield
    if (ray := sys.modules.get("ray")) and ray.is_initialized():
        if meters := sys.modules.get("actors.meters"):
            meters.METERS.disconnect()  # a gauge that is set while Ray ends would end this process
        ray.shutdown()


_LONGEST_FIRST = ("pipeline", "engine")
_ALL_OF_IT = re.compile(rf"^pytestmark = .*\bmark\.({'|'.join(_LONGEST_FIRST)})\b", re.MULTILINE)


@pytest.hookimpl(trylast=True)  # of what was selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: [mark not in marks[item.path] for mark in _LONGEST_FIRST])


@cache
def _kind(file: Path) -> str:
    """Of all tests of a file; "" where none is said."""
    said = _ALL_OF_IT.search(file.read_text())
    return said[1] if said else ""


@pytest.hookimpl(optionalhook=True)  # there is none without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    from xdist.scheduler import LoadFileScheduling

    class OneOfAKind(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """What runs in one worker, one after another: a file, or all files of a kind."""
            file = super()._split_scope(nodeid)
            return _kind(config.rootpath / file) or file

    return OneOfAKind(config, log) if config.getoption("dist") == "loadfile" else None
