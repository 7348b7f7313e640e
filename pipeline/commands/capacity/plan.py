"""The plan of a stage's pools: rate, which of them binds, how many replicas would do, hours and money.

Invariant: counts are the config's, times are a run's or a file's, and nothing else is put in. All replicas that a pool
may have are there all the time, and nothing fails; so what it says is what to hope for, and what to size by.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

from pipeline.commands import memory
from pipeline.commands.capacity.layout import MACHINE, layout, writer_of
from pipeline.commands.capacity.times import KINDS, SHARED, Times
from pipeline.commands.capacity.workload import Group, Seen, Steps, capacity, machines_for, simulate
from pipeline.commands.tables import columns, duration
from pipeline.config import Config, PoolConfig
from pipeline.pools.gpus import reserved
from pipeline.records import Failure

BINDS = 0.8
"""Busy for this share of what it could do, a pool is what binds."""
_ROOM = 0.85
"""Replicas that would do are busy for this share."""
_SIMULATED = 200_000
"""Episodes simulated, about."""
_LEAST = {"mgpo": 2, "synthesize": 1}
"""Steps simulated at least."""
_MOST_STEPS = 30
TRAINER = "trainer"


@dataclass(frozen=True)
class Prices:
    """Of an hour."""

    gpu: float | None
    cpu: float | None

    def of(self, gpu_hours: float, cpu_hours: float) -> float | None:
        """None where none was given."""
        if self.gpu is None and self.cpu is None:
            return None
        return gpu_hours * (self.gpu or 0.0) + cpu_hours * (self.cpu or 0.0)


@dataclass(frozen=True)
class Rate:
    """Of a run, as measured."""

    episodes: int
    seconds: float

    @property
    def hourly(self) -> float:
        return 3600 * self.episodes / self.seconds


def steps_of(config: Config, stage: str, kept: float) -> Steps:
    """All steps of a stage; of `synthesize`, those that its target takes at this share of episodes that are kept.
    Raises Failure where none are."""
    if stage == "mgpo":
        m = config.mgpo
        seats = writer_of(config, stage).calls
        return Steps(m.steps, m.groups * m.group_size, 2 * seats, m.max_staleness, config.trainer.workers)
    s = config.synthesize
    if kept == 0:
        rows = "handed in" if s.filter == "none" else "accepted and solved"
        raise Failure(f"times: of the episodes none is {rows}; expected some, to plan for synthesize.target")
    size, most = s.in_flight, min(s.max_episodes, s.target_episodes or s.max_episodes)
    return Steps(min(ceil(s.target / (size * kept)), ceil(most / size)), size, size, None)


def _as_rows(config: Config, stage: str, times: Times) -> Times:
    """With what counts under this config as what is kept: where nothing is filtered, whatever is handed in. Those that
    a run counted out as copies are not known apart, and are counted in."""
    if stage != "synthesize" or config.synthesize.filter == "committee":
        return times
    return replace(times, traces=[trace._replace(kept=trace.judging is not None) for trace in times.traces])


def split(groups: Sequence[Group], each: dict[str, float], times: Times, gpus: float) -> list[Group]:
    """The groups with so many machines that `gpus` together do most; `each`: GPUs of one machine, 0 for those that
    stay as they are. Raises Failure where there are too few."""
    scaled = [g for g in groups if each.get(g.name, 0) and capacity(g, times) < inf]
    one = sum(each.get(g.name, 0) * (1 if g in scaled else g.machines) for g in groups)
    if one > gpus or not scaled:
        told = ", ".join(f"{g.name} {each[g.name]:g}" for g in groups if each.get(g.name)) or "no pool any"
        raise Failure(
            f"--gpus: beside the trainer's, {gpus:g} are left; a replica of each takes {told}, {one:g} together; "
            "expected as many or more, and pools that hold GPUs"
        )

    def sized(rate: float) -> list[Group]:
        return [replace(g, machines=machines_for(g, times, rate, 1.0)) if g in scaled else g for g in groups]

    def fits(rate: float) -> bool:
        return sum(each.get(g.name, 0) * g.machines for g in sized(rate)) <= gpus

    low, high = 0.0, sum(capacity(g, times) / g.machines for g in scaled) * gpus / min(each[g.name] for g in scaled)
    for _ in range(60):
        low, high = ((low + high) / 2, high) if fits((low + high) / 2) else (low, (low + high) / 2)
    return sized(low)


def plan(
    config: Config,
    stage: str,
    times: Times,
    prices: Prices,
    gpus: int | None = None,
    seed: int = 0,
    measured: Rate | None = None,
    gpu_bytes: int | None = None,
    host_bytes: int | None = None,
) -> dict[str, Any]:
    """The keys are `keys.POOLS_KEYS`. Raises Failure."""
    times = _as_rows(config, stage, times)
    groups, whole = layout(config, stage), steps_of(config, stage, times.kept)
    each, trainers = _gpus(config, stage)
    if gpus is not None:
        groups = split(groups, each, times, gpus - trainers)
    simulated = replace(whole, count=min(whole.count, max(_LEAST[stage], min(_MOST_STEPS, _SIMULATED // whole.tasks))))
    began = time.monotonic()
    seen = simulate(groups, times, simulated, seed)
    took = time.monotonic() - began
    rate = seen.episodes / seen.seconds
    pools = {group.name: _row(group, times, rate, seen, each.get(group.name, 0.0)) for group in groups}
    if stage == "mgpo" and times.token_s:
        pools[TRAINER] = _trainer_row(config, times, rate, seen, trainers)
    limit = min((row["most_per_hour"] for row in pools.values() if row["most_per_hour"] is not None), default=None)
    for group in groups:
        pools[group.name]["enough"] = None if limit is None else machines_for(group, times, limit / 3600, _ROOM)
    if MACHINE in pools:
        pools[MACHINE]["enough"] = None
    seconds = seen.seconds * whole.count / simulated.count
    held = sum(each.get(group.name, 0.0) * group.machines for group in groups) + trainers
    cpus = _cpus(config, stage, groups)
    kept_hourly = 3600 * seen.kept / seen.seconds
    hours = 1000 / kept_hourly if kept_hourly else None
    needs = memory.plan(config, [stage], gpu_bytes, host_bytes)
    return {
        "stage": stage,
        "steps": whole.count,
        "episodes": whole.count * whole.tasks,
        "seconds": round(seconds, 1),
        "episodes_per_hour": round(3600 * rate, 1),
        "accepted_per_hour": round(kept_hourly, 1),
        "unfiltered": stage == "synthesize" and config.synthesize.filter == "none",
        "binds": _binds(stage, pools),
        "pools": pools,
        "gpus": held,
        "cpus": round(cpus, 2),
        "gpu_hours": round(held * seconds / 3600, 3),
        "per_1000": {
            "hours": hours,
            "gpu_hours": None if hours is None else held * hours,
            "cpu_hours": None if hours is None else cpus * hours,
            "money": None if hours is None else prices.of(held * hours, cpus * hours),
        },
        "memory": [{k: row[k] for k in ("process", "where", "peak_gb")} for row in needs["stages"][stage]],
        "refused": needs["refused"],
        "times": _times(times),
        "measured": None if measured is None else _against(measured, 3600 * rate),
        "simulated": {
            "steps": simulated.count,
            "episodes": seen.episodes,
            "events": seen.events,
            "took_s": round(took, 2),
        },
    }


def _row(group: Group, times: Times, rate: float, seen: Seen, gpus: float) -> dict[str, Any]:
    most = capacity(group, times)
    return {
        "replicas": group.machines,
        "gpus": gpus * group.machines,
        "busy": round(rate / most, 3),
        "most_per_hour": round(3600 * most, 1) if most < inf else None,
        "under_way": {kind: round(seen.held[kind], 2) for kind in group.seats},
        "waited_s": {kind: round(seen.waited_s[kind], 3) for kind in group.seats},
    }


def _trainer_row(config: Config, times: Times, rate: float, seen: Seen, gpus: float) -> dict[str, Any]:
    workers = config.trainer.workers
    most = workers / (times.token_s * times.workers * times.tokens)
    return {
        "replicas": workers,
        "gpus": gpus,
        "busy": round(seen.training_s / seen.seconds, 3),
        "most_per_hour": round(3600 * most, 1),
        "under_way": {},
        "waited_s": {},
        "enough": None,
    }


def _binds(stage: str, pools: dict[str, dict[str, Any]]) -> str:
    busiest = max(pools, key=lambda name: pools[name]["busy"])
    if pools[busiest]["busy"] >= BINDS:
        return busiest
    return "mgpo.max_staleness" if stage == "mgpo" and pools.get(TRAINER, {"busy": 0})["busy"] > 0.1 else {
        "mgpo": "mgpo.groups", "synthesize": "synthesize.in_flight",
    }[stage]  # fmt: skip


def _gpus(config: Config, stage: str) -> tuple[dict[str, float], float]:
    """Group -> GPUs of a machine, and the trainer's."""
    ladder, writer = config.prober.ladder, writer_of(config, stage)
    replicas = sum(model.pool.max_replicas for model in ladder)
    each = {
        writer.name: writer.gpus,
        "prober.ladder": sum(model.pool.num_gpus * model.pool.max_replicas for model in ladder) / replicas,
        "committee.judge": config.committee.judge.pool.num_gpus if config.committee.judge is not None else 0.0,
    }
    trainer = sum(one.most for one in reserved(config, [stage])[stage] if one.model is None)
    return each, trainer


