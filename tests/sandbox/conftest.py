from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from sandbox import Limits, Slot

QUICK = Limits(wall_s=2.0, cpu_s=0.4, memory_mb=128)


@pytest.fixture(scope="session")
def slot() -> Iterator[Slot]:
    with Slot(limits=QUICK) as slot:
        yield slot


def held() -> list[str]:
    """What this process has open of processes and of memory that is shared with them. Sockets and files do not count:
    threads that tests of other rooms left behind open and close theirs."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(link for link in links if "pidfd" in link or "memfd" in link)
