"""The few words ranks exchange: sums, maxima, and whether all of them can go on.

Invariant: every rank calls these in the same order. A rank whose own input is bad says so through `agree`: then all
ranks raise `Agreed`, and none is left waiting in its next collective. Whatever else a rank raises kills its process,
and Ray Train takes the others down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.records import Failure

T = TypeVar("T")


class Agreed(Failure):
    """A failure that all ranks raise at the same point."""


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    def total(self, values: Tensor) -> Tensor:
        """Sum over ranks."""
        values = values.to(self.device)
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """Maximum over ranks."""
        tensor = torch.tensor(value, device=self.device)
        if self.world > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor)

    def first(self, make: Callable[[], T]) -> T:
        """The first rank's `make()`, on every rank."""
        told: list[Any] = [make() if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(told, device=self.device)
        result: T = told[0]
        return result

    def agree(self, make: Callable[[], T]) -> T:
        """`make()` on every rank; if any rank's raises Failure, all raise `Agreed` with the first one's words."""
        result: T | None = None
        mine: tuple[str, str] | None = None
        try:
            result = make()
        except Failure as e:
            cause = getattr(e, "cause", e)  # Ray wraps what an actor raised
            mine = (str(cause), cause.kind)
        failures: list[tuple[str, str] | None] = [mine]
        if self.world > 1:
            failures = [None] * self.world
            dist.all_gather_object(failures, mine)
        for failure in failures:
            if failure is not None:
                raise Agreed(failure[0], failure[1])  # type: ignore[arg-type]
        return result  # type: ignore[return-value]
