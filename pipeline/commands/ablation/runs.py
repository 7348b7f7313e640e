"""Trains and measures every (arm, seed) of a grid.

    <root>/config.yaml, stages/ablate.json   the config without overrides, what every arm gets
    <root>/start/<arm>/<seed>/               a run: skill library and SFT; the full method's is shared by most arms
    <root>/arms/<arm>/<seed>/                a run: its MGPO (if it has one), its measurement in stages/measure.json,
                                             the score of its solver in stages/downstream.json
    <root>/table.json, table.md, table.html

Invariant: of a (arm, seed) what is in stages/ is done and never touched again; one that was interrupted goes on as any
run does. Solvers can be left out, and trained by a later call. All arms have the same budgets: the same number of
teacher episodes, of MGPO steps and episodes, of measured episodes, and for a solver's problems of episodes or of
tokens. Else tokens are not held equal (a longer loop spends more); the yield is per token for that reason.

The pools that judge stay up from one arm to the next; only what holds a policy is started anew.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline import stages
from pipeline.commands import driver
from pipeline.commands.ablation import measure, table
from pipeline.commands.ablation.grid import ARMS, Budget, arms_of
from pipeline.commands.ablation.measure import METRICS
from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.pools.cluster import Cluster
from pipeline.records import Failure
from pipeline.store import metrics
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress

_WRITTEN = ("downstream_episodes", "downstream_tokens")
Configure = Callable[[Sequence[str]], Config]
"""The user's config with further overrides."""


def ablate(
    configure: Configure, root: Path, comparisons: tuple[str, ...], seeds: int, episodes: int, downstream: Budget
) -> dict[str, Any]:
    """Run what is missing of the grid, and write the table of what there is; returns it.

    `episodes` are measured of each arm, `downstream` is written for its solver (nothing: none is trained).
    """
    root, config = root.absolute(), configure(())
    budget = {
        "sft_episodes": config.sft.trajectories,
        "mgpo_steps": config.mgpo.steps,
        "mgpo_episodes_a_step": config.mgpo.groups * config.mgpo.group_size,
        "measured_episodes": episodes,
        "downstream_episodes": downstream.episodes,
        "downstream_tokens": downstream.tokens,
    }
    with closing(RunDir.open(root, config)) as run, Progress() as progress:
        _adopt(run, budget)
        cluster = Cluster(config, root)
        grid = _Grid(configure, root, cluster, progress, episodes, downstream)
        asyncio.run(driver.closing(cluster, grid.run(arms_of(comparisons), seeds)))
        return write_table(run, comparisons, seeds)


def write_table(root: RunDir, comparisons: tuple[str, ...], seeds: int) -> dict[str, Any]:
    """The table of the finished (arm, seed) pairs, as JSON, Markdown and HTML in `root`."""
    figures: dict[str, dict[int, dict[str, Any]]] = {}
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for arm in arms_of(comparisons):
        for seed in range(seeds):
            run = RunDir(root.path("arms", arm, str(seed)))
            done, downstream = run.result("measure"), run.result("downstream")
            if done or (downstream and ARMS[arm].start is None):
                known = dict.fromkeys(METRICS) | (done["result"] if done else {})
                source = dict(downstream["result"]) if downstream else {"score": None}
                figures.setdefault(arm, {})[seed] = known | {"solver": source.pop("score"), "source": source}
                if rows := metrics.read(run).get("mgpo"):
                    curves.setdefault(arm, []).append(rows)
    found = table.make(figures, comparisons, _budget(root))
    root.write_json("table.json", found)
    root.write_text("table.md", table.markdown(found))
    root.write_text("table.html", table.page(found, curves))
    return found


def _adopt(run: RunDir, budget: dict[str, int]) -> None:
    """Raises Failure where the directory's arms had another budget. No solver has none: it goes with any."""
    if run.result("ablate"):
        before = {"downstream_tokens": 0} | _budget(run)  # which earlier versions did not know
        for one, other in ((budget, before), (before, budget)):
            if not any(one[name] for name in _WRITTEN):
                one |= {name: other[name] for name in _WRITTEN}
        for name, now in budget.items():
            if before[name] != now:
                raise Failure(f"{run.root}: {name} was {before[name]}, is now {now}; take another --run-dir")
    run.finish("ablate", budget, 0.0)


