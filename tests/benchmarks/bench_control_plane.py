"""How many replicas one driver keeps busy: the real stage, window, stream and ledger over engine stand-ins.

    python -m tests.benchmarks.bench_control_plane [--replicas 1 4 16 64 256] [--in-flight 40] [--seconds 30]

A stand-in holds `--in-flight` episodes that take `--seconds` each, half to one and a half of it by the seed, and only
waits; judges and probers answer at once. For each number of replicas `synthesize` runs in a process of its own until
twice as many problems as are in flight are accepted. `of linear` is the rate of accepted problems beside what the
stand-ins could give, from the first episode that ends until the last that begins. `driver ms` is the driver's CPU time
an episode: its inverse is where one driver ends. Serve's router and Ray's own work in the driver are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.pipeline.stages import test_synthesize as stage


class Replicas(stage.Pools):
    """All of them as one handle; the seats are the driver's to keep full."""

    def __init__(self, seats: int, seconds: float):
        rng = random.Random(25)
        takes = [seconds * rng.uniform(0.5, 1.5) for _ in range(20 * seats)]
        super().__init__(lambda n: n, lambda n: takes[n], seats)
        self.begins: list[float] = []
        self.ends: list[float] = []

    async def _episode(self, task: Any, attempt: int) -> Any:
        self.begins.append(time.monotonic())
        try:
            return await super()._episode(task, attempt)
        finally:
            self.ends.append(time.monotonic())


def measured(replicas: int, in_flight: int, seconds: float) -> dict[str, float]:
    seats = replicas * in_flight
    pools = Replicas(seats, seconds)
    pool = [f"proposer.pool.max_replicas={replicas}", f"proposer.pool.max_ongoing={in_flight}"]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = stage.run(Path(folder) / "run", pools, 2 * seats, 10**6, seats, pool, asyncio.run)
    cpu = time.process_time() - began
    first, last = min(pools.ends), max(pools.begins)
    ended = sum(first <= end <= last for end in pools.ends)
    rate = ended / (last - first)
    return {
        "of linear": rate / (seats / seconds),
        "accepted an hour": 3600 * rate * result["accepted"] / len(pools.ends),
        "driver ms": 1000 * cpu / len(pools.ends),
        "driver MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "episodes": len(pools.ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--in-flight", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, float] = {}
    print(
        f"{'replicas':>8} {'of linear':>9} {'accepted an hour':>16} {'driver ms':>9} {'driver MB':>9} {'episodes':>8}"
    )
    for replicas in args.replicas:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            point = process.apply(measured, (replicas, args.in_flight, args.seconds))
        found |= {f"{replicas} replicas, {name}": value for name, value in point.items()}
        print(
            f"{replicas:8} {point['of linear']:9.1%} {point['accepted an hour']:16,.0f} {point['driver ms']:9.1f}"
            f" {point['driver MB']:9,.0f} {point['episodes']:8,.0f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
