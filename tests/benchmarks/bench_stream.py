"""Sampling inside `mgpo` against a bare engine: rollout tokens/s as a share of what AsyncLLM does on the same requests.

    python -m tests.benchmarks.bench_stream RUN [--groups 10] [--rounds 3] [--set a.b=c] [--json FILE]

RUN is a run directory whose SFT is done. The same tasks, with the same seeds, are played in each round:

  mgpo      as a step of `mgpo` plays them: proposer, committee and prober pools, buffer and ledger. The time is that
            from the first task to the last episode, the sampling part; verdicts and probes of earlier episodes share
            the cores with it
  stream    the same with judges that answer at once: what Serve, the episode loop, tools, shipping and ledger cost
  in order  a bare AsyncLLM: the recorded prompt of each turn, its recorded number of tokens, one turn of an episode
            after another, as many episodes at once as `mgpo` has
  at once   the same requests, all turns of all episodes side by side: what the engine could do if no turn had to wait
            for the one before

Rounds alternate, so that load hits all alike; medians are reported. For `mgpo` and `stream` it also shows how many
cores each pool used meanwhile (an engine counts to its replica).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil

from actors.calls import within
from actors.engine import PolicyEngine
from pipeline.commands import driver
from pipeline.config import loading
from pipeline.flow.context import Context
from pipeline.flow.stream import Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.pools.cluster import Cluster
from pipeline.records import Episode, Probe, Problem, Rollout, Task, Verdict
from pipeline.skills import probing
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import parse, records
from pipeline.watch.fanout import map_bounded
from pipeline.watch.progress import Progress
from tests.benchmarks.sides import tell
from tests.pipeline.judged import Remote, probe, verdict

Request = tuple[list[int], int, int]
"""(prompt, tokens to sample, seed)."""


class Noting:
    """The proposer's handle, which notes each episode as it comes back."""

    def __init__(self, proposer: Any):
        self._proposer = proposer
        self.episode = self
        self.played: list[Episode] = []
        self.last = 0.0

    async def remote(self, task: Task, attempt: int) -> Episode:
        episode: Episode = await self._proposer.episode.remote(task, attempt)
        self.played.append(episode)
        self.last = time.perf_counter()
        return episode


class Instant:
    """Handle of judges that have nothing to think about."""

    def __init__(self) -> None:
        self.judge = Remote(self._judge)
        self.probe = Remote(self._probe)

    async def _judge(self, _: Problem, episode: Episode, __: Sequence[str]) -> Verdict:
        return verdict(episode)

    async def _probe(self, problem: Problem, *_: Any) -> Probe:
        return probe(SimpleNamespace(submitted=problem))


class Usage:
    """CPU seconds of the driver's descendants, by pool."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self, seconds: float) -> dict[str, float]:
        return {
            pool: used / seconds for pool, used in (self._now() - self._before).most_common() if used > 0.02 * seconds
        }

    def _now(self) -> Counter[str]:
        used: Counter[str] = Counter()
        pools: dict[int, str] = {os.getpid(): "driver"}
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                command, times, parent = " ".join(process.cmdline()), process.cpu_times(), process.ppid()
            except psutil.Error:
                continue
            own = "driver" if process.pid == os.getpid() else _pool(command)
            pools[process.pid] = own or pools.get(parent, "Ray")
            used[pools[process.pid]] += times.user + times.system
        return used


def _pool(command: str) -> str | None:
    if replica := re.search(r"ServeReplica:[^:]*:([\w-]+)", command):
        return replica[1]
    if "RolloutBuffer" in command or "WeightStore" in command:
        return "buffer"
    return None


async def bare(llm: Any, sampling: Any, chains: Sequence[Sequence[Request]], at_once: int) -> float:
    """Tokens/s of chains of requests, each after the one before it."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    async def chain(numbered: tuple[int, Sequence[Request]]) -> None:
        for i, (prompt, tokens, seed) in enumerate(numbered[1]):
            params = SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=tokens, seed=seed, ignore_eos=True,
                logprobs=0, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY,
            )  # fmt: skip
            async for _ in llm.generate({"prompt_token_ids": prompt}, params, f"bare-{numbered[0]}-{i}"):
                pass

    began = time.perf_counter()
    await map_bounded(chain, list(enumerate(chains)), at_once)
    return sum(tokens for requests in chains for _, tokens, _ in requests) / (time.perf_counter() - began)


