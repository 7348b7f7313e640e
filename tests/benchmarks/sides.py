"""Two ways to do the same, measured in turn, so that load hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def seconds(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Name -> the median of what it took. A first round that is not counted warms up; every second round goes the other
    way round."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            works[name]()
            took[name].append(time.perf_counter() - began)
    return {name: median(times[1:]) for name, times in took.items()}
