"""Commands about the machine or cluster that a run works on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options as o
from pipeline.commands import screens, target
from pipeline.commands.groups.base import CLUSTER, INPUT, OK, app, command, say
from pipeline.commands.keys import CHAOS_KEYS, DOCTOR_KEYS, MEMORY_KEYS, POOLS_KEYS
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES

plans = typer.Typer(
    cls=screens.Group, help="Say what a config takes, before anything is started.", no_args_is_help=True
)
app.add_typer(plans, name="plan", rich_help_panel=CLUSTER)

Stages = Annotated[
    str | None, typer.Option(metavar="STAGE,...", help="for these alone; default: all that the config can run")
]


@command("doctor", CLUSTER, "say what this machine can do, and what to fix", lambda: DOCTOR_KEYS)
def _doctor(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    stages: Stages = None,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import doctor

    found = doctor.inspect(*target.of(name, config, sets, run_dir), _chosen(stages))
    print(json.dumps(found) if as_json else doctor.render(found))
    return OK if found["ready"] else INPUT


def _chosen(stages: str | None) -> list[str] | None:
    chosen = stages.split(",") if stages else None
    if unknown := [stage for stage in chosen or () if stage not in RUN_STAGES]:
        raise Failure(f"--stages: unknown stage {unknown[0]!r}; expected some of {', '.join(RUN_STAGES)}")
    return chosen


@command("memory", None, "say what each process of each stage holds in memory", lambda: MEMORY_KEYS, of=plans)
def _plan_memory(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    stages: Stages = None,
    gpu_gb: Annotated[
        float | None, typer.Option(metavar="GB", help="of a GPU; default: the smallest here", show_default=False)
    ] = None,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import doctor, memory, room

    settings, _ = target.of(name, config, sets, run_dir)
    gpu_bytes, host_bytes = doctor.memory_here(settings)
    gpu_bytes = gpu_bytes if gpu_gb is None else int(gpu_gb * 1e9)
    found = memory.plan(settings, _chosen(stages) or room.possible(settings), gpu_bytes, host_bytes)
    print(json.dumps(found) if as_json else memory.render(found))
    return INPUT if found["refused"] else OK


@command(
    "pools",
    None,
    "say what a stage would do with its pools: which binds, how many replicas, hours, money.\n\nA simulation, with the "
    "service times of a run, or of a file; counts are the config's, and --set changes them. deploy/README.md says what "
    "is measured and what is assumed",
    lambda: POOLS_KEYS,
    of=plans,
)
def _plan_pools(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="times as this run had them; its config, if no other is named"),
    ] = None,
    times: Annotated[
        Path | None, typer.Option(metavar="FILE", help="times as this YAML file gives them", show_default=False)
    ] = None,
    stage: Annotated[
        str, o.choice("--stage", of=("synthesize", "mgpo"), help="which stage (synthesize)")
    ] = "synthesize",
    gpus: Annotated[
        int | None, o.count("--gpus", least=1, help="share out so many over the pools, in place of max_replicas")
    ] = None,
    gpu_hour: Annotated[float | None, o.amount("--gpu-hour", metavar="PRICE", help="of a GPU-hour")] = None,
    cpu_hour: Annotated[float | None, o.amount("--cpu-hour", metavar="PRICE", help="of a CPU-hour")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="of the simulation")] = 0,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import doctor
    from pipeline.commands.capacity import plan, sources

    root = None if run is None else target.existing(run)
    of = target.of(name if name or config else str(root) if root else None, config, sets, None)
    known = sources.times(root, times, stage)
    same = not sets and gpus is None  # else the run has done another stage than is planned
    found = plan.plan(
        of[0], stage, known, plan.Prices(gpu_hour, cpu_hour), gpus, seed,
        sources.measured(of[1], stage) if same else None, *doctor.memory_here(of[0]),
    )  # fmt: skip
    print(json.dumps(found) if as_json else plan.render(found))
    return INPUT if found["refused"] else OK


@command(
    "serve",
    CLUSTER,
    "answer requests for problems by HTTP, with the trained proposer of a run.\n\nCallers show the key that "
    "$PROPOSE_API_KEY holds, as a bearer token. POST /v1/problems takes ids of skills; /docs shows the rest. "
    "The first SIGTERM or Ctrl-C lets requests under way come to their end",
)
def _serve(
    name: o.Run = None,
    run_dir: o.RunOnly = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="where to listen")] = "127.0.0.1",
    port: Annotated[int, o.count("--port", least=0, help="0: one that is free (8080)")] = 8080,
    waiting: Annotated[
        int, o.count("--waiting", least=0, help="requests that may wait beside those that the proposer takes (64)")
    ] = 64,
    quiet: o.Quiet = False,
) -> int:
    from pipeline.commands.service.process import serve

    key = os.environ.get("PROPOSE_API_KEY", "")
    if not key.strip():
        raise Failure("PROPOSE_API_KEY: not set; expected the key that callers show as a bearer token")
    serve(target.existing(name, run_dir), key, host, port, waiting, lambda line: say(f"serve · {line}"))
    return OK


@command("chaos", CLUSTER, "kill processes of a small MGPO run and measure what it costs", lambda: CHAOS_KEYS)
def _chaos(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    kills: Annotated[int, o.count("--kills", least=0, help="of every kind in turn (30)")] = 30,
    driver_kills: Annotated[int, o.count("--driver-kills", least=0, help="of the whole driver, with resume (5)")] = 5,
    kinds: Annotated[
        str | None, typer.Option(metavar="KIND,...", help="only these; default: every kind but the driver")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="of the order and the moments")] = 0,
    patience: Annotated[
        float, o.amount("--patience", metavar="S", help="seconds to wait for a recovery (300)")
    ] = 300.0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    from pipeline.commands import chaos

    settings, root = target.of(name, config, sets, run_dir)
    chosen = kinds.split(",") if kinds else [kind for kind in chaos.KINDS if kind != "driver"]
    if unknown := [kind for kind in chosen if kind not in chaos.KINDS]:
        raise Failure(f"--kinds: unknown kind {unknown[0]!r}; expected some of {', '.join(chaos.KINDS)}")
    schedule = chaos.plan(chosen, kills, driver_kills, settings.mgpo.steps, seed)
    result = chaos.chaos(settings, root, schedule, seed, patience, lambda text: say(f"chaos · {text}"))
    print(json.dumps(result) if as_json else chaos.render(result))
    return OK if chaos.sound(result) else INPUT
