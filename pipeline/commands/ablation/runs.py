"""Trains and measures every (arm, seed) of a grid, seed by seed.

    <root>/config.yaml, stages/ablate.json   the config without overrides, what every arm gets
    <root>/start/<arm>/<seed>/               a run: skill library and SFT; the full method's is shared by most arms
    <root>/sweep/<arm>/<rate>/<seed>/        a run: an arm at a rate of the sweep, at a seed that is not measured
    <root>/arms/<arm>/<seed>/                a run: its MGPO (if it has one), its measurement in stages/measure.json, at
                                             equal tokens in stages/measure-<comparison>.json, the score of its solver
                                             in stages/downstream.json; of a gate one such folder a round
    <root>/rows.jsonl                        a line for each finished (arm, seed)
    <root>/table.json, table.md, table.html

Invariant: of a (arm, seed) what is in stages/ is done and never touched again; one that was interrupted goes on as any
run does. Solvers can be left out, and trained by a later call. All arms have the same budgets: the same number of
teacher episodes, of MGPO steps and episodes, of measured episodes, and for a solver's problems of episodes or of
tokens; what a longer loop spends more is evened out by a second measurement, where it had sampled as many tokens as the
arm that sampled fewest. Solver base and benchmark are the same files from the first seed to the last.

The pools that judge stay up from one arm to the next that is judged alike; only what holds a policy is started anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import domains, stages
from pipeline.commands import driver
from pipeline.commands.ablation import measure, plan, rounds, rows, table
from pipeline.commands.ablation.grid import ARMS, COMPARISONS, FULL, TUNING_SEED, Budget, Counts, arms_of
from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.pools.cluster import Cluster
from pipeline.records import Failure
from pipeline.scoring import benchmarks
from pipeline.store import metrics
from pipeline.store.digests import digest, files_below
from pipeline.store.identity import refuse_another
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress

_WRITTEN = ("downstream_episodes", "downstream_tokens")
_FIXED = {"solve.base": "the solver's base", "evaluate.benchmark": "the benchmark"}
"""What no seed may have otherwise than another, by its content."""
Configure = Callable[[Sequence[str]], Config]
"""The user's config with further overrides."""


def ablate(configure: Configure, root: Path, comparisons: tuple[str, ...], counts: Counts) -> dict[str, Any]:
    """Run what is missing of the grid, and write the table of what there is; returns it."""
    root, config = root.absolute(), configure(())
    _refuse_without_truth(config, comparisons)
    arms = arms_of(comparisons)
    solvers = any(ARMS[arm].gate or counts.solver(arm, comparisons) for arm in arms)
    downstream = counts.downstream if solvers else Budget()
    budget = {
        "sft_episodes": config.sft.trajectories,
        "mgpo_steps": config.mgpo.steps,
        "mgpo_episodes_a_step": config.mgpo.groups * config.mgpo.group_size,
        "measured_episodes": counts.episodes,
        "downstream_episodes": downstream.episodes,
        "downstream_tokens": downstream.tokens,
    }
    with closing(RunDir.open(root, config)) as run, Progress() as progress:
        _adopt(run, budget, fixed(config))
        for line in plan.lines(rows.read(root), comparisons, counts.seeds):
            progress.say("power", line)
        cluster = Cluster(config, root)
        grid = _Grid(configure, run, cluster, progress, comparisons, counts)
        asyncio.run(driver.closing(cluster, grid.run()))
        return write_table(run, comparisons, counts)


def write_table(root: RunDir, comparisons: tuple[str, ...], counts: Counts) -> dict[str, Any]:
    """The rows of what is finished; the table of these comparisons and seeds, as JSON, Markdown and HTML in `root`."""
    arms, curves = arms_of(comparisons), dict[str, list[list[dict[str, Any]]]]()
    wanted = [row for row in rows.write(root) if row["arm"] in arms and row["seed"] < counts.seeds]
    for row in wanted:
        if of_training := metrics.read(RunDir(root.path("arms", row["arm"], str(row["seed"])))).get("mgpo"):
            curves.setdefault(row["arm"], []).append(of_training)
    adopted = _adopted(root)
    found = table.make(wanted, comparisons, adopted["budget"], adopted["fixed"], _swept(root.root))
    root.write_json("table.json", found)
    root.write_text("table.md", table.markdown(found))
    root.write_text("table.html", table.page(found, curves))
    return found


