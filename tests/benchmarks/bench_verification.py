"""Committee and prober against what they stand on: the share of their engines' own rate that verification reaches.

    python -m tests.benchmarks.bench_verification [--problems 300] [--rounds 3] [--json FILE] [--no-engine]

`sandbox` sends the runs that the two deriving verifiers need for these problems straight to the pool, as many at a time
as the committee does. `probe sampling` and `vote sampling` ask the engine (the bundled solver in vLLM) for just the
samples that the prober and the model verifier ask for, with the same seeds and all at once. The committee is held
against sandbox and vote sampling running side by side, the prober against probe sampling. `own` is the prober over a
solver that answers at once: what a problem takes beside the sampling. Pools are objects of this process, so what Serve
adds to a call is not in the figures. Rounds alternate, so that load hits all alike; medians are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from statistics import median

from actors.committee import Committee
from actors.prober import Prober
from actors.solver import Solver
from actors.verifiers.base import call
from actors.verifiers.mini import symbolic
from actors.verifiers.mini.compiler import compile_program
from actors.verifiers.mini.controlled import Reading, read
from actors.verifiers.mini.grammar import Fault, parse
from pipeline import config, domains
from pipeline.domains.mini.generate import CATEGORIES, combinations_of, draft
from pipeline.records import ANSWER_KINDS, Problem
from sandbox import Request
from tests.actors.pools import Boxes, sandbox, solver_pool
from tests.benchmarks.sides import tell
from tests.mini import MINI

AT_ONCE = 128
"""Requests in a bare batch, problems in a committee call."""


def problems(count: int) -> list[tuple[Problem, tuple[str, ...]]]:
    rng = Random(0)
    chosen = []
    for i in range(count):
        skills = rng.choice(combinations_of(CATEGORIES[i % 3], heldout=False))
        chosen.append((draft(skills, rng).problem, tuple(skills)))
    return chosen


def runs(problem: Problem) -> list[Request]:
    reading, sentences = read(problem.question), parse(problem.question)
    assert isinstance(reading, Reading) and not isinstance(sentences, Fault)
    clauses = [(c.rule, c.numbers, c.unit) for c in reading.clauses]
    return [call(symbolic._PROGRAM, (clauses, ())), call(compile_program(sentences))]


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def start_solver() -> Solver:
    """The bundled solver, as Serve would construct it."""
    model = MINI.prober.ladder[0]
    solver = Solver.__new__(Solver)
    path, told = str(domains.of(MINI.domain).resolve(model.path)), dict.fromkeys(ANSWER_KINDS, "Solve.")
    await solver.__init__(path, model.engine, 0, told)  # type: ignore[misc]
    return solver


async def measure(count: int, rounds: int, with_engine: bool) -> dict[str, float]:
    pool, sandbox_handle = sandbox(slots=2)
    solver = await start_solver() if with_engine else None
    try:
        cases = problems(count)
        requests = [r for problem, _ in cases for r in runs(problem)]
        instant = solver_pool(Boxes("51", "7", None))
        engine = instant if solver is None else solver_pool(solver)
        section, probing, voting = MINI.committee, MINI.prober, config.ModelVerifierConfig()
        committee = Committee(section, sandbox_handle, engine)
        prober, own_prober = (Prober(probing, {"p": s}, sandbox_handle) for s in (engine, instant))
        vote_sampling = config.SamplingConfig(temperature=voting.temperature, max_tokens=voting.max_tokens)

        async def bare() -> None:
            for i in range(0, len(requests), AT_ONCE):
                await pool.run_batch(requests[i : i + AT_ONCE])

        async def sampled(n: int, sampling: config.SamplingConfig, seeds: Callable[[int, Problem], int]) -> None:
            for start in range(0, count, AT_ONCE):
                part = list(enumerate(cases))[start : start + AT_ONCE]
                calls = (engine.handle.answers.remote(p.question, n, sampling, seeds(i, p)) for i, (p, _) in part)
                await asyncio.gather(*calls)

        async def probe_sampling() -> None:
            await sampled(probing.n, probing.sampling, lambda i, p: i)

        async def vote_sampled() -> None:
            await sampled(voting.samples, vote_sampling, lambda i, p: int(p.id, 16) % 2**31)

        async def both() -> None:
            await asyncio.gather(bare(), vote_sampled())

        async def judged() -> None:
            for i in range(0, count, AT_ONCE):
                await committee.judge_many([(p, None, active) for p, active in cases[i : i + AT_ONCE]])

        async def probed(by: Prober) -> None:
            for i in range(0, count, AT_ONCE):
                await asyncio.gather(*(by.probe(p, "p", i) for p, _ in cases[i : i + AT_ONCE]))

        works: dict[str, Callable[[], Awaitable[object]]] = {"sandbox": bare, "committee": judged}
        works["own"] = lambda: probed(own_prober)
        if solver is not None:
            works |= {"vote sampling": vote_sampled, "sandbox and vote sampling": both}
            works |= {"probe sampling": probe_sampling, "prober": lambda: probed(prober)}
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds + 1):
            for name, work in works.items():
                times[name].append(await seconds(work))
    finally:
        pool.close()
    took = {name: median(values[1:]) for name, values in times.items()}  # the first round warms up
    found = {f"{name}, problems/s": count / t for name, t in took.items() if name != "own"}
    found["prober's own ms a problem"] = 1000 * took["own"] / count
    found["committee's share of the sandbox"] = took["sandbox"] / took["committee"]
    if solver is not None:
        found["committee's share of sandbox and engine"] = took["sandbox and vote sampling"] / took["committee"]
        found["prober's share of the engine"] = took["probe sampling"] / took["prober"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-engine", action="store_true", help="leave vLLM out: the sandbox's share only")
    args = parser.parse_args()
    found = asyncio.run(measure(args.problems, args.rounds, not args.no_engine))
    tell(found, args.json)


if __name__ == "__main__":
    main()
