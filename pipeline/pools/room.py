"""Whether a cluster has room for what a run asks for, could get it, or never will.

A cluster that is scaling up is no error: while nodes may still come, no time-out of a pool runs, for at most
`ray.nodes_timeout_s`; a trainer's is longer by that much, where its nodes are not there when it is started. What no
node could ever offer fails at once, and the line names the resource.

What could come is what the autoscaler says: its node types, where it has told Ray's head of them (KubeRay's does in
later Rays than the pinned one), and the requests that it calls infeasible. To a private Ray nothing is ever added. Of a
cluster that says neither, nobody knows: somebody may start a node by hand.

Invariant: only counts nodes as if they were empty. Whether others take the place is Ray's business.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RpcError

from pipeline.records import Failure

Resources = Mapping[str, float]
Labels = Mapping[str, str]
_LOOK_S = 2.0
_TELL_S = 60.0
_ANSWER_S = 10


@dataclass(frozen=True)
class Asked:
    who: str
    """In a message."""
    count: int
    each: Resources
    """What one of them needs, on one node."""
    labels: Labels = field(default_factory=dict)
    """What that node must be labelled, as a selector."""
    per_node: float = math.inf
    """Of them, on one node at most."""

    def __str__(self) -> str:
        parts = [_told(self.each)] if any(self.each.values()) else []
        parts += [f"{label} {value}" for label, value in self.labels.items()]
        parts += [f"{self.per_node:g} a node"] if self.per_node < self.count else []
        return f"{self.who} asks for {self.count} x {{{', '.join(parts)}}}"


@dataclass(frozen=True)
class NodeType:
    name: str
    resources: Resources
    most: float
    """Nodes of it that there may be."""


@dataclass(frozen=True)
class Offer:
    nodes: Sequence[Resources]
    """Of each node that is there."""
    types: Sequence[NodeType] | None
    """Those that could come; None where nobody knows."""
    infeasible: Sequence[Resources] = ()
    """Requests that the autoscaler has given up."""
    labels: Sequence[Labels] = ()
    """Of each node that is there; none where it is empty."""

    def fit_for(self, asked: Asked) -> list[Resources]:
        """The nodes that are labelled as it asks."""
        labels = self.labels or [{}] * len(self.nodes)
        return [node for node, has in zip(self.nodes, labels, strict=True) if matches(asked.labels, has)]

    def __str__(self) -> str:
        there = "; ".join(f"{{{_told(node)}}}" for node in self.nodes) or "none"
        if self.types is None:
            return f"nodes there: {there}; which could come is not known"
        could = "; ".join(f"{t.name} {{{_told(t.resources)}}} x {t.most:g}" for t in self.types) or "none"
        return f"nodes there: {there}; could come: {could}"


def matches(selector: Labels, labels: Labels) -> bool:
    """Whether a node with these labels is one that a selector means, as Ray reads it: what it must not have, it may
    also have nothing of."""
    for label, wanted in selector.items():
        values = re.findall(r"[^!(), ]+", wanted.removeprefix("!").removeprefix("in("))
        if (labels.get(label) in values) == wanted.startswith("!"):
            return False
    return True


def is_there(asked: Asked, offer: Offer) -> bool:
    """Whether it has room now. Raises Failure where it never will."""
    here = sum(min(_fits(node, asked.each), asked.per_node) for node in offer.fit_for(asked))
    if here >= asked.count:
        return True
    if any(_same(asked.each, given_up) for given_up in offer.infeasible):
        raise Failure(f"{asked}, which the autoscaler calls infeasible: {_lacking(asked, offer)} ({offer})")
    if offer.types is not None:
        # Of what type a node is that is there, nobody tells: at most, all that could come is beside it.
        fits = [(min(_fits(kind.resources, asked.each), asked.per_node), kind.most) for kind in offer.types]
        could = sum(each * most for each, most in fits if each and most)
        if here + could < asked.count:
            raise Failure(f"{asked}, which this cluster can never offer: {_lacking(asked, offer)} ({offer})")
    return False


def seen(asked: Asked, look: Callable[[], Offer] | None = None) -> tuple[bool, Offer | str]:
    """Whether it has room now, and what was seen of the cluster. Raises Failure where it never will."""
    try:
        now = (look or offer)()
    except RpcError:  # it may be starting again
        return False, "Ray's head does not answer"
    return is_there(asked, now), now


async def wait(
    asked: Asked,
    patience_s: float,
    say: Callable[[str], None],
    look: Callable[[], Offer] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Until there is room. Raises Failure, at once where there never will be, else after `patience_s`."""
    began, told = clock(), -math.inf
    while True:
        there, now = seen(asked, look)
        if there:
            return
        waited = clock() - began
        if waited > patience_s:
            raise Failure(f"{asked}: no room after {patience_s:g} s (ray.nodes_timeout_s); {now}", "infra_error")
        if waited - told >= _TELL_S:
            say(f"{asked}: waits for nodes; {now}")
            told = waited
        await sleep(_LOOK_S)


def offer() -> Offer:
    """Of the cluster that this process has joined."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes, labels = [node["Resources"] for node in alive], [node["Labels"] for node in alive]
    process: Any = ray._private.worker.global_worker
    if process.node is not None and process.node.head:  # our own head: a private Ray
        return Offer(nodes, types=(), labels=labels)
    config = ray._private.state.state.get_cluster_config()
    types = [
        NodeType(kind.name, dict(kind.resources), math.inf if kind.max_count == -1 else kind.max_count)
        for kind in (config.node_group_configs if config is not None else ())
    ]
    messages: Any = autoscaler_pb2  # made when it is imported
    reply = messages.GetClusterStatusReply.FromString(process.gcs_client.get_cluster_status(timeout_s=_ANSWER_S))
    infeasible = [dict(one.resources_bundle) for one in reply.autoscaling_state.infeasible_resource_requests]
    return Offer(nodes, types or None, infeasible, labels)


def _fits(node: Resources, each: Resources) -> float:
    """How many there is room for on an empty node; more than anybody asks for where they need nothing."""
    room = [node.get(name, 0.0) / amount for name, amount in each.items() if amount > 0]
    return math.floor(min(room) + 1e-6) if room else math.inf


def _same(a: Resources, b: Resources) -> bool:
    names = a.keys() | b.keys()
    return all(math.isclose(a.get(name, 0.0), b.get(name, 0.0), abs_tol=1e-6) for name in names)


def _lacking(asked: Asked, offer: Offer) -> str:
    """The resource that no node has enough of, else what it is that no node has together."""
    nodes = offer.fit_for(asked)
    if offer.nodes and not nodes and not offer.types:
        return "labels of no node"
    kinds = [*nodes, *(kind.resources for kind in offer.types or () if kind.most > 0)]
    for name, amount in asked.each.items():
        most = max((kind.get(name, 0.0) for kind in kinds), default=0.0)
        if most < amount:
            return f"{name} {amount:g} on one node, where the most is {most:g}"
    if not any(_fits(kind, asked.each) for kind in kinds):
        return f"{_told(asked.each)} on one node"
    return f"{_told(asked.each)} so often"


def _told(resources: Resources) -> str:
    """In words, without Ray's own resources (of each node's address) and its store."""
    hidden = ("node:", "object_store_memory", "memory", "accelerator_type:")
    return ", ".join(f"{k} {v:g}" for k, v in sorted(resources.items()) if v and not k.startswith(hidden))
