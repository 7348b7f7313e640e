"""Pools as Serve applications: deployed, waited for, taken down.

Each pool is one application, so that it starts, scales and fails alone. Waiting for a pool has the pool's own
`start_timeout_s`, from when the cluster has nodes for it (`room`); Serve's status message is the cause that is told.
Serve's blocking API is called from one thread, one call at a time: it pickles through a global registry of modules,
which two threads take away from each other.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ray import serve
from ray.serve.handle import DeploymentHandle

from actors import meters
from actors.vault import entrusted
from pipeline.config import PoolConfig
from pipeline.pools import endpoints, environment, scaling
from pipeline.pools.nodes import of_pool
from pipeline.pools.room import Asked
from pipeline.records import Failure, Lost

T = TypeVar("T")
_POLL_S = 1.0
_SERVE_S = 300.0
"""How long a call to Serve may take, with those before it."""


@dataclass(frozen=True)
class PoolSpec:
    """One pool: the class of its replicas and what each is made with."""

    name: str
    pool: PoolConfig
    cls: type
    arguments: dict[str, Any]
    threads: int = 1
    """OpenMP threads of a replica."""
    longest_call_s: float = 60
    """A replica that is to go lets its calls come to their end, for so long."""
    trusted: bool = True
    """Its replicas are given the run's secrets."""


@dataclass(frozen=True)
class Secrets:
    """What a run has to keep to itself."""

    names: Collection[str] = ()
    """Of variables, which no deployment may show."""
    vault: Any | None = None
    """The actor that has their values; None: there are none."""


@dataclass(frozen=True)
class GpuLimit:
    """On the GPUs of a run."""

    most: int
    beside: Callable[[str], Sequence[Mapping[str, float]]]
    """Pool -> what the others hold at the very least, as `gpus.beside` says."""


