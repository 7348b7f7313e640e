"""Learning curves on the bandit of tests/trainers/bandit.py: GRPO on the sparse terminal reward against stage credit.

    python -m tests.benchmarks.bench_bandit [--seeds 10] [--arms 8] [--steps 400] [--curves FILE.csv]

Each learner is shown at each learning rate (Adam), so that none is judged by a rate that suits another. "steps" is the
median over the seeds of the first step from which the policy picks the optimum with probability 0.9; "solved" counts
the seeds that get there; "end" is the median probability after the last step. A table of the learning curves follows:
of each learner at its best rate, the median probability of the optimum after 0, 2, 4, 8 … steps. The CSV holds them
whole: step, then the median and the quartiles of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median, quantiles

import torch

from tests.trainers.bandit import GROUP_SIZE, GROUPS, LEARNERS, SOLVED, curve, steps_to_solve

RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
NOISE = (0.0, 0.3)
"""Share of process rewards that say the opposite of the truth."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arms", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--curves", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"4 stages of {args.arms} arms, {GROUPS} groups of {GROUP_SIZE} episodes a step, {args.seeds} seeds")
    best: dict[str, list[list[float]]] = {}
    for noise in NOISE:
        for name, learner in LEARNERS.items():
            by_rate = {
                lr: [curve(learner, lr, args.steps, seed, args.arms, noise) for seed in range(args.seeds)]
                for lr in RATES
            }
            for lr, curves in by_rate.items():
                solved = sum(max(c) >= SOLVED for c in curves)
                end = median(c[-1] for c in curves)
                print(f"noise {noise:g}  {name:32} lr {lr:<5g} steps {steps_to_solve(curves):>6g}  "
                      f"solved {solved:2}/{args.seeds}  end {end:.3f}", flush=True)  # fmt: skip
            rate = min(RATES, key=lambda lr: (steps_to_solve(by_rate[lr]), -median(c[-1] for c in by_rate[lr])))
            best[f"{name}, noise {noise:g}, lr {rate:g}"] = by_rate[rate]
    print("\n" + _markdown(best))
    if args.curves:
        args.curves.write_text(_csv(best))


def _markdown(best: dict[str, list[list[float]]]) -> str:
    last = len(next(iter(best.values()))[0]) - 1
    steps = [0, *(2**n for n in range(1, last.bit_length()) if 2**n <= last), last]
    lines = [f"| after steps | {' | '.join(map(str, steps))} |", "|---" * (len(steps) + 1) + "|"]
    for name, curves in best.items():
        medians = [f"{median(c[step] for c in curves):.2g}" for step in steps]
        lines.append(f"| {name} | {' | '.join(medians)} |")
    return "\n".join(lines)


def _csv(best: dict[str, list[list[float]]]) -> str:
    header = ["step", *(f'"{name}, {what}"' for name in best for what in ("median", "lower", "upper"))]
    lines = [",".join(header)]
    for step in range(len(next(iter(best.values()))[0])):
        row = [str(step)]
        for curves in best.values():
            lower, middle, upper = quantiles((c[step] for c in curves), n=4)
            row += [f"{middle:.5f}", f"{lower:.5f}", f"{upper:.5f}"]
        lines.append(",".join(row))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