def _cpus(config: Config, stage: str, groups: Sequence[Group]) -> float:
    """Logical CPUs that replicas and trainer reserve."""
    writer, ladder = writer_of(config, stage), config.prober.ladder
    machines = {group.name: group.machines for group in groups}
    of_writers = machines.get(writer.name, writer.replicas) / writer.replicas
    served: list[tuple[PoolConfig, float]] = [(pool, pool.max_replicas * of_writers) for pool in writer.pools]
    share = machines.get("prober.ladder", 0) / sum(model.pool.max_replicas for model in ladder) or 1.0
    served += [(model.pool, model.pool.max_replicas * share) for model in ladder]
    if config.committee.judge is not None:
        judge = config.committee.judge.pool
        served.append((judge, machines.get("committee.judge", judge.max_replicas)))
    served += [(pool, pool.max_replicas) for pool in (config.committee.pool, config.prober.pool, config.sandbox.pool)]
    trainer = config.trainer.workers * config.trainer.num_cpus if stage == "mgpo" else 0.0
    return sum(pool.num_cpus * replicas for pool, replicas in served) + trainer


def _times(times: Times) -> dict[str, Any]:
    work = times.work()
    return {
        "alone_s": {kind: round(work[kind], 4) for kind in KINDS},
        "slowdown": {kind: dict(times.slowdown.get(kind, {})) for kind in SHARED},
        "token_s": times.token_s,
        "step_s": round(times.step_s, 3),
        "between_s": round(times.between_s, 3),
        "tokens": round(times.tokens, 1),
        "kept": round(times.kept, 4),
        "episodes": len(times.traces),
    }


