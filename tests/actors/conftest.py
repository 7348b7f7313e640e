"""A sandbox of its own for each file that runs programs in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.actors.pools import sandbox


@pytest.fixture(scope="module")
def pool() -> Iterator[Any]:
    """A handle to it."""
    pool, handle = sandbox()
    yield handle
    pool.close()
