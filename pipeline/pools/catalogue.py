"""Which pools a run has: for each, the class of its replicas and what they are made with, as the config says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from actors.calls import SolverPool
from actors.chat import system_prompt
from actors.committee import Committee
from actors.prober import Prober
from actors.proposer import Proposer
from actors.rewriting.writer import SeedWriter
from actors.sandbox_pool import SandboxPool
from actors.solver import EndpointSolver, Solver
from actors.teacher import EndpointPolicy, TeacherProposer
from pipeline.config import Config, ModelConfig, ModelTeacherConfig
from pipeline.domains.base import Domain
from pipeline.domains.teachers import make_teacher
from pipeline.pools.serving import PoolSpec
from pipeline.records import Failure
from pipeline.scoring import seeds


def told(c: Config, pool: str) -> str:
    """What people are told of a pool: its name, and the field of the config that it is made by where that is another
    one."""
    kind, _, number = pool.rpartition("-")
    teachers = [field for field, (_, teacher) in c.teacher.each().items() if isinstance(teacher, ModelTeacherConfig)]
    field = {
        "student": "solve.base", "judge": "committee.judge", "extractor": "acquire.proposer", "measured": "evaluate",
    }.get(pool)  # fmt: skip
    if kind == "solver":
        field = f"prober.ladder.{number}"
    if kind == "teacher-model":
        field = f"{teachers[int(number)]}.model"
    return pool if field is None else f"{pool} ({field})"


def sandbox(c: Config) -> PoolSpec:
    s = c.sandbox
    limits = {"wall_s": s.wall_s, "cpu_s": s.cpu_s, "memory_mb": s.memory_mb}
    arguments = {"slots": s.slots, "minimum": s.minimum, "limits": limits, "queue": s.queue}
    return PoolSpec("sandbox", s.pool, SandboxPool, arguments, trusted=False)


def committee(c: Config, domain: Domain, sandbox: DeploymentHandle, judge: SolverPool) -> PoolSpec:
    arguments = {"config": c.committee, "sandbox": sandbox, "solver": judge, "prompts": domain.prompts.roles}
    return PoolSpec("committee", c.committee.pool, Committee, arguments, longest_call_s=c.committee.timeout_s)


def prober(c: Config, sandbox: DeploymentHandle, solvers: dict[str, SolverPool]) -> PoolSpec:
    """`solvers`: the probers of the ladder, by model path."""
    arguments = {"config": c.prober, "solvers": solvers, "sandbox": sandbox}
    return PoolSpec("prober", c.prober.pool, Prober, arguments, longest_call_s=c.prober.longest_s)


def teacher(c: Config, domain: Domain, sandbox: DeploymentHandle, sink: Any, models: Mapping[str, Any]) -> PoolSpec:
    """`models`: pools of teachers that are models of ours, by field."""
    model_dir = domain.model(c.proposer.path)
    arguments = {
        "teacher": make_teacher(c.teacher, domain, models),
        "model_dir": str(model_dir),
        "episode": c.episode,
        "sandbox": sandbox,
        "sink": sink,
        "system_prompt": _proposer_prompt(c, domain, model_dir),
        "kind_of": domain.answer_kind,
        "styles": domain.prompts.styles(c.sft.styles),
    }
    return PoolSpec("teacher", c.teacher.pool, TeacherProposer, arguments, longest_call_s=c.episode.limits.wall_s)


def proposer(
    c: Config, domain: Domain, model_dir: Path, sandbox: DeploymentHandle, weights: Any, sink: Any
) -> PoolSpec:
    """The policy, from `model_dir` until its weight store has a version."""
    arguments = {
        "model_dir": str(model_dir),
        "engine": c.proposer.engine,
        "episode": c.episode,
        "seed": c.seed,
        "sandbox": sandbox,
        "system_prompt": _proposer_prompt(c, domain, model_dir),
        "kind_of": domain.answer_kind,
        "weights": weights,
        "sink": sink,
    }
    return PoolSpec(
        "proposer", c.proposer.pool, Proposer, arguments, c.proposer.engine.threads, c.episode.limits.wall_s
    )


def proposer_endpoint(c: Config, domain: Domain, sandbox: DeploymentHandle, sink: Any) -> PoolSpec:
    """A proposer that answers behind an endpoint."""
    assert c.proposer.endpoint is not None
    arguments = {
        "teacher": EndpointPolicy(c.proposer.endpoint, c.episode.sampling),
        "model_dir": None,
        "episode": c.episode,
        "sandbox": sandbox,
        "sink": sink,
        "system_prompt": c.system_prompt or domain.prompts.proposer,
        "kind_of": domain.answer_kind,
    }
    return PoolSpec("proposer", c.proposer.pool, TeacherProposer, arguments, longest_call_s=c.episode.limits.wall_s)


def seed_writer(c: Config, domain: Domain, models: Mapping[str, Any]) -> PoolSpec:
    """Writes problems from seeds, in the proposer's place; `models` as for the teacher, who is asked. Raises Failure
    where there are no seeds, or problems of the domain are not rewritten."""
    asked, prompts = c.synthesize.rewrite, domain.prompts.rewriting
    assert asked is not None, "started where it is configured"
    if not prompts:
        raise Failure(f"synthesize.rewrite ({asked.kind}): this domain has no prompts for it; expected none")
    arguments = {
        "teacher": make_teacher(c.teacher, domain, models),
        "rewriting": asked.load()(asked, prompts),
        "seeds": {group: seed.problem for group, seed in seeds.read(c, domain).items()},
        "model_dir": None if c.proposer.endpoint is not None else str(domain.model(c.proposer.path)),
        "limits": c.episode.limits,
        "kind_of": domain.answer_kind,
    }
    return PoolSpec("proposer", c.teacher.pool, SeedWriter, arguments, longest_call_s=c.episode.limits.wall_s)


def solver(
    c: Config, domain: Domain, name: str, model: ModelConfig, weights: Any | None = None, sink: Any | None = None
) -> PoolSpec:
    """A model that answers questions: a prober, the judge, or with weights the solver in training."""
    longest_s = max(c.prober.timeout_s, c.solve.timeout_s)
    if model.endpoint is not None:
        asked = {"endpoint": model.endpoint, "prompts": domain.prompts.solvers()}
        return PoolSpec(name, model.pool, EndpointSolver, asked, longest_call_s=longest_s)
    model_dir = domain.model(model.path)
    arguments = {
        "model_dir": str(model_dir),
        "engine": model.engine,
        "seed": c.seed,
        "prompts": {kind: system_prompt(model_dir, told) for kind, told in domain.prompts.solvers().items()},
        "weights": weights,
        "sink": sink,
    }
    return PoolSpec(name, model.pool, Solver, arguments, model.engine.threads, longest_s)


def _proposer_prompt(c: Config, domain: Domain, model_dir: Path) -> str:
    return c.system_prompt or system_prompt(model_dir, domain.prompts.proposer)
