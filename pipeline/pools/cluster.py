"""What a run has on Ray: its pools and the actors beside the driver, started when first needed, stopped together.

Invariant: every process this module starts ends with `close`, and nothing of another run is touched: a private Ray
is shut down; on a shared cluster the run's lease removes what the run has there, also where nothing was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.serve.handle import DeploymentHandle

from actors.calls import SolverPool, within
from actors.vault import Vault
from actors.weights import WeightStore
from pipeline import domains
from pipeline.config import Config, ModelConfig, ModelTeacherConfig
from pipeline.pools import catalogue, endpoints, environment, gpus, lease, room
from pipeline.pools.buffer import MOST_OPEN, RolloutBuffer
from pipeline.pools.driver_actors import LOOK_S, DriverActors
from pipeline.pools.ray_process import RayProcess
from pipeline.pools.room import Asked
from pipeline.pools.serving import GpuLimit, PoolSpec, Secrets, Serving
from pipeline.records import GONE, Failure, Lost

T = TypeVar("T")
_STATS_S = 10.0
_IDLE_S = 60.0
"""How long a call to Serve may take to return before a restart."""


class Cluster:
    """Handles of the running pools. Starts Ray on first use."""

    def __init__(self, config: Config, root: Path | None, say: Callable[[str, str], None] = lambda *_: None):
        """`root`: the run directory, if there is one. `say`: who is told what is waited for."""
        self.config, self._say = config, say
        self.ray = RayProcess(config.ray)
        self._name = lease.name_of(config, root)
        self._forget()

    def _forget(self) -> None:
        """Nothing runs yet."""
        self.actors = DriverActors(self._name, self.config.ray.labels)
        most = self.config.ray.max_gpus
        limit = None if most is None else GpuLimit(most, lambda pool: gpus.beside(self.config, pool))
        self.serving = Serving(self._name, lambda: self.ray.logs, self._has_room, limit, self.joins, self._secrets)
        self._lease: lease.Held | None = None

    @property
    def joins(self) -> bool:
        """Whether it works on a cluster that was there, and not on a private Ray."""
        return self.config.ray.joined is not None

    def start(self) -> None:
        """Join or start Ray, which the first pool or actor does by itself. Raises Failure."""
        before = self.ray.dashboard
        self.ray.start()
        if self.ray.dashboard != before:
            self._say("ray", f"dashboard at http://{self.ray.dashboard}")
        if self.joins and self._lease is None:
            for line in self._not_kept_apart():
                self._say("ray", line)
        if labels := self.config.ray.labels:
            asked = Asked("ray.labels", 1, {}, labels)
            there, seen = room.seen(asked)
            if not there:
                raise Failure(f"{asked}: no such node; {seen}", "infra_error")
        if not self.ray.private and self._lease is None:
            self._lease = lease.Held(self._name)

    def close(self, shutdown: bool = True) -> None:
        """Stop every process this run started. Safe to call at any time, more than once; `shutdown` as in
        `RayProcess.close`."""
        if not ray.is_initialized():
            return
        if self._lease is not None:
            with contextlib.suppress(Exception):  # the cluster may be gone, which is what we want
                self.actors.end_all()
                self._lease.end(wait=shutdown)
        self.ray.close(shutdown)

    async def idle(self) -> None:
        """Until no thread of ours calls Ray any more: one that still does while Ray goes away kills the process
        (SIGSEGV)."""
        await self.serving.idle()

    async def restart(self, whole: bool) -> None:
        """Begin anew what holds a stage's state: buffer, weight store, loader, launcher and the trainer that it
        started. Pools go on, with the handles they have, unless `whole` is asked for, one never started, or Ray is
        damaged.

        Nobody may be waiting for a pool or actor. Raises Failure where Ray holds on to a call of ours.
        """
        if whole or not self.serving.all_up() or self.ray.damage():
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self.idle()
            except TimeoutError:  # if Ray loses its raylet while pools start, a call of ours never returns
                raise Failure(f"Ray has not answered for {_IDLE_S:g} s", "infra_error") from None
            self.close()
            self._forget()
            return
        self.actors.end_passing()
        # Those of the killed trainer: Ray Train's own clean-up needs a dashboard. Nothing else here makes any.
        lease.remove_groups(ray.get_runtime_context().get_job_id())
        await self.actors.renew()

    async def guarded(self, work: Awaitable[T]) -> T:
        """Await `work`; cancel it (with `GONE`) and raise Lost, at most `LOOK_S` and a little later, if an actor beside
        the driver or a process of Ray's dies: each holds what all the others wait for."""
        task, why = asyncio.ensure_future(work), None
        try:
            while True:
                await asyncio.wait({task}, timeout=LOOK_S)
                failed = task.done() and (task.cancelled() or task.exception() is not None)
                # A failure may be the first sign of a death.
                if (failed or not task.done()) and (dead := await self._dead()):
                    why = GONE
                    raise Lost(f"{dead}: its process is gone")
                if task.done():
                    return await task
        finally:
            if not task.done():
                task.cancel(why)
                await asyncio.gather(task, return_exceptions=True)

    async def _dead(self) -> str | None:
        if not self.actors:
            return None
        return self.ray.damage() or await self.actors.dead()

    async def renew(self, config: Config) -> None:
        """Go on with another run: what holds a policy, its weights or its rollouts is started anew when next needed;
        the pools that judge stay, so `config` must agree with the one before in all that they read."""
        await self.stop_teaching()
        for name in ("proposer", "student"):
            await self.stop(name)
        self.end_loaders()
        for name in ("buffer", "launcher"):
            self.actors.end_named(name)
        self.config = config

    def _not_kept_apart(self) -> Iterator[str]:
        """What other jobs of the cluster may see of ours, or have left in ours."""
        if shown := sorted(environment.theirs().keys() & environment.secrets(endpoints.keys(self.config))):
            yield f"{', '.join(shown)}: set by the job's env_vars, which Ray logs; see deploy/CLUSTER.md, keys"
        if fields := environment.taken_over(environment.of_serve()):
            yield f"Serve was started by a job with {', '.join(fields)} in its runtime env, which the pools have too"

    # ------------------------------------------------------------ actors on the driver's node

    def actor(self, cls: type, *args: Any) -> Any:
        """An actor of one stage, which `end_loaders` ends."""
        self.start()
        return self.actors.start(cls, *args)

    def buffer(self) -> Any:
        """The run's rollout buffer: where every replica sends what it sampled."""
        self.start()
        return self.actors.once("buffer", RolloutBuffer, max(MOST_OPEN, self.config.mgpo.max_staleness), lasting=True)

    def weights(self, policy: str) -> Any:
        """The weight store of a policy (proposer, student)."""
        self.start()
        return self.actors.once(f"weights-{policy}", WeightStore, lasting=True)

    def launcher(self) -> Any:
        """The process that waits for Ray Train."""
        from trainers.launch import Launcher  # brings torch, which not every command needs

        self.start()
        return self.actors.once("launcher", Launcher, list(environment.theirs()), lasting=False)

    def _secrets(self) -> Secrets:
        """With a vault that outlives `renew`, for the pools that do."""
        values = environment.secrets(endpoints.keys(self.config))
        held = {name: value for name, value in values.items() if value}
        vault = self.actors.once("-".join(["vault", *held]), Vault, held, lasting=True, holds=False) if held else None
        return Secrets(values.keys(), vault)

    def end_loaders(self) -> None:
        """End the actors that belong to one stage, because the stage is done."""
        self.actors.end_nameless()

    def nodes_may_take_s(self, asked: Asked) -> float:
        """How long to wait for nodes: not at all where they are there. Raises Failure where none can come."""
        there, seen = room.seen(asked)
        if there:
            return 0.0
        self._say("cluster", f"{asked}: waits for nodes; {seen}")
        return self.config.ray.nodes_timeout_s

    async def _has_room(self, asked: Asked) -> None:
        await room.wait(asked, self.config.ray.nodes_timeout_s, lambda line: self._say("cluster", line))

    # ------------------------------------------------------------ pools

    async def _pool(self, spec: PoolSpec) -> DeploymentHandle:
        self.start()
        if spec.name not in self.serving:
            self._say("pools", f"{catalogue.told(self.config, spec.name)} starts")
        return await self.serving.pool(spec)

    async def sandbox(self) -> DeploymentHandle:
        return await self._pool(catalogue.sandbox(self.config))

    async def sandbox_stats(self) -> dict[str, Any] | None:
        """What a replica of the sandbox pool says of itself; None where no stage has needed one. Raises Failure."""
        if "sandbox" not in self.serving:
            return None
        return await within((await self.sandbox()).stats.remote(), "sandbox", _STATS_S)

    async def probers(self) -> dict[str, SolverPool]:
        """The pools of the prober's ladder, by model path."""
        c, domain = self.config, domains.of(self.config.domain)
        ladder = c.prober.ladder
        specs = [catalogue.solver(c, domain, f"solver-{i}", model) for i, model in enumerate(ladder)]
        handles = await asyncio.gather(*map(self._pool, specs))
        asked = zip(ladder, handles, strict=True)
        return {model.path: SolverPool(handle, model.endpoint is not None) for model, handle in asked}

    async def committee(self) -> DeploymentHandle:
        sandbox, judge = await asyncio.gather(self.sandbox(), self._judge())
        return await self._pool(catalogue.committee(self.config, domains.of(self.config.domain), sandbox, judge))

    async def _judge(self) -> SolverPool:
        """The model that verifiers without an endpoint ask."""
        c = self.config
        if c.committee.judge is None:
            return (await self.probers())[c.judge.path]
        handle = await self._pool(catalogue.solver(c, domains.of(c.domain), "judge", c.judge))
        return SolverPool(handle, c.judge.endpoint is not None)

    async def prober(self) -> DeploymentHandle:
        sandbox, solvers = await asyncio.gather(self.sandbox(), self.probers())
        return await self._pool(catalogue.prober(self.config, sandbox, solvers))

    async def teacher(self) -> DeploymentHandle:
        """Plays episodes as the proposer would, to be learned from."""
        c = self.config
        sandbox, models = await asyncio.gather(self.sandbox(), self.teaching_models())
        return await self._pool(catalogue.teacher(c, domains.of(c.domain), sandbox, self.buffer(), models))

    async def teaching_models(self) -> dict[str, DeploymentHandle]:
        """The pools of teachers that are models of ours, by the field that names them; Ray is not started for none."""
        c, domain = self.config, domains.of(self.config.domain)
        models = {f: t.model for f, (_, t) in c.teacher.each().items() if isinstance(t, ModelTeacherConfig)}
        specs = [catalogue.solver(c, domain, f"teacher-model-{i}", m) for i, m in enumerate(models.values())]
        return dict(zip(models, await asyncio.gather(*map(self._pool, specs)), strict=True))

    async def stop_teaching(self) -> None:
        """Take down what plays a teacher."""
        for name in ("teacher", *(f"teacher-model-{i}" for i in range(len(self.config.teacher.each())))):
            await self.stop(name)

    async def extractor(self, model: ModelConfig) -> DeploymentHandle:
        """A model of ours that proposes skills in the teacher's place."""
        return await self._pool(catalogue.solver(self.config, domains.of(self.config.domain), "extractor", model))

    async def proposer(self, model_dir: Path) -> DeploymentHandle:
        """The policy, from `model_dir` until its weight store has a version."""
        return await self._proposer(self.config, model_dir)

    async def writer(self, model: ModelConfig) -> DeploymentHandle:
        """A proposer that is not trained, in the place of the policy: a checkpoint, or one behind an endpoint."""
        c, domain = self.config.model_copy(update={"proposer": model}), domains.of(self.config.domain)
        await self.stop("proposer")
        if model.endpoint is None:
            return await self._proposer(c, domain.model(model.path))
        return await self._pool(catalogue.proposer_endpoint(c, domain, await self.sandbox(), self.buffer()))

    async def seed_writer(self) -> DeploymentHandle:
        """What writes problems from seeds, in the place of the policy."""
        await self.stop("proposer")
        models = await self.teaching_models()
        return await self._pool(catalogue.seed_writer(self.config, domains.of(self.config.domain), models))

    async def _proposer(self, c: Config, model_dir: Path) -> DeploymentHandle:
        sandbox, weights, sink = await self.sandbox(), self.weights("proposer"), self.buffer()
        return await self._pool(catalogue.proposer(c, domains.of(c.domain), model_dir, sandbox, weights, sink))

    async def student(self, model_dir: Path | None = None) -> DeploymentHandle:
        """The solver in training, from `model_dir` (None: its base model) until its weight store has a version."""
        c = self.config
        base = c.solve.base if model_dir is None else c.solve.base.model_copy(update={"path": str(model_dir)})
        weights, sink = self.weights("student"), self.buffer()
        return await self._pool(catalogue.solver(c, domains.of(c.domain), "student", base, weights, sink))

    async def measured(self, model: ModelConfig) -> DeploymentHandle:
        """A model that is measured alone, in the place of the one that was measured before it."""
        await self.stop("measured")
        return await self._pool(catalogue.solver(self.config, domains.of(self.config.domain), "measured", model))

    async def stop_writing(self) -> None:
        """Take down what writes and teaches; and what judges, where that holds GPUs, which others wait for."""
        ladder = [f"solver-{i}" for i in range(len(self.config.prober.ladder))]
        judging = ("prober", "committee", "judge", *ladder) if self.config.judged_on_gpus else ()
        for name in ("proposer", *judging):
            await self.stop(name)
        await self.stop_teaching()

    async def stop(self, name: str) -> None:
        """Take a pool down, and with it the store that its replicas had their weights from."""
        await self.serving.stop(name)
        self.actors.end_named(f"weights-{name}")