# ---------------------------------------------------------------- what all seeds have in common


def fixed(config: Config) -> dict[str, str]:
    """The files that a solver begins with and is measured by, as the config names them, with their SHA-256. Raises
    Failure for a file that is not there."""
    domain, evaluate = domains.of(config.domain), config.evaluate
    base = domain.model(config.solve.base.path)
    files = benchmarks.files(domain, evaluate.benchmark, evaluate.mapping())
    contents = {
        "solve.base": {name: digest(base / name)[1] for name in files_below(base)},
        "evaluate.benchmark": {path.name: digest(path)[1] for path in files},
    }
    return {name: hashlib.sha256(repr(sorted(c.items())).encode()).hexdigest() for name, c in contents.items()}


def _refuse_another(run: RunDir, before: dict[str, str], now: dict[str, str]) -> None:
    for name, what in _FIXED.items():
        if before.get(name, now[name]) != now[name]:
            raise Failure(
                f"{run.root}: {name}: {what} was sha256 {before[name][:12]}, is now {now[name][:12]}, and seeds would "
                "not be comparable; expected the same files, or another --run-dir"
            )


def _refuse_without_truth(config: Config, comparisons: Sequence[str]) -> None:
    """Before anything is trained, not behind it. Raises Failure for a comparison that needs to know right answers in a
    domain that knows none."""
    domain = domains.of(config.domain)
    for name in comparisons:
        arms = [ARMS[arm] for arm in COMPARISONS[name].arms]
        try:
            if any(arm.data == "generator" for arm in arms):
                domain.sound_problems(1, config.seed)
            if any(arm.gate for arm in arms):
                domain.adversary()
        except Failure:
            raise Failure(
                f"{name}: it needs problems whose answers are known to be right, and this domain "
                "knows none; expected domain mini, or --only without it"
            ) from None


def _adopt(run: RunDir, budget: dict[str, int], files: dict[str, str]) -> None:
    """Raises Failure where the directory's arms had another budget, or another solver or benchmark. No budget for a
    solver goes with any."""
    if run.result("ablate"):
        adopted = _adopted(run)
        before = {"downstream_tokens": 0} | adopted["budget"]  # which earlier versions did not know
        for one, other in ((budget, before), (before, budget)):
            if not any(one[name] for name in _WRITTEN):
                one |= {name: other[name] for name in _WRITTEN}
        for name, now in budget.items():
            if before[name] != now:
                raise Failure(f"{run.root}: {name} was {before[name]}, is now {now}; take another --run-dir")
        _refuse_another(run, adopted["fixed"], files)
    run.finish("ablate", {**budget, "fixed": files}, 0.0)


def _adopted(run: RunDir) -> dict[str, Any]:
    done = run.result("ablate")
    assert done is not None
    budget = dict(done["result"])
    return {"fixed": budget.pop("fixed", {}), "budget": budget}


