from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox import Limits, Slot

QUICK = Limits(wall_s=2.0, cpu_s=0.4, memory_mb=128)


@pytest.fixture(scope="session")
def slot() -> Iterator[Slot]:
    with Slot(limits=QUICK) as slot:
        yield slot