class Serving:
    """The pools of one run; `prefix` is part of the name of each application."""

    def __init__(
        self,
        prefix: str,
        logs: Callable[[], str],
        has_room: Callable[[Asked], Awaitable[None]],
        limit: GpuLimit | None = None,
        drains: bool = False,
        secrets: Callable[[], Secrets] = Secrets,
    ):
        """`has_room`: waits until the cluster has. `drains`: nodes may be taken away with notice. `secrets`: asked for
        each pool."""
        self._prefix, self._logs, self._has_room, self._limit = prefix, logs, has_room, limit
        self._drains, self._secrets = drains, secrets
        self._pools: dict[str, asyncio.Task[DeploymentHandle]] = {}
        self._thread = ThreadPoolExecutor(1, "serve")
        self._looking, self._looked, self._seen = asyncio.Lock(), 0.0, dict[str, Any]()

    def __contains__(self, name: str) -> bool:
        return name in self._pools

    async def pool(self, spec: PoolSpec) -> DeploymentHandle:
        """The handle of a pool, deployed on first use and waited for. Raises Failure with the cause if it does not
        start."""
        if spec.name not in self._pools:
            self._pools[spec.name] = asyncio.ensure_future(self._deploy(spec))
        return await asyncio.shield(self._pools[spec.name])

    async def stop(self, name: str) -> None:
        """Take a pool down, if there is one."""
        task = self._pools.pop(name, None)
        if task is not None:
            await task
            await self._call(serve.delete, self._app(name))

    def all_up(self) -> bool:
        return all(p.done() and not p.cancelled() and p.exception() is None for p in self._pools.values())

    async def idle(self) -> None:
        """Until no thread of ours calls Serve any more."""
        for pool in self._pools.values():
            pool.cancel()
        await asyncio.gather(*self._pools.values(), return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def _deploy(self, spec: PoolSpec) -> DeploymentHandle:
        secrets = self._secrets()

        def run() -> None:
            env, unset = surroundings(spec, self._prefix, secrets.names, environment.of_serve())
            options = deployment_options(spec, self._prefix, env, self._limit, self._drains)
            cls = entrusted(spec.cls, secrets.vault if spec.trusted else None, unset)
            deployment = serve.deployment(name=spec.name)(cls).options(**options)
            target = serve.RunTarget(
                target=deployment.bind(**spec.arguments), name=self._app(spec.name), route_prefix=None
            )
            serve.run_many([target], wait_for_applications_running=False)

        await self._call(run)
        self._looked = 0.0
        pool = spec.pool
        per_node = math.inf if pool.max_per_node is None else pool.max_per_node
        asked = Asked(f"pool {spec.name}", pool.at_first, of_pool(pool), pool.labels, per_node)
        room = asyncio.ensure_future(self._has_room(asked))
        try:
            await self._until_running(spec.name, spec.pool.start_timeout_s, room)
            if spec.pool.min_replicas == 0 and room.done():
                room.result()  # it runs, empty: that no node could ever have a replica is told now
        finally:
            room.cancel()
            await asyncio.gather(room, return_exceptions=True)
        return serve.get_deployment_handle(spec.name, app_name=self._app(spec.name))

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        """Call Serve's blocking API. Raises Lost after `_SERVE_S`."""
        call = functools.partial(function, *args)
        try:
            async with asyncio.timeout(_SERVE_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except TimeoutError:
            raise Lost(f"Serve's controller has not answered for {_SERVE_S:g} s") from None

    async def _status(self, app: str) -> Any:
        """What Serve says of an application. To say it takes this process a good part of a second of work, which the
        replicas lack meanwhile, so all that wait share one look in `_POLL_S`."""
        async with self._looking:
            if time.monotonic() - self._looked >= _POLL_S:
                self._seen = (await self._call(serve.status)).applications
                self._looked = time.monotonic()
        return self._seen[app]

    async def _until_running(self, name: str, timeout_s: float, room: asyncio.Future[None]) -> None:
        """`timeout_s` from when there is `room`; that a replica fails is told meanwhile too."""
        deadline = math.inf
        while True:
            app = await self._status(self._app(name))
            if app.status == "RUNNING":
                return
            if app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                messages = [app.message, *(d.message for d in app.deployments.values())]
                cause = _cause(next((m for m in reversed(messages) if m), "no message"))
                raise Failure(f"pool {name}: did not start: {cause} (logs: {self._logs()})", "infra_error")
            if deadline == math.inf and room.done():
                room.result()
                deadline = time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                waiting = next((d.message for d in app.deployments.values() if d.message), app.status)
                raise Failure(f"pool {name}: not running after {timeout_s:g} s: {_cause(waiting)}", "infra_error")
            await asyncio.sleep(_POLL_S)

    def _app(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def surroundings(
    spec: PoolSpec, run: str, secret: Collection[str], inherited: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The runtime environment of a pool's replicas, and the variables that they unset: see `environment.of_pool`."""
    whose = {meters.RUN: run, meters.POOL: spec.name, meters.JOB: meters.METERS.job or ""}
    asks = {"OMP_NUM_THREADS": str(spec.threads)}
    return environment.of_pool(asks, endpoints.environment() | whose, secret, inherited)


def deployment_options(
    spec: PoolSpec, run: str, env: Mapping[str, Any], limit: GpuLimit | None = None, drains: bool = False
) -> dict[str, Any]:
    """What Serve is told of a pool whose replicas are in the runtime environment `env`. A replica that is to go,
    because the pool shrinks or its node `drains`, lets its calls come to their end."""
    pool = spec.pool
    scale: dict[str, Any] = {"num_replicas": pool.min_replicas}
    scale["graceful_shutdown_timeout_s"] = spec.longest_call_s if drains else 5
    if pool.max_replicas > pool.min_replicas:
        scale = {
            "autoscaling_config": scaling.autoscaling(
                pool, spec.name, run, limit.most if limit else None, limit.beside(spec.name) if limit else ()
            ),
            "graceful_shutdown_timeout_s": spec.longest_call_s,
        }
    return {
        "max_ongoing_requests": pool.max_ongoing,
        "max_queued_requests": pool.max_queued,
        **({} if pool.max_per_node is None else {"max_replicas_per_node": pool.max_per_node}),
        "health_check_period_s": 2,
        "health_check_timeout_s": 30,
        "ray_actor_options": {
            "num_cpus": pool.num_cpus,
            "num_gpus": pool.num_gpus,
            "resources": pool.resources,
            "runtime_env": env,
            **({"label_selector": pool.labels} if pool.labels else {}),
        },
        **scale,
    }


def _cause(message: str) -> str:
    """The line of a Serve status message that names the exception: the last that does not belong to a traceback."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    named = [line for line in lines if "Failure:" in line or "Error:" in line or "Unavailable:" in line]
    return (named or lines or ["no message"])[-1]
