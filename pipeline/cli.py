"""The command line: `propose`.

Invariant: stdout holds the result alone (one JSON object with `--json`), everything else goes to stderr. Exit codes:
0 done · 2 one line on stderr says what to change · 130 interrupted, the same command goes on · 1 a fault of ours, with
the file that holds its traceback.

Heavy imports (Ray, torch, vLLM) happen inside the commands that need them, so that `--help` and `config` are instant.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.keys import (
    ABLATE_KEYS,
    ADVERSARY_KEYS,
    AUDIT_KEYS,
    CHAOS_KEYS,
    DOCTOR_KEYS,
    LEDGER_KEYS,
    REPLAY_KEYS,
    STAGE_KEYS,
    VALID_KEYS,
)
from pipeline.commands.options import Parser, at_least, more_than_none
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES


def main(argv: list[str] | None = None) -> None:
    # Ray ends, without a word, a process whose raylet is gone and whose parent is process 1: an orphaned worker, but
    # also a driver in many containers. Told of another process to look at, before it is imported, it leaves us alone.
    os.environ["RAY_RAYLET_PID"] = str(os.getpid())
    try:
        args = _parser().parse_args(argv)
        code = args.command(args)
    except Failure as e:
        print(f"propose: {e}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("propose: interrupted; the same command goes on from here", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 1  # whoever read our output has gone
    except Exception as e:
        if missing := _not_installed(e):
            print(f"propose: {missing}", file=sys.stderr)
            code = 2
        else:
            path = _keep(traceback.format_exc())
            print(f"propose: {type(e).__name__}: {e} (this is a fault in propose; traceback: {path})", file=sys.stderr)
            code = 1
    sys.stdout.flush()
    if code == 130:
        os._exit(code)  # sys.exit would wait for threads that wait for slow storage
    sys.exit(code)


def _not_installed(e: Exception) -> str | None:
    """What to do about a package that only the whole stack brings; None if that is not what happened."""
    package = e.name.partition(".")[0] if isinstance(e, ModuleNotFoundError) and e.name else None
    if package in (None, "pipeline", "actors", "trainers", "sandbox"):
        return None
    return f"package {package}: not installed; expected the whole stack, by ./deploy/run.sh or pip install '.[cpu]'"


def _keep(text: str) -> Path:
    """Write down a traceback, in the working directory or, where that cannot be, among temporary files."""
    name = f"propose-error-{os.getpid()}.log"
    try:
        path = Path(name).absolute()
        path.write_text(text)
    except OSError:
        path = Path(tempfile.gettempdir(), name)
        path.write_text(text)
    return path


# ---------------------------------------------------------------- commands


def _run(args: argparse.Namespace) -> int:
    """All stages, or one, then the report."""
    config, root = _config(args)
    from pipeline import report
    from pipeline.commands.driver import drive
    from pipeline.store.rundir import RunDir

    stages = list(RUN_STAGES) if args.stage is None else [args.stage]
    results = drive(config, root, stages)
    run = RunDir.open(root, config)  # and no reader, so that its mirror gets the page too
    try:
        page = report.write(run)
    finally:
        run.close()
    if args.stage is None:
        _print(args.json, report.summary(run), f"data set  {root / 'dataset' / 'problems.jsonl'}\nreport    {page}")
    else:
        _print(args.json, results[args.stage])
    return 0


def _report(args: argparse.Namespace) -> int:
    from pipeline import report

    run, _ = _open(args.run_dir or _config(args)[1])
    page = report.write(run)
    _print(args.json, report.summary(run), f"report    {page}")
    return 0


def _ledger(args: argparse.Namespace) -> int:
    from pipeline.store import accounts

    with tempfile.TemporaryDirectory(prefix="propose-") as folder:
        root = args.run_dir or _config(args)[1]
        if isinstance(root, str):
            from pipeline.store.mirror import copy_for_accounts

            copy_for_accounts(root, Path(folder))
            root = Path(folder)
        run, _ = _open(root)
        found = accounts.audit(run)
    print(json.dumps(found) if args.json else accounts.render(found))
    for line in found["findings"]:
        print(f"propose: ledger: {line}", file=sys.stderr)
    return 2 if found["findings"] else 0


def _replay(args: argparse.Namespace) -> int:
    from pipeline.commands.replay import replay

    run, config = _open(args.run_dir or _config(args)[1])
    found = replay(run, config, args.of, args.step)
    _print(args.json, found)
    if found["different"]:
        with_what = {"run": "the run's checkpoint", "second replay": "a second replay"}[found["compared_with"]]
        print(
            f"propose: replay: {len(found['different'])} of {found['tensors']} tensors of step {found['step']} differ "
            f"from {with_what}, the first {found['different'][0]}",
            file=sys.stderr,
        )
    return 2 if found["different"] else 0


def _chaos(args: argparse.Namespace) -> int:
    from pipeline.commands import chaos

    config, root = _config(args)
    kinds = args.kinds.split(",") if args.kinds else [kind for kind in chaos.KINDS if kind != "driver"]
    if unknown := [kind for kind in kinds if kind not in chaos.KINDS]:
        raise Failure(f"--kinds: unknown kind {unknown[0]!r}; expected some of {', '.join(chaos.KINDS)}")
    schedule = chaos.plan(kinds, args.kills, args.driver_kills, config.mgpo.steps, args.seed)
    result = chaos.chaos(
        config, root, schedule, args.seed, args.patience,
        lambda text: print(f"chaos · {text}", file=sys.stderr, flush=True),
    )  # fmt: skip
    print(json.dumps(result) if args.json else chaos.render(result))
    return 0 if chaos.sound(result) else 2


def _doctor(args: argparse.Namespace) -> int:
    from pipeline.commands import doctor

    config, root = _config(args)
    found = doctor.inspect(config, root)
    print(json.dumps(found) if args.json else doctor.render(found))
    return 0 if found["ready"] else 2


def _audit_verifiers(args: argparse.Namespace) -> int:
    config, root = _config(args)
    from pipeline.commands import audit

    if args.adversary:
        result = audit.adversary(config, root, args.adversary)
        print(json.dumps(result) if args.json else audit.render(result))
    else:
        _print(args.json, audit.defects(config, args.problems, args.source, args.by_model))
    return 0


def _ablate(args: argparse.Namespace) -> int:
    from pipeline.commands.ablation import grid
    from pipeline.commands.ablation.runs import ablate
    from pipeline.store.identity import default_root

    quick = grid.QUICK if args.quick else ()
    wanted = (
        tuple(args.only.split(",")) if args.only else grid.QUICK_COMPARISONS if args.quick else tuple(grid.COMPARISONS)
    )
    if unknown := [name for name in wanted if name not in grid.COMPARISONS]:
        raise Failure(f"--only {unknown[0]}: no comparison; expected some of {', '.join(grid.COMPARISONS)}")
    seeds, episodes, downstream = (
        given if given is not None else default
        for given, default in zip(
            (args.seeds, args.episodes, args.downstream), (2, 40, 0) if args.quick else (3, 160, 240), strict=True
        )
    )

    def configure(overrides: Sequence[str]) -> Config:
        return loading.load(args.config, [*quick, *args.set, *overrides])

    config = configure(("name=ablation",))
    if config.mirror is not None:
        raise Failure("mirror: an ablation makes many runs, and a mirror holds one; leave it out")
    root = Path(args.run_dir or default_root(config))
    table = ablate(configure, root, wanted, seeds, episodes, downstream)
    if args.json:
        print(json.dumps(table))
    else:
        print((root / "table.md").read_text() + f"\npage      {root / 'table.html'}")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    config, _ = _config(args)
    print(
        json.dumps(config.model_dump(mode="json")) if args.json else loading.dump(config),
        end="\n" if args.json else "",
    )
    return 0


def _config_validate(args: argparse.Namespace) -> int:
    config, root = _config(args)
    if args.json:
        print(json.dumps({"valid": True, "name": config.name, "run_dir": str(root)}))
    else:
        print(f"valid: run {config.name!r}, run directory {root}")
    return 0


def _mini_build(args: argparse.Namespace) -> int:
    from pipeline import domains
    from pipeline.config import MiniDomainConfig

    domains.of(MiniDomainConfig()).build(
        args.out, seed=args.seed, scale=args.scale, threads=args.threads, say=lambda t: print(t, file=sys.stderr)
    )
    print(args.out)
    return 0


# ---------------------------------------------------------------- shared


def _config(args: argparse.Namespace) -> tuple[Config, Path]:
    """The config that the options name, and its run directory."""
    from pipeline.store.identity import default_root

    config = loading.load(args.config, args.set)
    return config, Path(args.run_dir or default_root(config))


def _path_or_uri(text: str) -> Path | str:
    """A URI stays one: `Path` would make one slash of two."""
    return text if "://" in text else Path(text)


def _open(root: Path) -> Any:
    from pipeline.store.rundir import RunDir

    return RunDir.read(Path(root))


def _print(as_json: bool, result: Mapping[str, Any], more: str = "") -> None:
    if as_json:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
        print(f"{name:<{width}}  {_shown(value)}")
    if more:
        print(more)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + " ".join(f"{k}={_shown(v)}" for k, v in value.items()) + ")"
    return "-" if value is None else str(value)


def _parser() -> Parser:
    from pipeline.report import SUMMARY_KEYS

    parser = Parser(
        prog="propose",
        description="Train an agent that writes hard, verified problems; make data sets and better solvers with it.",
        epilog="A run is resumed by giving the same command again. Start with `propose doctor`, then `propose run`.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Any, help: str, keys: Mapping[str, str] | None = None, of: Any = commands) -> Any:
        sub = of.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_keys(keys) if keys else None,
        )
        sub.set_defaults(command=command, stage=None)
        sub.add_argument("--config", type=Path, metavar="FILE", help="YAML; without it the mini world's defaults")
        sub.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="override, e.g. trainer.workers=2"
        )
        sub.add_argument(
            "--run-dir",
            type=_path_or_uri,
            metavar="DIR",
            help="default: runs/<name>-<digest of the config>, so it resumes; `ledger` takes the URI of a mirror too",
        )
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout; logs stay on stderr")
        return sub

    add("run", _run, "run all stages, skipping what is done, and write the report", SUMMARY_KEYS)
    for name, stage in RUN_STAGES.items():
        add(name, _run, stage.summary, STAGE_KEYS[name]).set_defaults(stage=name)
    add("report", _report, "write report.html of whatever a run directory holds", SUMMARY_KEYS)
    add("ledger", _ledger, "print the accounts of a run and find what does not add up", LEDGER_KEYS)
    replay = add("replay", _replay, "train recorded steps again and compare the weights bit for bit", REPLAY_KEYS)
    replay.add_argument(
        "--of",
        choices=[name for name, stage in RUN_STAGES.items() if stage.on_policy],
        default="mgpo",
        help="the stage (mgpo)",
    )
    replay.add_argument(
        "--step", type=at_least(1), metavar="N", help="with those since the checkpoint before it (the last one)"
    )
    chaos = add("chaos", _chaos, "kill processes of a small MGPO run and measure what it costs", CHAOS_KEYS)
    chaos.add_argument("--kills", type=at_least(0), default=30, metavar="N", help="of every kind in turn (30)")
    chaos.add_argument(
        "--driver-kills", type=at_least(0), default=5, metavar="N", help="of the whole driver, with resume (5)"
    )
    chaos.add_argument("--kinds", metavar="KIND,...", help="only these; default: every kind but the driver")
    chaos.add_argument("--seed", type=int, default=0, help="of the order and the moments")
    chaos.add_argument(
        "--patience", type=more_than_none, default=300.0, metavar="S", help="seconds to wait for a recovery (300)"
    )
    add(
        "doctor",
        _doctor,
        "say what this machine can do, and what to mend",
        DOCTOR_KEYS,
    )

    audit = add(
        "audit-verifiers", _audit_verifiers, "plant defects and measure who notices", AUDIT_KEYS | ADVERSARY_KEYS
    )
    audit.add_argument(
        "--problems", type=at_least(1), default=1000, metavar="N", help="sound ones, and as many planted (1000)"
    )
    audit.add_argument(
        "--adversary", type=at_least(1), nargs="?", const=20_000, metavar="N",
        help="instead, search so many tries long (20000) for what is paid and should not be; needs no Ray",
    )  # fmt: skip
    audit.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="sound problems with their answers, .jsonl; default: those that the domain makes",
    )
    audit.add_argument("--by-model", action="store_true", help="let the teacher spoil them as well, as no rule can")

    ablate = add("ablate", _ablate, "train and measure the method without its parts, and compare", ABLATE_KEYS)
    ablate.description = _ablation_help()
    ablate.add_argument("--only", metavar="NAMES", help="comparisons, e.g. rl,pruning; default: all")
    ablate.add_argument("--seeds", type=at_least(1), metavar="N", help="trainings of every arm (3; quick 2)")
    ablate.add_argument(
        "--episodes", type=at_least(1), metavar="N", help="measured of each arm, on held-out skills (160; quick 40)"
    )
    ablate.add_argument(
        "--downstream",
        type=at_least(0),
        metavar="N",
        help="written by each arm for its solver; 0: no solver, a later call can add it (240; quick 0)",
    )
    ablate.add_argument("--quick", action="store_true", help="a small form; a seed took 7 minutes on two busy cores")

    config: Any = commands.add_parser("config", help="show or validate a config").add_subparsers(
        required=True, metavar="WHAT"
    )
    add("show", _config_show, "print the resolved config", of=config)
    add(
        "validate",
        _config_validate,
        "check a config",
        VALID_KEYS,
        of=config,
    )

    mini: Any = commands.add_parser("mini", help="the bundled mini world")
    mini = mini.add_subparsers(required=True, metavar="WHAT")
    build = mini.add_parser("build", help="train the bundled models again, from scratch")
    build.set_defaults(command=_mini_build)
    build.add_argument("--out", type=Path, required=True, help="folder for proposer/ and solver/")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--scale", type=more_than_none, default=1.0, help="share of the training steps, to try it out")
    build.add_argument("--threads", type=at_least(1), default=2)
    return parser


def _ablation_help() -> str:
    from pipeline.commands.ablation.grid import ARMS, COMPARISONS

    width = max(map(len, ARMS))
    return "\n".join(
        [
            "Train every arm of a grid with the same budget, measure what its proposer writes on held-out skill",
            "combinations, and say which of the paper's orderings hold, with intervals over seeds.",
            "",
            "The arms of a seed share their SFT. A finished (arm, seed) is skipped, an interrupted one goes on, so the",
            "same command can be given until the table is whole; a larger --seeds or --only adds to it. Results:",
            "table.json, table.md and table.html in the run directory (runs/ablation-<digest>), where each arm is a",
            "run of its own, for `propose report` too. Budgets are equal in episodes and steps, not in tokens.",
            "",
            "comparisons:",
            *(f"  {name:<{width}}  {', '.join(c.arms)}" for name, c in COMPARISONS.items()),
            "",
            "arms:",
            *(f"  {name:<{width}}  {arm.meaning}" for name, arm in ARMS.items()),
        ]
    )


def _keys(keys: Mapping[str, str]) -> str:
    width = max(map(len, keys))
    return "keys of --json:\n" + "\n".join(f"  {k:<{width}}  {meaning}" for k, meaning in keys.items())


if __name__ == "__main__":
    main()
