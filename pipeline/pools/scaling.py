"""How many replicas a pool should have: the policy that Serve's controller asks, several times a second.

    by load      as many as have `target` calls each, as Serve's own policy says
    by waiting   as many as there are, until calls have waited `max_wait_s`: then as many as all calls fill; fewer,
                 where fewer could have all calls at once
    and, with a limit on the GPUs of the run, no more than what the other pools leave of it

Serve's handles know how many calls wait, not since when. No call can have waited longer than there have been waiting
ones without a break, so that is what is measured: a queue that moves quickly and is never empty counts as old.

What a pool holds is read by the policies of the others: all of them run in the process of Serve's controller, which has
one board a run for it. Serve sends this module by value, for the controller's environment may be another job's.

Invariant: pure arithmetic over what the controller says, by its clock, and the board. Serve itself applies delays,
`min_replicas` and `max_replicas` to what comes out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from pipeline.config import PoolConfig

TARGET = 0.7
"""Share of `max_ongoing` that a pool aims at by load, where the config does not say."""
_LOOK_BACK_S = 12.0
"""Whether calls wait is a mean over so long: over little more than the ten seconds after which Serve's handles say it
again, for a queue that has been empty since then must not count."""
_FORGET_S = 30.0
"""A pool that was not asked about for so long is gone."""

Held = dict[str, tuple[float, float]]
"""Pool -> GPUs that it holds or has been told to take, and when that was."""


def autoscaling(
    pool: PoolConfig, name: str, run: str, limit: int | None, beside: Sequence[Mapping[str, float]]
) -> AutoscalingConfig:
    """What Serve is told of a pool that has two sizes. `limit`: GPUs of the run; `beside`: as `gpus.beside` says."""
    target = pool.target_ongoing or max(1.0, TARGET * pool.max_ongoing)
    own: dict[str, Any] = {}
    bounded = limit is not None and pool.num_gpus > 0
    if bounded or pool.max_wait_s is not None:
        told = {
            "pool": name,
            "run": run,
            "target": target,
            "most": pool.max_ongoing,
            "max_wait_s": pool.max_wait_s,
            "least": pool.min_replicas,
            "gpus": pool.num_gpus,
            "limit": limit if bounded else None,
            "beside": [dict(floors) for floors in beside] if bounded else [],
        }
        own = {"policy": AutoscalingPolicy(policy_function=Scale, policy_kwargs=told)}
    if pool.max_wait_s is not None:
        own |= {"look_back_period_s": _LOOK_BACK_S}
    return AutoscalingConfig(
        min_replicas=pool.min_replicas,
        max_replicas=pool.max_replicas,
        target_ongoing_requests=target,
        upscale_delay_s=pool.upscale_delay_s if pool.max_wait_s is None else 0.0,
        downscale_delay_s=pool.downscale_delay_s,
        **own,
    )


class Scale:
    """The policy of one pool. Serve makes one in its controller, and calls it with an AutoscalingContext."""

    def __init__(
        self,
        pool: str,
        run: str,
        target: float,
        most: float,
        max_wait_s: float | None,
        least: int,
        gpus: float,
        limit: int | None,
        beside: Sequence[Mapping[str, float]],
    ):
        self._pool, self._run = pool, run
        self._target, self._most, self._max_wait_s = target, most, max_wait_s
        self._least, self._gpus, self._limit, self._beside = least, gpus, limit, beside

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """(replicas, what is to be remembered until the next call)."""
        now, state = ctx.current_time, {}
        if self._max_wait_s is None:
            wanted = math.ceil(ctx.total_num_requests / self._target)
        else:
            since = None if not ctx.total_queued_requests else ctx.policy_state.get("since", now)
            state = {} if since is None else {"since": since}
            waited = 0.0 if since is None else now - since
            fits = math.ceil(ctx.total_num_requests / self._most)
            wanted = by_waiting(ctx.target_num_replicas, fits, waited, self._max_wait_s)
        if self._limit is None:
            return wanted, state
        held = board(self._run)
        wanted = min(wanted, max(self._least, allowed(self._pool, self._gpus, self._limit, self._beside, held, now)))
        held[self._pool] = (self._gpus * max(wanted, ctx.target_num_replicas, ctx.current_num_replicas), now)
        return wanted, state


def by_waiting(now: int, fits: int, waited_s: float, max_wait_s: float) -> int:
    """Replicas wanted of a pool that has `now` of them, where `fits` could have all calls at once."""
    return fits if fits < now or waited_s >= max_wait_s else now


def allowed(pool: str, gpus: float, limit: float, beside: Sequence[Mapping[str, float]], held: Held, now: float) -> int:
    """Replicas of `gpus` each that a limit leaves a pool: in each stage that it is up in, the others hold what they
    hold, and are left what they have there at the very least."""
    there = {name: amount for name, (amount, at) in held.items() if name != pool and now - at <= _FORGET_S}
    taken = (sum((there | {n: max(f, there.get(n, 0.0)) for n, f in floors.items()}).values()) for floors in beside)
    return max(0, math.floor((limit - max(taken, default=sum(there.values()))) / gpus + 1e-6))


def board(run: str) -> Held:
    """What the pools of a run hold, as the policies of this process have noted it: of a process, for each copy of this
    module is another one."""
    name = f"propose board of {run}"
    found = sys.modules.setdefault(name, ModuleType(name))
    held: Held = found.__dict__.setdefault("held", {})
    return held
