"""How long the seats of an engine are empty in synthesis, with stragglers: in waves, as it was, and in a window.

    python -m tests.benchmarks.bench_straggler [--target 5000] [--in-flight 64] [--times 20] [--one-in 50]

The stage itself plays, with its ledger, steps and data set; pools are stand-ins in a time of their own, so neither Ray
nor an engine runs, and figures do not depend on the machine. An episode takes 0.5 to 1.5 s, one in `--one-in` of them
`--times` as long; two of three are accepted. A wave is a window of one open step.

Two shares of empty seats: of the whole stage, and until the last task began. After that whatever takes longest has to
be waited for, in any order of work; the longer the stage, the less it weighs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.flow import window
from tests.pipeline.stages import test_synthesize as stage


def measured(most_open: int, args: argparse.Namespace) -> dict[str, float]:
    """Shares of empty seats, and episodes begun and needed."""
    rng, busy, ends, begins = random.Random(25), [0.0], [0.0], [0.0]
    taking = [rng.uniform(0.5, 1.5) * (args.times if rng.randrange(args.one_in) == 0 else 1) for _ in range(10**6)]
    clock = lambda: asyncio.get_running_loop().time()  # noqa: E731

    class Pools(stage.Pools):
        async def _episode(self, task: Any, attempt: int) -> Any:
            begins.append(clock())
            began = clock()
            try:
                return await super()._episode(task, attempt)
            finally:
                busy[0] += clock() - began
                ends.append(clock())

    pools = Pools(lambda n: n, lambda n: taking[n], args.in_flight)
    window.MOST_OPEN = most_open
    with tempfile.TemporaryDirectory() as folder:
        result = stage.run(Path(folder) / "run", pools, args.target, 10**6, args.in_flight, args.set)
    last = max(begins)
    return {
        "whole": 1 - busy[0] / (max(ends) * args.in_flight),
        "until the last began": 1 - overlap(begins[1:], ends[1:], last) / (last * args.in_flight),
        "seconds": max(ends),
        "begun": len(pools.begun),
        "needed": result["episodes"],
    }


def overlap(begins: list[float], ends: list[float], last: float) -> float:
    """Seat-seconds up to a moment: what began less what ended, summed."""
    return sum(last - t for t in begins) - sum(last - t for t in ends if t < last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--times", type=float, default=20)
    parser.add_argument("--one-in", type=int, default=50)
    parser.add_argument("--set", action="append", default=[], help="override, dotted")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{'':8} {'seats empty':>12} {'until last began':>17} {'seconds':>9} {'begun':>7} {'needed':>7} {'CPU s':>6}")
    most_open, of = window.MOST_OPEN, {}
    for name, steps in (("waves", 1), ("window", most_open)):
        before = time.process_time()
        found = of[name] = measured(steps, args)
        shares = f"{found['whole']:12.1%} {found['until the last began']:17.1%}"
        counts = f"{found['seconds']:9,.0f} {found['begun']:7,.0f} {found['needed']:7,.0f}"
        print(f"{name:8} {shares} {counts} {time.process_time() - before:6.1f}")
    if args.json:
        args.json.write_text(json.dumps(of))


if __name__ == "__main__":
    main()