def _swept(root: Path) -> dict[str, dict[str, float]]:
    """Arm -> rate -> what the arm came to at it."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((root / "sweep").glob(f"*/*/{TUNING_SEED}"), key=lambda p: (p.parts[-3], float(p.parts[-2]))):
        if done := RunDir(path).result("measure"):
            found.setdefault(path.parts[-3], {})[path.parts[-2]] = done["result"]["solved_yield_per_1k"]
    return found


# ---------------------------------------------------------------- the grid


class _Grid:
    """The runs of an ablation, one after another over one cluster."""

    def __init__(
        self,
        configure: Configure,
        run: RunDir,
        cluster: Cluster,
        progress: Progress,
        comparisons: tuple[str, ...],
        counts: Counts,
    ):
        self._configure, self._run, self._root = configure, run, run.root
        self._cluster, self._progress = cluster, progress
        self._comparisons, self._counts = comparisons, counts
        self._judges: object = None

    async def run(self) -> None:
        arms, files = arms_of(self._comparisons), _adopted(self._run)["fixed"]
        for seed in range(self._counts.seeds):
            _refuse_another(self._run, files, fixed(self._configure(())))  # they may have been made again meanwhile
            missing = [a for a in arms if not self._finished(a, seed)]
            for arm in arms:
                if arm not in missing:
                    self._refuse_another_arm(arm, seed)
                    self._progress.skip(f"{arm}, seed {seed}")
            for arm in missing:
                self._progress.say(f"{arm}, seed {seed}", ARMS[arm].meaning)
                await (self._gate(arm, seed) if ARMS[arm].gate else self._arm(arm, seed))
                rows.write(self._run)
            for name in self._comparisons:
                if COMPARISONS[name].by_tokens:
                    await self._at_equal_tokens(name, seed)
            write_table(self._run, self._comparisons, self._counts)

    async def _arm(self, arm: str, seed: int) -> None:
        own = ARMS[arm]
        start = await self._start(own.start, seed) if own.start is not None else None
        rate = (f"mgpo.lr={await self._rate(arm)}",) if own.sweep else ()
        with self._open(self._path("arms", arm, seed), (*own.overrides, *rate), seed) as context:
            await self._turn_to(context.config)
            proposer = None
            if start is not None:
                _share(start, context.run)
                proposer = await _proposer(context, arm)
            if proposer is not None and self._counts.measures(arm, self._comparisons):
                await self._measured(context, proposer)
            if self._counts.solver(arm, self._comparisons) and context.run.result("downstream") is None:
                began = time.monotonic()
                found = await self._solver(context, arm, proposer, seed)
                context.run.finish("downstream", found, time.monotonic() - began)

    async def _solver(self, context: Context, arm: str, proposer: Path | None, seed: int) -> dict[str, Any]:
        match ARMS[arm].data:
            case "none":
                return await measure.untrained(context)
            case "generator":
                written = RunDir(self._path("arms", FULL, seed)).result("downstream")
                return await measure.of_generator(context, written["result"]["problems"] if written else 0)
            case "written":
                return await measure.solver(context, proposer, self._counts.downstream)

    async def _measured(
        self,
        context: Context,
        proposer: Path,
        name: str = "measure",
        heldout: bool = True,
        facts: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """What the proposer writes, by the rewards of the grid: an arm may be trained by others."""
        if (done := context.run.result(name)) is None:
            began = time.monotonic()
            rated = context.config.model_copy(update={"reward": self._configure(()).reward})
            figures = await measure.run(replace(context, config=rated), proposer, self._counts.episodes, name, heldout)
            context.run.finish(name, figures | (facts or {}), time.monotonic() - began)
            done = context.run.result(name)
            assert done is not None
        figures = done["result"]
        return figures

    async def _rate(self, arm: str) -> float:
        """The learning rate of the sweep at which the arm's proposer does best on combinations that training uses."""
        found = {}
        start = await self._start(FULL, TUNING_SEED)
        for rate in self._counts.rates:
            root = self._root / "sweep" / arm / f"{rate:g}" / str(TUNING_SEED)
            with self._open(root, (*ARMS[arm].overrides, f"mgpo.lr={rate}"), TUNING_SEED) as context:
                if context.run.result("measure") is None:
                    self._progress.say(f"{arm}, sweep", f"learning rate {rate:g}")
                    await self._turn_to(context.config)
                    _share(start, context.run)
                    await self._measured(context, await _proposer(context, arm), heldout=False)
                done = context.run.result("measure")
                assert done is not None
                found[rate] = done["result"]["solved_yield_per_1k"]
        return max(found, key=lambda rate: found[rate])

    async def _at_equal_tokens(self, name: str, seed: int) -> None:
        """Measure each trained arm of a comparison again at the checkpoint by which it had sampled as many tokens as
        the arm that sampled fewest; that one has been. An arm without such a checkpoint stays out, and all of them
        do where the tokens of one are not known any more."""
        runs = {arm: RunDir(self._path("arms", arm, seed)) for arm in COMPARISONS[name].arms}
        tokens = {arm: rows.sampled(run) for arm, run in runs.items()}
        if not all(tokens.values()):
            return
        least = min(t[-1] for t in tokens.values())
        stage = f"measure-{name}"
        for arm, run in runs.items():
            if run.result(stage) is not None:
                continue
            known = [int(p.name.removeprefix("step-")) for p in run.path("checkpoints", "mgpo").glob("step-*")]
            if (step := nearest(tokens[arm], known, least)) is None:
                continue
            facts = {"step": step, "tokens": tokens[arm][step - 1]}
            _, made = RunDir.read(run.root)
            with self._open(run.root, _overrides(arm, made), seed) as context:
                if step == len(tokens[arm]):
                    done = context.run.result("measure")
                    assert done is not None
                    context.run.finish(stage, done["result"] | facts, 0.0)
                    continue
                self._progress.say(f"{arm}, seed {seed}", f"at {facts['tokens']} tokens, as all of {name}")
                await self._turn_to(context.config)
                checkpoint = context.run.path("checkpoints", "mgpo", f"step-{step:06d}")
                await self._measured(context, checkpoint, stage, facts=facts)

    async def _gate(self, arm: str, seed: int) -> None:
        """The rounds of a gate; both begin with the full method's SFT."""
        own, before = ARMS[arm], None
        start = await self._start(FULL, seed)
        for number, root in enumerate(rows.played(self._root, arm, seed), start=1):
            with self._open(root, (*own.overrides, *rounds.settings(before)), seed) as context:
                if context.run.result("round") is None:
                    self._progress.say(f"{arm}, seed {seed}", f"round {number}")
                    await self._turn_to(context.config)
                    _share(start, context.run)
                    if before is not None and context.result_of("sft")["checkpoint"] != before["proposer"]:
                        context.run.finish("sft", context.result_of("sft") | {"checkpoint": before["proposer"]}, 0.0)
                    began = time.monotonic()
                    found = await rounds.play(context, self._counts.downstream)
                    context.run.finish("round", found, time.monotonic() - began)
                done = context.run.result("round")
                assert done is not None
                before = done["result"]

    def _finished(self, arm: str, seed: int) -> bool:
        if ARMS[arm].gate:
            return all(RunDir(path).result("round") for path in rows.played(self._root, arm, seed))
        wanted = [
            *(["measure"] if self._counts.measures(arm, self._comparisons) else []),
            *(["downstream"] if self._counts.solver(arm, self._comparisons) else []),
        ]
        stages = self._path("arms", arm, seed) / "stages"
        return all((stages / f"{name}.json").is_file() for name in wanted)

    def _refuse_another_arm(self, arm: str, seed: int) -> None:
        """Raises Failure where what is finished under the arm's name had other overrides: those of an earlier grid."""
        root = self._path("arms", arm, seed)
        run, made = RunDir.read(root / "round-1" if ARMS[arm].gate else root)
        config = self._configure((*_overrides(arm, made), f"seed={seed}"))
        refuse_another(made.model_dump(mode="json"), config, f"run directory {run.root}", "--run-dir")

    async def _start(self, arm: str, seed: int) -> Path:
        """Skill library and SFT, made once."""
        root = self._path("start", arm, seed)
        if not (root / "stages" / "sft.json").is_file():
            with self._open(root, ARMS[arm].overrides, seed) as context:
                await self._turn_to(context.config)
                await stages.run(context, "acquire")
                await stages.run(context, "sft")
        return root

    async def _turn_to(self, config: Config) -> None:
        """Have the pools of this config, whatever those up now are of."""
        judges = (config.committee, config.prober)
        if self._judges not in (None, judges):
            await self._cluster.restart(whole=True)
        self._judges = judges
        await self._cluster.renew(config)

    def _path(self, kind: str, arm: str, seed: int) -> Path:
        return self._root / kind / arm / str(seed)

    @contextmanager
    def _open(self, root: Path, overrides: Sequence[str], seed: int) -> Iterator[Context]:
        config = self._configure((*overrides, f"seed={seed}"))
        run = RunDir.open(root, config)
        try:
            with Metrics(run) as log:
                yield Context(config, run, self._cluster, log, self._progress)
        finally:
            run.close()


def _overrides(arm: str, made: Config) -> tuple[str, ...]:
    """Of an arm that was trained, with the rate that the sweep gave it."""
    return (*ARMS[arm].overrides, *([f"mgpo.lr={made.mgpo.lr}"] if ARMS[arm].sweep else []))


_EQUAL = 0.1
"""By this share two numbers of tokens may differ and count as equal."""


def nearest(tokens: Sequence[int], steps: Sequence[int], wanted: int) -> int | None:
    """Of these steps the one by whose end nearest to so many tokens were sampled; None where that is not near."""
    best = min(steps, key=lambda step: abs(tokens[step - 1] - wanted), default=None)
    return None if best is None or abs(tokens[best - 1] - wanted) > _EQUAL * wanted else best


def _share(start: Path, run: RunDir) -> None:
    """Let a run begin where the SFT of its seed ended."""
    for part in ("skills", "steps/sft", "ledger/sft"):
        shutil.copytree(start / part, run.path(part), dirs_exist_ok=True)
    for stage in ("acquire", "sft"):
        if not run.path("stages", f"{stage}.json").is_file():
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
