"""The curriculum against uniform draws of categories, on simulated learners (tests/pipeline/skills/learners.py).

    python -m tests.benchmarks.bench_curriculum [--seeds 10] [--groups 150] [--json FILE]

Of each kind of learner the means over the seeds: the share of groups that are of the category which is weakest just
then, the success rate of the weakest category after the last group, and the mean over the categories; and the standard
error of the paired difference in the last two.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from tests.benchmarks.sides import tell
from tests.pipeline.skills.learners import KINDS, course


def measured(seeds: int, groups: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, kind in KINDS.items():
        pairs = [[course(kind, seed, groups, uniform) for uniform in (False, True)] for seed in range(seeds)]
        for figure in ("weakest_share", "weakest", "mean"):
            for n, how in enumerate(("curriculum", "uniform")):
                found[f"{name}, {figure}, {how}"] = mean(getattr(pair[n], figure) for pair in pairs)
        for figure in ("weakest", "mean"):
            differences = [getattr(a, figure) - getattr(b, figure) for a, b in pairs]
            found[f"{name}, {figure}, error of the difference"] = stdev(differences) / seeds**0.5
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--groups", type=int, default=150)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tell(measured(given.seeds, given.groups), given.json)


if __name__ == "__main__":
    main()
