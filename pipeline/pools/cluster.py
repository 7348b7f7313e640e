"""Ray and the pools: started when first needed, placed as the config says, stopped together.

Invariant: every process this module starts ends with `close`, and nothing of another run is touched: a private Ray
is shut down, on a shared cluster only the applications and actors named after this run are removed.

Each pool is one Serve application, so that it starts, scales and fails alone. Waiting for a pool has the pool's own
`start_timeout_s`; Serve's status message is the cause that is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import PlacementGroupID, serve
from ray._private import auto_init_hook
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.calls import answer
from actors.committee import Committee
from actors.prober import Prober
from actors.proposer import Proposer
from actors.sandbox_pool import SandboxPool
from actors.solver import Solver
from actors.teacher import TeacherProposer
from actors.weights import WeightStore
from pipeline.config import Config, Model, Pool
from pipeline.domains import mini
from pipeline.domains.teachers import make_teacher
from pipeline.pools.buffer import RolloutBuffer
from pipeline.pools.liveness import Watched
from pipeline.records import Failure, Lost
from trainers.launch import Launcher

T = TypeVar("T")
_POLL_S = 0.25
_KNOCK_S = 10.0
_STATS_S = 10.0
_SERVE_S = 300.0
"""How long a call to Serve may take, with those before it."""
_LOOK_S = 1.0
"""Between two looks after the actors beside the driver."""
_RENEW_S = 60.0
"""How long an actor beside the driver may take to come back, and a call to Serve to return before a restart."""


class Cluster:
    """Handles of the running pools. Starts Ray on first use."""

    def __init__(self, config: Config):
        self.config = config
        self._private = False
        self._forget()

    def _forget(self) -> None:
        """Nothing runs yet."""
        self.id = uuid.uuid4().hex[:8]
        self._apps: dict[str, asyncio.Task[DeploymentHandle]] = {}
        self._serve_calls = ThreadPoolExecutor(1, "serve")
        self._actors: list[Any] = []
        self._watched: dict[str, Watched] = {}
        self._named: dict[str, Any] = {}

    # ------------------------------------------------------------ Ray itself

    def start(self) -> None:
        """Join the configured cluster, or start a private Ray. Raises Failure naming the address it could not join."""
        if ray.is_initialized():
            return
        # Else a thread of Serve's that outlives our Ray, as it does for a moment, would have us join any other Ray.
        auto_init_hook.enable_auto_connect = False
        address = self.config.ray.address or os.environ.get("RAY_ADDRESS")
        self._private = address is None
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it tells of every process that a restart makes
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")  # pools share cores; no warnings about it
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            if self._private:
                ray.init(
                    address="local",
                    num_cpus=self.config.ray.num_cpus or usable_cpus(),
                    object_store_memory=self.config.ray.object_store_mb << 20,
                    include_dashboard=self.config.ray.dashboard,
                    runtime_env={"env_vars": _ENVIRONMENT},
                    **quiet,
                )
            else:
                _knock(address or "")
                ray.init(address=address, runtime_env={"env_vars": _ENVIRONMENT}, **quiet)
        except SystemExit:  # Ray's own answer to a SIGTERM that comes while it starts
            raise KeyboardInterrupt from None
        except (OSError, ValueError, RuntimeError) as e:
            if "Timed out waiting for file" in str(e):  # where a process of a private Ray, being late, names its port
                raise Lost(f"Ray did not start ({_first_line(e)})") from None
            what = (
                "could not start a private Ray" if self._private else f"ray.address {address!r}: no Ray cluster answers"
            )
            raise Failure(f"{what} ({_first_line(e)})", "infra_error") from None
        except Exception as e:  # what Ray raises where a busy machine does not start it in time
            raise Lost(f"Ray did not start ({_first_line(e)})") from None
        finally:
            signal.signal(signal.SIGTERM, on_terminate)  # ray.init puts its own in, which would skip our clean-up
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})

    @property
    def logs(self) -> str:
        """Where Ray keeps the logs of its processes."""
        node = ray._private.worker._global_node
        return str(node.get_logs_dir_path()) if node is not None else "unknown"

    def close(self) -> None:
        """Stop every process this run started. Safe to call at any time, more than once."""
        if not ray.is_initialized():
            return
        if not self._private:
            with contextlib.suppress(Exception):  # the cluster may be gone, which is what we want
                for name in self._apps:
                    serve.delete(self._app(name), _blocking=False)
                for actor in self._actors:
                    ray.kill(actor)
        ray.shutdown()
        # Serve tells its controller of this Ray from that of the next by the job's number, which is 1 in both.
        serve.context._set_global_client(None)

    async def idle(self) -> None:
        """Until no thread of ours calls Ray any more: one that still does while Ray goes away kills the process
        (SIGSEGV)."""
        for app in self._apps.values():
            app.cancel()
        await asyncio.gather(*self._apps.values(), return_exceptions=True)
        await asyncio.to_thread(self._serve_calls.shutdown)

    async def restart(self, whole: bool) -> None:
        """Begin anew what holds a stage's state: buffer, weight store, feed, launcher and the trainer that it started.
        Pools go on, with the handles they have, unless `whole` is asked for, one never started, or Ray is damaged.

        Nobody may be waiting for a pool or actor. Raises Failure where Ray holds on to a call of ours.
        """
        up = all(app.done() and not app.cancelled() and app.exception() is None for app in self._apps.values())
        if whole or not up or self._damage():
            try:
                async with asyncio.timeout(_RENEW_S):
                    await self.idle()
            except TimeoutError:  # a Ray that lost its raylet while pools started keeps a thread of ours for ever
                raise Failure(f"Ray has not answered for {_RENEW_S:g} s", "infra_error") from None
            self.close()
            self._forget()
            return
        self._watched = {name: watched for name, watched in self._watched.items() if watched.lasting}
        kept = [watched.actor for watched in self._watched.values()]
        self._end([actor for actor in self._actors if actor not in kept])
        if self._private:
            # Those of the killed trainer: Ray keeps them until the driver ends, and what Ray Train has to remove them
            # asks a dashboard. Nothing else here makes any.
            for name in ray.util.placement_group_table():
                ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
        await asyncio.gather(*(watched.renew(name, _RENEW_S) for name, watched in self._watched.items()))

    async def guarded(self, work: Awaitable[T]) -> T:
        """Await `work`; cancel it and raise Lost, at most `_LOOK_S` and a little later, if an actor beside the driver
        (buffer, weight store, feed, launcher) dies: each holds what all the others wait for."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                await asyncio.wait({task}, timeout=_LOOK_S)
                failed = task.done() and (task.cancelled() or task.exception() is not None)
                # A failure may be the first sign of a death.
                if self._watched and (failed or not task.done()) and (dead := await self._dead()):
                    raise Lost(f"{dead}: its process is gone")
                if task.done():
                    return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _dead(self) -> str | None:
        """The name of an actor, or of a process of a private Ray, that is gone. One that is busy is not."""
        if damage := self._damage():
            return damage
        looks = {name: asyncio.ensure_future(watched.gone()) for name, watched in self._watched.items()}
        await asyncio.wait(looks.values(), timeout=_LOOK_S)
        for look in looks.values():
            look.cancel()
        gone = (n for n, k in looks.items() if k.done() and not k.cancelled() and k.result())
        return next((name for name in gone if name in self._watched), None)  # else it was ended, meanwhile, by us

    def _damage(self) -> str | None:
        """A process of a private Ray without which nothing works any more."""
        if not self._private:
            return None
        node: Any = ray._private.worker._global_node
        if node is None:
            return "Ray"
        dead = {name for name, _ in node.dead_processes()} & {"gcs_server", "raylet"}
        return f"Ray's {min(dead)}" if dead else None

    # ------------------------------------------------------------ actors on the driver's node

    def actor(self, cls: type, *args: Any, lasting: bool = False) -> Any:
        """A Ray actor next to the driver, never on a node that may be pre-empted: what it owns outlives any worker.

        A `lasting` one comes back empty after its process died, under the same handle, which pools hold.
        """
        self.start()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        handle: Any = (
            ray.remote(cls)
            .options(
                num_cpus=0,
                max_concurrency=1000,
                max_restarts=-1 if lasting else 0,
                scheduling_strategy=here,
                runtime_env={"env_vars": _ENVIRONMENT},
            )
            .remote(*args)
        )
        self._actors.append(handle)
        self._watched[cls.__name__] = Watched(handle, lasting)
        return handle

    def buffer(self) -> Any:
        """The run's rollout buffer: where every replica sends what it sampled."""
        return self._once("buffer", RolloutBuffer, self.config.mgpo.max_staleness, lasting=True)

    def weights(self, policy: str) -> Any:
        """The weight store of a policy (proposer, student)."""
        return self._once(f"weights-{policy}", WeightStore, lasting=True)

    def launcher(self) -> Any:
        """The process that waits for Ray Train."""
        return self._once("launcher", Launcher, lasting=False)

    def _once(self, name: str, cls: type, *args: Any, lasting: bool) -> Any:
        if name not in self._named:
            self._named[name] = self.actor(cls, *args, lasting=lasting)
        return self._named[name]

    # ------------------------------------------------------------ pools

    async def sandbox(self) -> DeploymentHandle:
        s = self.config.sandbox
        limits = {"wall_s": s.wall_s, "cpu_s": s.cpu_s, "memory_mb": s.memory_mb}
        return await self._pool(
            "sandbox", s.pool, SandboxPool, slots=s.slots, minimum=s.minimum, limits=limits, queue=s.queue
        )

    async def sandbox_stats(self) -> dict[str, Any] | None:
        """What a replica of the sandbox pool says of itself; None where no stage has needed one. Raises Failure."""
        if "sandbox" not in self._apps:
            return None
        return await answer((await self.sandbox()).stats.remote(), "sandbox", _STATS_S)

    async def probers(self) -> dict[str, DeploymentHandle]:
        """The engines of the prober's ladder, by model path."""
        pool = self.config.prober.pool
        handles = [
            self._solver(f"solver-{i}", model, pool, None, None) for i, model in enumerate(self.config.prober.ladder)
        ]
        return dict(zip([m.path for m in self.config.prober.ladder], await asyncio.gather(*handles), strict=True))

    async def committee(self) -> DeploymentHandle:
        c = self.config.committee
        sandbox, probers = await asyncio.gather(self.sandbox(), self.probers())
        solver = probers[self.config.prober.ladder[-1].path]
        return await self._pool("committee", c.pool, Committee, config=c, sandbox=sandbox, solver=solver)

    async def prober(self) -> DeploymentHandle:
        p = self.config.prober
        sandbox, solvers = await asyncio.gather(self.sandbox(), self.probers())
        pool = p.pool.model_copy(update={"num_gpus": 0.0})
        return await self._pool("prober", pool, Prober, config=p, solvers=solvers, sandbox=sandbox)

    async def teacher(self) -> DeploymentHandle:
        """Plays episodes as the proposer would, to be learned from."""
        c = self.config
        return await self._pool(
            "teacher", c.proposer_pool.model_copy(update={"num_gpus": 0.0}), TeacherProposer,
            teacher=make_teacher(c.teacher), model_dir=str(mini.resolve(c.proposer.path)), episode=c.episode,
            sandbox=await self.sandbox(), sink=self.buffer(), system_prompt=c.system_prompt,
        )  # fmt: skip

    async def proposer(self, model_dir: Path) -> DeploymentHandle:
        """The policy, from `model_dir` until its weight store has a version."""
        c = self.config
        return await self._pool(
            "proposer", c.proposer_pool, Proposer,
            model_dir=str(model_dir), engine=c.proposer.engine, episode=c.episode, seed=c.seed,
            sandbox=await self.sandbox(), weights=self.weights("proposer"), sink=self.buffer(),
            system_prompt=c.system_prompt, threads=c.proposer.engine.threads,
        )  # fmt: skip

    async def student(self) -> DeploymentHandle:
        """The solver in training, from its base model until its weight store has a version."""
        return await self._solver(
            "student", self.config.solve.base, self.config.prober.pool, self.weights("student"), self.buffer()
        )

    async def _solver(self, name: str, model: Model, pool: Pool, weights: Any, sink: Any) -> DeploymentHandle:
        return await self._pool(
            name, pool, Solver,
            model_dir=str(mini.resolve(model.path)), engine=model.engine, seed=self.config.seed,
            weights=weights, sink=sink, threads=model.engine.threads,
        )  # fmt: skip

    async def renew(self, config: Config) -> None:
        """Go on with another run: what holds a policy, its weights or its rollouts is started anew when next needed;
        the pools that judge stay, so `config` must agree with the one before in all that they read."""
        for name in ("teacher", "proposer", "student"):
            await self.stop(name)
        self._end(self._actors)
        self.config = config

    async def stop(self, name: str) -> None:
        """Take a pool down, and with it the store that its replicas had their weights from."""
        task = self._apps.pop(name, None)
        if task is not None:
            await task
            await self._serve(serve.delete, self._app(name))
        self._end([actor for of, actor in self._named.items() if of == f"weights-{name}"])

    def end_feeds(self) -> None:
        """End the feeds: what they hold is of stages that are done."""
        self._end([actor for actor in self._actors if actor not in self._named.values()])

    def _end(self, actors: Sequence[Any]) -> None:
        for actor in actors:
            ray.kill(actor)
        self._actors = [actor for actor in self._actors if actor not in actors]
        self._watched = {name: watched for name, watched in self._watched.items() if watched.actor not in actors}
        self._named = {name: actor for name, actor in self._named.items() if actor not in actors}

    async def _pool(self, name: str, pool: Pool, cls: type, *, threads: int = 1, **arguments: Any) -> DeploymentHandle:
        if name not in self._apps:
            self._apps[name] = asyncio.ensure_future(self._deploy(name, pool, cls, threads, arguments))
        return await asyncio.shield(self._apps[name])

    async def _deploy(
        self, name: str, pool: Pool, cls: type, threads: int, arguments: dict[str, Any]
    ) -> DeploymentHandle:
        self.start()
        environment = _ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
        scale: dict[str, Any] = {"num_replicas": pool.min_replicas}
        if pool.max_replicas > pool.min_replicas:
            scale = {
                "autoscaling_config": AutoscalingConfig(
                    min_replicas=pool.min_replicas,
                    max_replicas=pool.max_replicas,
                    target_ongoing_requests=max(1.0, 0.7 * pool.max_ongoing),
                )
            }
        options: dict[str, Any] = {
            "max_ongoing_requests": pool.max_ongoing,
            "max_queued_requests": pool.max_queued,
            # A pool that shrinks lets a replica's calls come to their end; one that is taken down has none.
            "graceful_shutdown_timeout_s": self._longest_call_s() if "autoscaling_config" in scale else 5,
            "health_check_period_s": 2,
            "health_check_timeout_s": 30,
            "ray_actor_options": {
                "num_cpus": pool.num_cpus,
                "num_gpus": pool.num_gpus,
                "resources": pool.resources,
                "runtime_env": {"env_vars": environment},
            },
        }

        def run() -> None:
            deployment = serve.deployment(name=name)(cls).options(**options, **scale)
            target = serve.RunTarget(target=deployment.bind(**arguments), name=self._app(name), route_prefix=None)
            serve.run_many([target], wait_for_applications_running=False)

        await self._serve(run)
        await self._until_running(name, pool.start_timeout_s)
        return serve.get_deployment_handle(name, app_name=self._app(name))

    def _longest_call_s(self) -> float:
        c = self.config
        return max(c.episode.limits.wall_s, c.committee.timeout_s, c.prober.timeout_s)

    async def _serve(self, function: Callable[..., T], *args: Any) -> T:
        """Call Serve's blocking API in a thread, one call at a time: it pickles through a global registry of modules,
        and two threads take it away from each other. Raises Lost after `_SERVE_S`."""
        call = functools.partial(function, *args)
        try:
            async with asyncio.timeout(_SERVE_S):
                return await asyncio.get_running_loop().run_in_executor(self._serve_calls, call)
        except TimeoutError:
            raise Lost(f"Serve's controller has not answered for {_SERVE_S:g} s") from None

    async def _until_running(self, name: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            app = (await self._serve(serve.status)).applications[self._app(name)]
            if app.status == "RUNNING":
                return
            if app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                messages = [app.message, *(d.message for d in app.deployments.values())]
                cause = _cause(next((m for m in reversed(messages) if m), "no message"))
                raise Failure(f"pool {name}: did not start: {cause} (logs: {self.logs})", "infra_error")
            if time.monotonic() > deadline:
                waiting = next((d.message for d in app.deployments.values() if d.message), app.status)
                raise Failure(f"pool {name}: not running after {timeout_s:g} s: {_cause(waiting)}", "infra_error")
            await asyncio.sleep(_POLL_S)

    def _app(self, name: str) -> str:
        return f"{self.config.name}-{self.id}-{name}"


_ENVIRONMENT = {
    # Whatever runs on a CPU shares few cores: one thread, unless a pool or trainer says otherwise.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
    "VLLM_NO_USAGE_STATS": "1",
    # vLLM's own would close the handlers of Serve, whose controller, when it comes back, asks each replica for its log
    # file, and puts a new one in the place of a replica that cannot tell.
    "VLLM_CONFIGURE_LOGGING": "0",
}


def _knock(address: str) -> None:
    """Raises OSError where nobody listens, which Ray itself finds out after minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def usable_cpus() -> int:
    """Cores that this process may use: its affinity, and the container's quota, which Ray knows how to read."""
    return min(len(os.sched_getaffinity(0)), int(ray._private.utils.get_num_cpus()))


def _first_line(e: BaseException) -> str:
    return next(iter(str(e).strip().splitlines()), type(e).__name__)


def _cause(message: str) -> str:
    """The line of a Serve status message that names the exception: the last that does not belong to a traceback."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    named = [line for line in lines if "Failure:" in line or "Error:" in line or "Unavailable:" in line]
    return (named or lines or ["no message"])[-1]
