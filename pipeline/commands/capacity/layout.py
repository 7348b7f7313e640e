"""Which machines a config gives the pools of a stage.

Invariant: all replicas that a pool may have are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from pipeline.commands.capacity.times import Kind
from pipeline.commands.capacity.workload import Group
from pipeline.config import Config, ModelTeacherConfig, PoolConfig, asks_endpoint

MACHINE = "this machine"


@dataclass(frozen=True)
class Writer:
    """Who plays the tasks of a stage."""

    name: str
    """Of its machines: proposer, or teacher where problems are rewritten."""
    pools: Sequence[PoolConfig]
    """Whose replicas do the work."""
    calls: int
    """Under way at most."""
    here: bool
    """Nobody behind an endpoint is asked."""

    @property
    def replicas(self) -> int:
        return sum(pool.max_replicas for pool in self.pools)

    @property
    def gpus(self) -> float:
        """Of a replica, the mean."""
        return sum(pool.num_gpus * pool.max_replicas for pool in self.pools) / self.replicas


def layout(config: Config, stage: str) -> list[Group]:
    """The machines of a stage's pools, each replica that holds a model one; those of sandboxes have theirs in `slots`.

    A judge that is one of the probers works on their machines. Committee and prober wait for engines, so their own
    replicas say only how many calls there may be."""
    writer, judge = writer_of(config, stage), config.committee.judge
    seats_of_one = ceil(writer.calls / writer.replicas)
    judged, probed = (pool.max_replicas * pool.max_ongoing for pool in (config.committee.pool, config.prober.pool))
    probed = min(probed, sum(model.pool.max_replicas * model.pool.max_ongoing for model in config.prober.ladder))
    boxes = Group("sandbox", config.sandbox.pool.max_replicas, {"sandbox": config.sandbox.slots})
    if on_one_machine(config, stage):
        seats: dict[Kind, int] = {"proposer": writer.calls, "committee": judged, "prober": probed}
        return [Group(MACHINE, 1, seats), boxes]
    probers = sum(model.pool.max_replicas for model in config.prober.ladder)
    ladder: dict[Kind, int] = {"prober": ceil(probed / probers)}
    groups = [Group(writer.name, writer.replicas, {"proposer": seats_of_one})]
    if judge is None:
        return [*groups, Group("prober.ladder", probers, ladder | {"committee": ceil(judged / probers)}), boxes]
    judges = judge.pool.max_replicas
    return [
        *groups,
        Group("prober.ladder", probers, ladder),
        Group("committee.judge", judges, {"committee": ceil(min(judged, judges * judge.pool.max_ongoing) / judges)}),
        boxes,
    ]


def writer_of(config: Config, stage: str) -> Writer:
    if stage == "synthesize" and config.synthesize.rewrite is not None:
        return _rewriter(config)
    model = config.synthesize.proposer or config.proposer if stage == "synthesize" else config.proposer
    calls = model.pool.max_replicas * model.pool.max_ongoing
    return Writer("proposer", (model.pool,), calls, model.endpoint is None)


def _rewriter(config: Config) -> Writer:
    """The teacher, who is asked for problems made of seeds."""
    asks, teachers = config.teacher.pool, [teacher for _, teacher in config.teacher.each().values()]
    pools = [teacher.model.pool for teacher in teachers if isinstance(teacher, ModelTeacherConfig)] or [asks]
    seats = sum(pool.max_replicas * pool.max_ongoing for pool in pools)
    calls = min(asks.max_replicas * asks.max_ongoing, seats)
    return Writer("teacher", pools, calls, not any(asks_endpoint(teacher) for teacher in teachers))


def on_one_machine(config: Config, stage: str) -> bool:
    """Whether the stage's pools take turns on this machine's cores, and none has anything of its own."""
    writer = writer_of(config, stage)
    judging = (config.judge, *config.prober.ladder)
    elsewhere = any(model.pool.num_gpus or model.endpoint is not None for model in judging)
    return config.ray.joined is None and not elsewhere and writer.here and not writer.gpus