def _against(measured: Rate, predicted: float) -> dict[str, float]:
    return {
        "episodes": measured.episodes,
        "seconds": round(measured.seconds, 1),
        "episodes_per_hour": round(measured.hourly, 1),
        "off": round(predicted / measured.hourly - 1, 4),
    }


def render(found: dict[str, Any]) -> str:
    rows = [("pool", "replicas", "GPUs", "busy", "would do", "episodes/h at most")]
    for name, row in found["pools"].items():
        most = "-" if row["most_per_hour"] is None else f"{row['most_per_hour']:,.0f}"
        enough = "-" if row["enough"] is None else str(row["enough"])
        rows.append((name, str(row["replicas"]), f"{row['gpus']:g}", f"{row['busy']:.0%}", enough, most))
    of_1000 = found["per_1000"]
    lines = [
        f"{found['stage']}: {found['steps']} steps, {found['episodes']:,} episodes, about {duration(found['seconds'])}",
        f"{found['episodes_per_hour']:,.0f} episodes an hour, of which {found['accepted_per_hour']:,.0f} are "
        + ("handed in" if found["unfiltered"] else "accepted, solved and new"),
        f"binds: {found['binds']}",
        columns(rows, right=(1, 2, 3, 4, 5)),
        f"{found['gpus']:g} GPUs, {found['gpu_hours']:g} GPU-hours for the stage",
    ]
    if of_1000["hours"] is not None:
        money = "" if of_1000["money"] is None else f", {of_1000['money']:,.2f} in money"
        lines.append(
            f"1,000 {'rows' if found['unfiltered'] else 'accepted'}: {of_1000['hours']:.3g} h, "
            f"{of_1000['gpu_hours']:.3g} GPU-hours, {of_1000['cpu_hours']:.3g} hours of a reserved CPU{money}"
        )
    alone = ", ".join(f"{kind} {s:.3g} s" for kind, s in found["times"]["alone_s"].items())
    lines.append(f"an episode takes, alone: {alone}; {found['times']['episodes']} episodes are drawn from")
    lines += [f"one {m['process']} holds {m['peak_gb']:g} GB ({m['where']})" for m in found["memory"]]
    lines += [f"would be refused: {line}" for line in found["refused"]]
    if (run := found["measured"]) is not None:
        lines.append(
            f"measured: {run['episodes']} episodes in {duration(run['seconds'])}, {run['episodes_per_hour']:,.0f} an "
            f"hour; the plan is {run['off']:+.1%} off"
        )
    s = found["simulated"]
    lines.append(f"simulated: {s['steps']} steps, {s['episodes']:,} episodes in {s['took_s']:g} s")
    return "\n".join(lines)
