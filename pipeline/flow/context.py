"""What every stage is given: config, run directory, pools, metrics, progress, and seeds that names determine."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline import domains
from pipeline.config import Config
from pipeline.domains.base import Domain
from pipeline.records import Failure
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress

if TYPE_CHECKING:
    from pipeline.pools.cluster import Cluster  # brings Ray, which reading a run directory does not need


@dataclass(frozen=True)
class Context:
    config: Config
    run: RunDir
    cluster: Cluster
    metrics: Metrics
    progress: Progress

    @cached_property
    def domain(self) -> Domain:
        return domains.of(self.config.domain)

    def result_of(self, stage: str) -> dict[str, Any]:
        """The result of an earlier stage. Raises Failure with the command that makes it."""
        done = self.run.result(stage)
        if done is None:
            raise Failure(f"run directory {self.run.root}: stage {stage} is not done; run `propose {stage}` first")
        result: dict[str, Any] = done["result"]
        return result

    def seed(self, *names: object) -> int:
        """A seed of 31 bits for whatever the names name: the same on every run of this config."""
        text = "/".join(map(str, (self.config.seed, *names)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1

    def rng(self, *names: object) -> random.Random:
        return random.Random(self.seed(*names))
