"""Ray, and the size of a pool of replicas."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.config.section import Section
from pipeline.config.types import Positive, Seconds

_OWN = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "another name", "object_store_memory": "another name"}
"""Names that are Ray's own, and what to say instead."""


def _custom(resources: dict[str, float]) -> dict[str, float]:
    for name in _OWN.keys() & resources.keys():
        raise ValueError(f"{name} is no custom resource; expected {_OWN[name]}")
    for name, amount in resources.items():
        if amount < 0:
            raise ValueError(f"{name} {amount:g}; expected 0 or more")
    return resources


CustomResources = Annotated[dict[str, float], AfterValidator(_custom)]
"""Name -> amount, of what nodes say that they have."""

_WORD = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"({_WORD}(\.{_WORD})*/)?{_WORD}")
_SELECTED = re.compile(rf"!?({_WORD}|in\({_WORD}(, ?{_WORD})*\))")


def _selector(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key} is no label; expected a name as Kubernetes has it, after a domain/ or not")
        if not _SELECTED.fullmatch(value):
            raise ValueError(f"{key}: {value!r}; expected a value, in(one, another), or either of them after !")
    return labels


LabelSelector = Annotated[dict[str, str], AfterValidator(_selector)]
"""Label -> what a node must have there (by `ray start --labels`, or given by Ray): a value, `in(one, another)`, or what
it must not have, `!value` and `!in(one, another)`."""


class PoolConfig(Section):
    """Size and resources of one Ray Serve deployment."""

    min_replicas: int = Field(default=1, ge=0)
    """Replicas that are always there. 0, for models that are not trained: the first call starts one, and gives back its
    GPUs `downscale_delay_s` after the last; the deadline of a call runs meanwhile."""
    max_replicas: Positive = 1
    """Replicas under full load."""
    num_cpus: float = Field(default=0.1, ge=0)
    """Logical CPUs a replica reserves. Small on a laptop, where all pools share two cores and take turns."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs a replica reserves; a share below 1 lets replicas share one."""
    resources: CustomResources = Field(default={})
    """Custom Ray resources, to place a pool on a node type (for example {"spot": 0.01})."""
    labels: LabelSelector = Field(default={})
    """Labels of the nodes that replicas may be on, for example {"ray.io/accelerator-type": "in(H100, H200)", "market":
    "!spot"}."""
    max_per_node: Positive | None = None
    """Replicas on one node at most, so that the loss of a node costs no more; null: Ray spreads them as nodes allow."""
    max_ongoing: Positive = 64
    """Calls a replica works on at once."""
    max_queued: int = Field(default=-1, ge=-1)
    """Calls that may wait at a handle, -1 for no bound."""
    target_ongoing: float | None = Field(default=None, gt=0)
    """Calls under way in a replica that autoscaling aims at; None: 70 % of `max_ongoing`."""
    max_wait_s: Seconds | None = None
    """Grow by how long calls wait in place of how many there are: once some have waited this long, replicas are added
    for all that wait, and those without which no call would wait go after `downscale_delay_s`. Serve hears of calls
    that wait every ten seconds. null: by `target_ongoing`."""
    upscale_delay_s: float = Field(default=30, ge=0)
    """How long there is too much work before replicas are added; with `max_wait_s` that says it."""
    downscale_delay_s: float = Field(default=600, ge=0)
    """How long there is too little work before replicas are taken away."""
    start_timeout_s: Seconds = 900
    """How long a pool may take to have all its first replicas; a model of 30B parameters loads for minutes."""

    @property
    def at_first(self) -> int:
        """Replicas that there are once there is work."""
        return max(1, self.min_replicas)

    def contradictions(self) -> Iterator[str]:
        if self.max_replicas < self.min_replicas:
            yield f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas})"
        if self.target_ongoing is not None and self.target_ongoing > self.max_ongoing:
            yield (
                f"target_ongoing ({self.target_ongoing:g}) must not exceed max_ongoing ({self.max_ongoing}): a replica "
                "never has as many calls under way, so the pool would never grow"
            )
        if self.target_ongoing is not None and self.max_wait_s is not None:
            yield (
                f"target_ongoing ({self.target_ongoing:g}) and max_wait_s ({self.max_wait_s:g}): each says when a pool "
                "grows; expected one of the two"
            )


class RayConfig(Section):
    address: str | None = None
    """None starts a private Ray on this machine (or joins $RAY_ADDRESS); "auto" or host:port joins a cluster."""
    labels: LabelSelector = Field(default={})
    """Labels of the nodes that what belongs to the driver may be on: rollout buffer, weight stores, loaders and the
    trainer's launcher, which no node that may be taken away should have. They write into the run directory. {}: the
    driver's own node."""
    max_gpus: Positive | None = None
    """GPUs that the run holds at most, trainer and pools together: a pool that would grow beyond waits until others
    hold fewer. null: as many as the pools' `max_replicas` add up to."""
    num_cpus: Positive | None = None
    """Logical CPUs of a private Ray; None takes what the process may use."""
    object_store_mb: int | None = Field(default=None, ge=75)
    """Of a private Ray, which refuses less than 75; None takes Ray's default, 30 % of the memory. What does not fit is
    spilled to the disk."""
    nodes_timeout_s: Seconds = 3600
    """How long nodes of a cluster that scales up may take to come; the time-out of a pool runs from then on, that of a
    trainer is so much longer. What no node could ever offer fails at once."""
    dashboard: bool | None = None
    """Start the Ray dashboard of a private Ray, for 145 MiB and 3.5 s of CPU; None starts it on 8 CPUs or more."""

    @property
    def joined(self) -> str | None:
        """The address of the cluster that a run joins; None where it starts a private Ray."""
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        return None if address == "local" else address