def turns_of(rollout: Rollout) -> list[Request]:
    """The requests that the episode made of the engine."""
    index = rollout.action_index
    starts = [i for i, action in enumerate(index) if action >= 0 and (i == 0 or index[i - 1] != action)]
    return [(list(rollout.token_ids[:start]), index.count(index[start]), index[start]) for start in starts]


async def measure(context: Context, checkpoint: Path, groups: int, rounds: int) -> dict[str, float]:
    config, cluster = context.config, context.cluster
    at_once = config.proposer.pool.max_ongoing * config.proposer.pool.max_replicas
    tasks = make_tasks(context, make_curriculum(context), "mgpo", 1, groups, config.mgpo.group_size)
    ladder = probing.prober(probing.Ladder(), config.prober)
    proposer, committee, prober = await asyncio.gather(
        cluster.proposer(checkpoint), cluster.committee(), cluster.prober()
    )
    engine = PolicyEngine(str(checkpoint), config.proposer.engine)
    await engine.start()
    rates: dict[str, list[float]] = defaultdict(list)
    cores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    async def pools(name: str, step: int, judges: Any, probes: Any) -> Noting:
        """One step's tasks through a stream over these pools."""
        ledger, noting = Ledger(context.run, name), Noting(proposer)
        ledger.begin(step)
        stream = Stream(config, noting, judges, probes, cluster.buffer()).step(ledger)
        usage, began = Usage(), time.perf_counter()
        await map_bounded(lambda task: stream.judged(task, ladder), tasks, 2 * at_once)  # as mgpo has it
        tokens, whole = sum(e.sampled_tokens for e in noting.played), time.perf_counter() - began
        for pool, used in usage.cores(whole).items():
            cores[name][pool].append(used)
        rates[name].append(tokens / (noting.last - began))
        rates[f"{name}, last verdict and probe included"].append(tokens / whole)
        ledger.close()
        return noting

    async def requests(played: Sequence[Episode]) -> list[list[Request]]:
        with tempfile.TemporaryDirectory() as folder:
            rows = [((e.id, e.attempt), [0.0] * len(e.turns), 0.0) for e in played]
            await within(cluster.buffer().write.remote(folder, rows), "rollout buffer", 60)
            path = Path(folder) / "rollouts.parquet"
            return [turns_of(r) for r in records(path, parse(path), Rollout)]

    try:
        for number in range(rounds + 1):
            await pools("mgpo", number + 1, committee, prober)
            recorded = await requests((await pools("stream", number + 1, Instant(), Instant())).played)
            flat = [[request] for requests in recorded for request in requests]
            sampling = config.episode.sampling
            rates["in order"].append(await bare(engine._llm, sampling, recorded, at_once))
            rates["at once"].append(await bare(engine._llm, sampling, flat, len(flat)))
    finally:
        engine.stop()
    rate = {name: median(values[1:]) for name, values in rates.items()}  # the first round warms up
    found = {f"{name}, tokens/s": value for name, value in rate.items()}
    for name in ("mgpo", "stream"):
        for of in ("in order", "at once"):
            found[f"{name}, share of bare {of}"] = rate[name] / rate[of]
        for pool, used in cores[name].items():
            found[f"{name}, cores used by {pool}"] = median(used)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="override, dotted")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    base, _ = RunDir.read(args.run)
    config = loading.load(args.run / "config.yaml", args.set)
    done = base.result("sft")
    assert done is not None, "the run's SFT is not done"
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.open(Path(folder) / "run", config)
        shutil.copytree(base.path("skills"), run.path("skills"))
        with Metrics(run) as metrics, Progress() as progress:
            context = Context(config, run, Cluster(config, run.root), metrics, progress)
            work = measure(context, Path(done["result"]["checkpoint"]), args.groups, args.rounds)
            found = asyncio.run(driver.closing(context.cluster, work))
        run.close()
    tell(found, args.json)


if __name__ == "__main__":
    main()
