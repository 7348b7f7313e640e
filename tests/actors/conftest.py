"""One sandbox for all files that run programs in it: no run leaves anything to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.actors.pools import sandbox


@pytest.fixture(scope="session")
def pool() -> Iterator[Any]:
    """A handle to it."""
    pool, handle = sandbox()
    yield handle
    pool.close()
