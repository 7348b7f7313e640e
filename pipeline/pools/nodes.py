"""What the nodes of a joined cluster see of the driver's files: the run directory, and the folders of models.

Checked once, before the first stage: a folder that only the driver's node has would fail a run after hours, when a
replica or a trainer starts on another. Asked is each node that is there now and is large enough for who uses the
folder.

Invariant: only looks, but for one empty file a node in a folder that is written to, which is taken away again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import domains
from pipeline.config import Config, ModelConfig, PoolConfig
from pipeline.pools.room import matches
from pipeline.records import Failure

_ANSWER_S = 120.0
"""How long a node may take to answer; it starts a process for that, and may unpack the job's package."""
_SYNC_S = 5.0
"""How long shared storage may take to show one node what another has written."""


@dataclass(frozen=True)
class Shared:
    """A folder that other nodes use."""

    what: str
    """In a message: "run directory", or the field of the config that names it."""
    folder: str
    needs: dict[str, float]
    """What who uses it asks of a node."""
    mark: str | None = None
    """A file that the driver has put there; None where nothing is written."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What a node must be labelled for that."""


async def check(config: Config, root: Path, models: Mapping[str, ModelConfig]) -> None:
    """Raises Failure, a line for each node and folder that it does not see. `models`: those that will be served or
    trained, by the field that names them."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not nodes:
        return
    mark = f".seen-{uuid.uuid4().hex[:8]}"
    (root / mark).touch()
    try:
        wanted = list(shared(config, root, mark, models))
        found = await asyncio.gather(*(_ask(node, wanted) for node in nodes))
    finally:
        with contextlib.suppress(OSError):
            (root / mark).unlink()
    if wrong := [line for lines in found for line in lines]:
        raise Failure(wrong[0] if len(wrong) == 1 else "\n  ".join(["not every node sees what it needs", *wrong]))


def shared(config: Config, root: Path, mark: str, models: Mapping[str, ModelConfig]) -> list[Shared]:
    """What other nodes use: trainers write into the run directory, replicas load the checkpoints there, and both load
    the models that a run begins with."""
    t = config.trainer
    trainer = {"CPU": t.num_cpus, **({"GPU": 1.0} if t.use_gpu else {}), **t.resources}
    trained = {"proposer.path": config.proposer, "solve.base.path": config.solve.base}
    training: list[tuple[dict[str, float], Mapping[str, str]]] = [(trainer, t.labels)]
    serving = [(of_pool(model.pool), model.pool.labels) for model in trained.values() if model.endpoint is None]
    found = [Shared("run directory", str(root), needs, mark, on) for needs, on in (*training, *serving)]
    if config.ray.labels:
        found.append(Shared("run directory", str(root), {}, mark, config.ray.labels))
    for name, model in models.items():
        folder, served = str(domains.of(config.domain).model(model.path)), (of_pool(model.pool), model.pool.labels)
        found += [Shared(name, folder, needs, labels=on) for needs, on in (served, *training[: name in trained])]
    return found


def of_pool(pool: PoolConfig) -> dict[str, float]:
    return {"CPU": pool.num_cpus, "GPU": pool.num_gpus, **pool.resources}


def holds(resources: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    """Whether a node, empty, has room for who needs that much."""
    return all(resources.get(name, 0.0) >= amount for name, amount in needs.items())


def look(wanted: Sequence[Shared]) -> list[str]:
    """What is wrong with these folders where this runs."""
    return [f"{one.what} {one.folder}: {wrong}" for one in wanted if (wrong := _wrong(one))]


def _wrong(one: Shared) -> str | None:
    if one.mark is None:
        return None if os.path.isdir(one.folder) else "no folder"
    seen = os.path.join(one.folder, one.mark)
    until = time.monotonic() + _SYNC_S
    while not os.path.exists(seen):
        if time.monotonic() > until:
            return "another folder than the driver's" if os.path.isdir(one.folder) else "no folder"
        time.sleep(0.1)
    own = f"{seen}-{uuid.uuid4().hex[:8]}"
    try:
        os.close(os.open(own, os.O_CREAT | os.O_EXCL, 0o644))
        os.unlink(own)
    except OSError as e:
        return f"not writable ({e.strerror})"
    return None


async def _ask(node: Mapping[str, Any], wanted: Sequence[Shared]) -> list[str]:
    may = [one for one in wanted if holds(node["Resources"], one.needs) and matches(one.labels, node["Labels"])]
    mine = {(one.what, one.folder): one for one in may}
    if not mine:
        return []
    name = f"node {node['NodeManagerAddress']}"
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    asked = ray.remote(look).options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(list(mine.values()))
    try:
        found = await asyncio.wait_for(asked, _ANSWER_S)
    except TimeoutError:
        raise Failure(f"{name}: has not said within {_ANSWER_S:g} s what it sees", "infra_error") from None
    except ray.exceptions.RayError as e:
        raise Failure(f"{name}: {(str(e).strip().splitlines() or [type(e).__name__])[-1]}", "infra_error") from None
    todo = "expected the same folder on every node that may use it, so on storage that they share"
    return [f"{name}: {line}; {todo}" for line in found]
