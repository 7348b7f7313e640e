"""The actors that belong to the driver: buffer, weight stores, loaders, launcher. They are on its own node, or on those
that `ray.labels` selects.

Each holds what all the others wait for, so none should be on a node that may be pre-empted, and the death of one is
noticed within a second (`dead`), whoever waits.

Invariant: an actor that is not known here any more has been killed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.pools import environment
from pipeline.pools.liveness import Liveness

LOOK_S = 1.0
"""Time between two checks whether the actors live."""
_RENEW_S = 60.0
"""How long an actor may take to come back."""


class DriverActors:
    def __init__(self, run: str, labels: Mapping[str, str] | None = None) -> None:
        """`run`: its name on the cluster, with which those of the actors begin. `labels`: select their nodes; none:
        this one."""
        self._run = run
        self._labels = dict(labels or {})
        self._serial = itertools.count(1)
        self._all: list[Any] = []
        self._lasting: list[Any] = []
        self._liveness: dict[str, Liveness] = {}
        self._named: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._all)

    def start(self, cls: type, *args: Any, lasting: bool = False, role: str | None = None, holds: bool = True) -> Any:
        """A Ray actor whose node stays: what it owns outlives any worker. `role`: what it is, if its class does not say
        it.

        A `lasting` one comes back after its process died, as it began, under the same handle, which pools hold. One
        that `holds` nothing beyond what it began with is not missed meanwhile.
        """
        here = ray.get_runtime_context().get_node_id()
        where: dict[str, Any] = (
            {"label_selector": self._labels}
            if self._labels
            else {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
        )
        handle: Any = (
            ray.remote(cls)
            .options(
                name=f"{self._run}-{role or cls.__name__}-{next(self._serial)}",  # one that was killed may keep its own
                num_cpus=0,
                max_concurrency=1000,
                max_restarts=-1 if lasting else 0,
                **where,
                runtime_env={"env_vars": environment.of_actor()},
            )
            .remote(*args)
        )
        self._all.append(handle)
        if lasting:
            self._lasting.append(handle)
        if holds:
            self._liveness[cls.__name__] = Liveness(handle)
        return handle

    def once(self, name: str, cls: type, *args: Any, lasting: bool, holds: bool = True) -> Any:
        """The actor of this name; started where there is none."""
        if name not in self._named:
            self._named[name] = self.start(cls, *args, lasting=lasting, role=name, holds=holds)
        return self._named[name]

    async def dead(self) -> str | None:
        """The name of an actor whose process is gone; None while all live. A busy actor lives."""
        looks = {name: asyncio.ensure_future(actor.gone()) for name, actor in self._liveness.items()}
        if not looks:
            return None
        await asyncio.wait(looks.values(), timeout=LOOK_S)
        for look in looks.values():
            look.cancel()
        gone = (n for n, k in looks.items() if k.done() and not k.cancelled() and k.result())
        return next((name for name in gone if name in self._liveness), None)  # we ended the others meanwhile

    def end_passing(self) -> None:
        """End the actors that are not lasting."""
        self._end([actor for actor in self._all if actor not in self._lasting])

    async def renew(self) -> None:
        """Restart all actors, dead or alive, so that they begin empty. Raises Lost if one is not back in time."""
        await asyncio.gather(*(actor.renew(name, _RENEW_S) for name, actor in self._liveness.items()))

    def end_named(self, name: str) -> None:
        self._end([actor for of, actor in self._named.items() if of == name])

    def end_nameless(self) -> None:
        """End the actors that belong to one stage."""
        self._end([actor for actor in self._all if actor not in self._named.values()])

    def end_all(self) -> None:
        self._end(self._all)

    def _end(self, actors: Sequence[Any]) -> None:
        for actor in actors:
            ray.kill(actor)
        self._all = [actor for actor in self._all if actor not in actors]
        self._lasting = [actor for actor in self._lasting if actor not in actors]
        self._liveness = {name: live for name, live in self._liveness.items() if live.actor not in actors}
        self._named = {name: actor for name, actor in self._named.items() if actor not in actors}
