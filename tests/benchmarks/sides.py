"""Several ways to do the same, measured in turn, so that load hits all alike; and how the figures are told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
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


def tell(found: Mapping[str, float], file: Path | None) -> None:
    """Print the figures, and keep them in `file` for the table."""
    for name, value in found.items():
        print(f"{name:42} {value:10.2f}")
    if file is not None:
        file.write_text(json.dumps(dict(found)))
