"""Commands that check, measure and compare: a run's accounts, its weights, the verifiers, the method's parts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options as o
from pipeline.commands import screens, target
from pipeline.commands.ablation import grid
from pipeline.commands.groups.base import DIAGNOSIS, INPUT, OK, app, command, print_result, say
from pipeline.commands.keys import ABLATE_KEYS, ADVERSARY_KEYS, AUDIT_KEYS, LEDGER_KEYS, REPLAY_KEYS, VERIFY_KEYS
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store.identity import default_root
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

mini = typer.Typer(cls=screens.Group, help="The bundled mini world.", no_args_is_help=True)
app.add_typer(mini, name="mini", rich_help_panel=DIAGNOSIS)


@command("ledger", DIAGNOSIS, "rollout accounting and consistency check", lambda: LEDGER_KEYS)
def _ledger(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="a run, or the URI of its mirror", autocompletion=o._runs),
    ] = None,
    config: o.ConfigOfRun = None,
    run_dir: o.RunOnly = None,
    steps: Annotated[bool, o.flag("--steps", help="a row a step")] = False,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import ledger
    from pipeline.store import accounts, verify

    uri = target.uri(name, run_dir)
    with tempfile.TemporaryDirectory(prefix="propose-") as folder:
        if uri is not None:
            from pipeline.store.mirror import copy_for_accounts

            copy_for_accounts(uri, Path(folder))
        run = RunDir.look(Path(folder) if uri is not None else target.existing(name, run_dir, config))
        found = accounts.audit(run)
        if uri is None:  # of a mirror only what the accounts need was brought
            found["findings"] += [str(f) for f in verify.verify(run) if f.what not in found["findings"]]
    print(json.dumps(found) if as_json else ledger.render(found, steps))
    for line in found["findings"]:
        screens.tell(f"ledger: {line}")
    return INPUT if found["findings"] else OK


@command("verify", DIAGNOSIS, "hold every file of a run against what was written, and mend it", lambda: VERIFY_KEYS)
def _verify(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="a run, the URI of its mirror, or the folder of a data set", autocompletion=o._runs
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="the run that this config makes; beside RUN, the config that --repair writes again",
            show_default=False,
        ),
    ] = None,
    sets: o.Set = None,
    run_dir: o.RunOnly = None,
    repair: Annotated[
        bool, o.flag("--repair", help="restore from the mirror, or make again what is derived; nothing else")
    ] = False,
    set_aside: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="move steps/STAGE/NNNNNN or checkpoints/STAGE, and what was built on it, away",
            show_default=False,
        ),
    ] = None,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import verify

    uri = target.uri(name, run_dir)
    settings = loading.load(config, list(sets or ()))
    if name is None and run_dir is None and (config is not None or sets):
        run_dir = str(default_root(settings))
    place = uri if uri is not None else target.existing(name, run_dir)
    done, found = verify.verify_and_mend(place, settings, repair, set_aside)
    for line in done:
        say(f"verify · {line}")
    print(json.dumps(found) if as_json else verify.render(found))
    return INPUT if found["findings"] else OK


@command("replay", DIAGNOSIS, "train recorded steps again and compare the weights bit for bit", lambda: REPLAY_KEYS)
def _replay(
    name: o.Run = None,
    config: o.ConfigOfRun = None,
    run_dir: o.RunOnly = None,
    of: Annotated[
        str,
        o.choice("--of", of=tuple(n for n, s in RUN_STAGES.items() if s.on_policy), help="the stage (mgpo)"),
    ] = "mgpo",
    step: Annotated[
        int | None, o.count("--step", least=1, help="with those since the checkpoint before it (the last one)")
    ] = None,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> int:
    root = target.existing(name, run_dir, config)
    run, settings = RunDir.read(root)
    from pipeline.commands.replay import replay

    found = replay(run, settings, of, step)
    print_result(as_json, found)
    if found["different"]:
        with_what = {"run": "the run's checkpoint", "second replay": "a second replay"}[found["compared_with"]]
        screens.tell(
            f"replay: {len(found['different'])} of {found['tensors']} tensors of step {found['step']} differ "
            f"from {with_what}, the first {found['different'][0]}"
        )
    return INPUT if found["different"] else OK


@command("audit-verifiers", DIAGNOSIS, "measure verifiers on known-bad problems", lambda: AUDIT_KEYS | ADVERSARY_KEYS)
def _audit_verifiers(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    problems: Annotated[int, o.count("--problems", least=1, help="sound ones, and as many planted (1000)")] = 1000,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="sound problems with their answers, .jsonl; default: those that the domain makes",
            show_default=False,
        ),
    ] = None,
    by_model: Annotated[bool, o.flag("--by-model", help="let the teacher spoil them as well, as no rule can")] = False,
    adversary: Annotated[
        bool, o.flag("--adversary", help="instead, search for what is paid and should not be; needs no Ray")
    ] = False,
    tries: Annotated[int, o.count("--tries", least=1, help="of the adversary (20000)")] = 20_000,
    as_json: o.Json = False,
) -> int:
    settings, root = target.of(name, config, sets, run_dir)
    from pipeline.commands import audit

    if adversary:
        found = audit.adversary(settings, root, tries)
        print(json.dumps(found) if as_json else audit.render(found))
    else:
        print_result(as_json, audit.defects(settings, problems, source, by_model))
    return OK


_ABLATE = """train and measure the method without its parts, and compare.