def _budget(run: RunDir) -> dict[str, int]:
    done = run.result("ablate")
    assert done is not None
    budget: dict[str, int] = done["result"]
    return budget


class _Grid:
    """The runs of an ablation, one after another over one cluster."""

    def __init__(
        self, configure: Configure, root: Path, cluster: Cluster, progress: Progress, episodes: int, downstream: Budget
    ):
        self._configure, self._root = configure, root
        self._cluster, self._progress = cluster, progress
        self._episodes, self._downstream = episodes, downstream

    async def run(self, arms: Sequence[str], seeds: int) -> None:
        for seed in range(seeds):
            missing = [a for a in arms if not self._finished(a, seed)]
            for arm in arms:
                if arm not in missing:
                    self._progress.skip(f"{arm}, seed {seed}")
            for arm in missing:
                self._progress.say(f"{arm}, seed {seed}", ARMS[arm].meaning)
                await self._arm(arm, seed)

    async def _arm(self, arm: str, seed: int) -> None:
        own = ARMS[arm]
        start = await self._start(own.start, seed) if own.start is not None else None
        with self._open(self._path("arms", arm, seed), own.overrides) as context:
            await self._cluster.renew(context.config)
            proposer = None
            if start is not None:
                _share(start, context.run)
                proposer = await _proposer(context, arm)
            if proposer is not None and context.run.result("measure") is None:
                began = time.monotonic()
                figures = await measure.run(context, proposer, self._episodes)
                context.run.finish("measure", figures, time.monotonic() - began)
            if self._downstream:
                began = time.monotonic()
                found = await measure.solver(context, proposer, self._downstream, own.writes)
                context.run.finish("downstream", found, time.monotonic() - began)

    def _finished(self, arm: str, seed: int) -> bool:
        wanted = [
            *(["measure"] if ARMS[arm].start is not None else []), *(["downstream"] if self._downstream else [])
        ]  # fmt: skip
        stages = self._path("arms", arm, seed) / "stages"
        return all((stages / f"{name}.json").is_file() for name in wanted)

    async def _start(self, arm: str, seed: int) -> Path:
        """Skill library and SFT, made once."""
        root = self._path("start", arm, seed)
        if not (root / "stages" / "sft.json").is_file():
            with self._open(root, ARMS[arm].overrides) as context:
                await self._cluster.renew(context.config)
                await stages.run(context, "acquire")
                await stages.run(context, "sft")
        return root

    def _path(self, kind: str, arm: str, seed: int) -> Path:
        return self._root / kind / arm / str(seed)

    @contextmanager
    def _open(self, root: Path, overrides: Sequence[str]) -> Iterator[Context]:
        """The run directory at `root`, whose name is its seed."""
        config = self._configure((*overrides, f"seed={root.name}"))
        run = RunDir.open(root, config)
        try:
            with Metrics(run) as log:
                yield Context(config, run, self._cluster, log, self._progress)
        finally:
            run.close()


def _share(start: Path, run: RunDir) -> None:
    """Let a run begin where the SFT of its seed ended."""
    for part in ("skills", "steps/sft", "ledger/sft"):
        shutil.copytree(start / part, run.path(part), dirs_exist_ok=True)
    for stage in ("acquire", "sft"):
        run.write_text(f"stages/{stage}.json", (start / "stages" / f"{stage}.json").read_text())


async def _proposer(context: Context, arm: str) -> Path:
    """The arm's policy, trained as far as the arm goes."""
    match ARMS[arm].trained:
        case "no":
            return context.domain.model(context.config.proposer.path)
        case "sft":
            return Path(context.result_of("sft")["checkpoint"])
        case "mgpo":
            return Path((await stages.run(context, "mgpo"))["checkpoint"])
