"""What overlap gains: steps an hour with max_staleness 1, as a multiple of those on-policy.

    python -m tests.benchmarks.bench_overlap [--steps 8] [--rounds 3] [--json FILE]
    python -m tests.benchmarks.bench_overlap --real RUN [--steps 4] [--rounds 3] [--set trainer.threads=1] [--json FILE]

Without `--real` it is a SIMULATION: the stage `mgpo` with its own stream, buffer, loader, weight sync, ledger, over an
engine, judges and a trainer that only sleep (tests/pipeline/paced.py). Their ratios are those that a peer measured on
GPUs, time runs faster:

  one-step-off   generation 458 s, trainer 445 s a step: Qwen2.5-Math-7B, DAPO, vLLM on 4 and FSDP2 on 12 of 32 H20
                 (verl, docs/advance/one_step_off.md: generate_sequences; old_log_prob + update_actor); its weight sync
                 took under 0.3 s
  rollout-bound  generation 70 % of the step: DAPO with 32B (the same page)

The trainer's time is set from a step's generation as measured here, so that the ratio is the recorded one; judging is
a tenth of generation, tool calls another (our assumption).

With `--real` it is this machine as it is: `propose mgpo` in both modes from the SFT of the run directory RUN, on
whatever cores this process may use.

Both: rounds alternate, so that load hits both alike. A rate is that of the steps after the first; medians are reported.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import ray

from pipeline.config.loading import load
from pipeline.store import metrics
from pipeline.store.rundir import RunDir
from tests.benchmarks.sides import tell
from tests.pipeline.paced import Pace, run

RECORDED = {"one-step-off": 445 / 458, "rollout-bound": 0.3 / 0.7}
"""Trainer's seconds over generation's."""
ENGINE = Pace(tick_s=0.006, tokens=30, tail=0.8, turns=3, tool_s=0.1, judge_s=0.15, probe_s=0.15, update_s=0.002)
MODES = (0, 1)

Rate = Callable[[Path, int], float]
"""(new run directory, max_staleness) -> steps an hour."""


def per_hour(ends: Sequence[float]) -> float:
    return 3600 * (len(ends) - 1) / (ends[-1] - ends[0])


def simulated(steps: int, ratio: float) -> Rate:
    sizes = ["mgpo.groups=8", "mgpo.group_size=8", "committee.spot_checks=0"]

    def generation_s() -> float:
        with tempfile.TemporaryDirectory() as folder:
            _, log = run(Path(folder) / "run", load(None, [*sizes, "mgpo.steps=4"]), ENGINE)
        began = [min(b for name, b, _, _ in log.played if name.startswith(f"mgpo-{s:06d}")) for s in range(1, 5)]
        return median(end - b for b, (end, _) in zip(began, log.trained, strict=True))

    pace = replace(ENGINE, train_s=ratio * generation_s())

    def rate(root: Path, staleness: int) -> float:
        _, log = run(root, load(None, [*sizes, f"mgpo.steps={steps}", f"mgpo.max_staleness={staleness}"]), pace)
        return per_hour([end for _, end in log.trained])

    return rate


def real(steps: int, base: Path, sets: Sequence[str]) -> Rate:
    def rate(root: Path, staleness: int) -> float:
        for part in ("skills", "stages/acquire.json", "stages/sft.json"):
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (base / part).is_dir() else shutil.copyfile)(base / part, root / part)
        given = [*sets, f"mgpo.steps={steps}", f"mgpo.max_staleness={staleness}"]
        command = [sys.executable, "-m", "pipeline.cli", "mgpo", "--run-dir", str(root), *(f"--set={s}" for s in given)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return per_hour([row["time"] for row in metrics.read(RunDir(root))["mgpo-train"]])

    return rate


def compare(name: str, rate: Rate, rounds: int) -> dict[str, float]:
    rates: dict[int, list[float]] = {mode: [] for mode in MODES}
    for i in range(rounds):
        for mode in MODES if i % 2 == 0 else MODES[::-1]:
            with tempfile.TemporaryDirectory() as folder:
                rates[mode].append(rate(Path(folder) / "run", mode))
                print(f"{name}: round {i + 1}, staleness {mode}: {rates[mode][-1]:.1f} steps/h", file=sys.stderr)
    on_policy, overlap = median(rates[0]), median(rates[1])
    return {
        f"{name}, on-policy, steps/h": on_policy,
        f"{name}, staleness 1, steps/h": overlap,
        f"{name}, gain": overlap / on_policy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="RUN", help="run directory whose SFT is done")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="override for --real, dotted")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, float] = {}
    if args.real:
        found = compare("this machine", real(args.steps, args.real, args.set), args.rounds)
    else:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)  # the loader's batches
        for name, ratio in RECORDED.items():
            found |= compare(f"simulated {name}", simulated(args.steps, ratio), args.rounds)
    tell(found, args.json)


if __name__ == "__main__":
    main()