Trains every arm of a grid with the same budget, seed by seed, and measures what its proposer writes on held-out skill
combinations, or what a solver learns from it. Two arms of a pair differ in one thing. Before anything is trained it
prints which difference so many seeds would tell; afterwards each ordering holds, is refuted, is no difference (within a
stated bound), or is open, corrected over the pairs of its comparison.

The arms of a seed share their SFT, their tasks and the random numbers of these. A finished (arm, seed) is skipped, an
interrupted one goes on, so the same command can be given until the table is whole; a larger --seeds or --only adds to
it. The solver's base and the benchmark are the same files for all seeds. Results: rows.jsonl (a line for each arm and
seed), table.json, table.md and table.html in the run directory (runs/ablation-<digest>), where each arm is a run of its
own, for `propose report` too. Budgets are equal in episodes and steps; what trains is also compared at equal tokens,
and --tokens makes those of a solver's problems equal in tokens. --only rounds plays three rounds, in which the solver
of one probes the next, under two gates: the proposer's own answer is the truth, and the committee"""


@command("ablate", DIAGNOSIS, _ABLATE, lambda: ABLATE_KEYS, more=grid.tables)
def _ablate(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="comparisons, e.g. sources,rounds (sources,objective,rho,pruning; quick rho,pruning)"
        ),
    ] = None,
    seeds: Annotated[int | None, o.count("--seeds", least=1, help="trainings of every arm (8; quick 2)")] = None,
    episodes: Annotated[
        int | None, o.count("--episodes", least=1, help="measured of each arm, on held-out skills (1000; quick 40)")
    ] = None,
    downstream: Annotated[
        int | None,
        o.count(
            "--downstream",
            least=0,
            help="written for each solver (1000, for arms that are compared by theirs; given, for all arms; quick 40); "
            "0: none is trained, a later call can add it",
        ),
    ] = None,
    tokens: Annotated[
        int | None, o.count("--tokens", least=1, help="that budget in tokens instead, those of probes among them")
    ] = None,
    seed_problems: Annotated[
        str, typer.Option(metavar="FILE", help="what metamath and wizardmath begin with, .jsonl (mini:seeds)")
    ] = "mini:seeds",
    quick: Annotated[bool, o.flag("--quick", help="a small form, to see that all of it works")] = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> int:
    counts = grid.counts(seeds, episodes, downstream, tokens, quick)
    wanted = grid.wanted(only, quick, counts)
    given = [*grid.STATED, *(grid.QUICK if quick else ()), *(sets or ())]

    def configure(overrides: Sequence[str]) -> Config:
        own = [override.replace(grid.SEEDS, seed_problems) for override in overrides]
        return target.of(name, config, [*given, *own], None)[0]

    settings = configure(("name=ablation",))
    root = Path(run_dir) if run_dir is not None else default_root(settings)
    from pipeline.commands.ablation.runs import ablate

    if settings.mirror is not None:
        raise Failure("mirror: an ablation makes many runs, and a mirror holds one; leave it out")
    table = ablate(configure, root, wanted, counts)
    if as_json:
        print(json.dumps(table))
    else:
        print((root / "table.md").read_text() + f"\npage      {target.shown(root / 'table.html')}")
    return OK


@command("build", None, "train the bundled models again, from scratch", of=mini)
def _mini_build(
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder for proposer/ and solver/")],
    seed: Annotated[int, typer.Option(metavar="N", help="of weights and data")] = 0,
    scale: Annotated[float, o.amount("--scale", help="share of the training steps, to try it out (1)")] = 1.0,
    threads: Annotated[int, o.count("--threads", least=1, help="of the trainer (2)")] = 2,
    quiet: o.Quiet = False,
) -> int:
    from pipeline import domains
    from pipeline.config import MiniDomainConfig

    domains.of(MiniDomainConfig()).build(out, seed=seed, scale=scale, threads=threads, say=say)
    print(out)
    return OK
