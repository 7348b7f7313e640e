"""Which machines a config gives the pools of a stage.

Invariant: all replicas that a pool may have are there.
"""

from __future__ import annotations

from math import ceil

from pipeline.commands.capacity.times import Kind
from pipeline.commands.capacity.workload import Group
from pipeline.config import Config, ModelConfig

MACHINE = "this machine"


def layout(config: Config, stage: str) -> list[Group]:
    """The machines of a stage's pools, each replica that holds a model one; those of sandboxes have theirs in `slots`.

    A judge that is one of the probers works on their machines. Committee and prober wait for engines, so their own
    replicas say only how many calls there may be."""
    writer, judge = writer_of(config, stage), config.committee.judge
    judged, probed = (pool.max_replicas * pool.max_ongoing for pool in (config.committee.pool, config.prober.pool))
    probed = min(probed, sum(model.pool.max_replicas * model.pool.max_ongoing for model in config.prober.ladder))
    boxes = Group("sandbox", config.sandbox.pool.max_replicas, {"sandbox": config.sandbox.slots})
    playing = writer.pool.max_replicas, writer.pool.max_ongoing
    if on_one_machine(config):
        seats: dict[Kind, int] = {"proposer": playing[0] * playing[1], "committee": judged, "prober": probed}
        return [Group(MACHINE, 1, seats), boxes]
    probers = sum(model.pool.max_replicas for model in config.prober.ladder)
    ladder: dict[Kind, int] = {"prober": ceil(probed / probers)}
    groups = [Group("proposer", playing[0], {"proposer": playing[1]})]
    if judge is None:
        return [*groups, Group("prober.ladder", probers, ladder | {"committee": ceil(judged / probers)}), boxes]
    judges = judge.pool.max_replicas
    return [
        *groups,
        Group("prober.ladder", probers, ladder),
        Group("committee.judge", judges, {"committee": ceil(min(judged, judges * judge.pool.max_ongoing) / judges)}),
        boxes,
    ]


def writer_of(config: Config, stage: str) -> ModelConfig:
    return config.synthesize.proposer or config.proposer if stage == "synthesize" else config.proposer


def on_one_machine(config: Config) -> bool:
    """Whether the pools take turns on this machine's cores, and none has anything of its own."""
    models = (config.proposer, config.judge, *config.prober.ladder)
    return config.ray.joined is None and not any(model.pool.num_gpus or model.endpoint is not None for model in models)
