"""Committee and prober against what they stand on: the share of the sandbox's own rate that verification reaches.

    python -m tests.benchmarks.bench_verification [--problems 300] [--rounds 3] [--json FILE]

`bare` sends the runs that the two deriving verifiers need for these problems straight to the pool, as many at a time as
the committee does. The solver is one that answers at once, so the prober's figure is its own cost: what a problem
takes beside the engine's sampling. Rounds alternate, so that load hits all alike; medians are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from statistics import median

from actors.committee import Committee
from actors.prober import Prober
from actors.verifiers import symbolic
from actors.verifiers.compiler import compile_program
from actors.verifiers.controlled import Reading, read
from actors.verifiers.derivation import call
from pipeline import config
from pipeline.mini.generate import CATEGORIES, combinations_of, write
from pipeline.records import Problem
from sandbox import Request
from tests.actors.pools import Boxes, handle, sandbox

AT_ONCE = 128
"""Requests in a bare batch, problems in a committee call."""


def problems(count: int) -> list[tuple[Problem, tuple[str, ...]]]:
    rng = Random(0)
    chosen = []
    for i in range(count):
        skills = rng.choice(combinations_of(CATEGORIES[i % 3], heldout=False))
        chosen.append((write(skills, rng).problem, tuple(skills)))
    return chosen


def runs(problem: Problem) -> list[Request]:
    reading = read(problem.question)
    assert isinstance(reading, Reading)
    clauses = [(c.rule, c.numbers, c.unit) for c in (reading.opening, *reading.steps, reading.question)]
    return [call(symbolic._PROGRAM, (clauses,)), call(compile_program(reading))]


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def measure(count: int, rounds: int) -> dict[str, float]:
    pool, sandbox_handle = sandbox(slots=2)
    try:
        cases = problems(count)
        requests = [r for problem, _ in cases for r in runs(problem)]
        solver = handle(Boxes("51", "7", None), "answers")
        committee = Committee(config.Committee(), sandbox_handle, solver)
        prober = Prober(config.Prober(), {"p": solver}, sandbox_handle)

        async def bare() -> None:
            for i in range(0, len(requests), AT_ONCE):
                await pool.run_batch(requests[i : i + AT_ONCE])

        async def judged() -> None:
            for i in range(0, count, AT_ONCE):
                await committee.judge_many([(p, None, active) for p, active in cases[i : i + AT_ONCE]])

        async def probed() -> None:
            await prober.probe_many([p for p, _ in cases], "p", 0)

        times: dict[str, list[float]] = {"bare": [], "committee": [], "prober": []}
        for _ in range(rounds):
            for name, work in (("bare", bare), ("committee", judged), ("prober", probed)):
                times[name].append(await seconds(work))
    finally:
        pool.close()
    took = {name: median(values) for name, values in times.items()}
    return {
        "bare_problems_per_s": count / took["bare"],
        "committee_problems_per_s": count / took["committee"],
        "committee_share_of_sandbox": took["bare"] / took["committee"],
        "prober_own_ms_per_problem": 1000 * took["prober"] / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.problems, args.rounds))
    for name, value in found.items():
        print(f"{name:30} {value:10.2f}")
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
