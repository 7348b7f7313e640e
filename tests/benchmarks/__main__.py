"""All ratios in one table, beside the last one that was saved. Asserts nothing.

    python -m tests.benchmarks [NAME ...] [--repeats 3] [--run RUN] [--save]

Each benchmark is a module of this folder with `--json`, and runs in a process of its own, `--repeats` times; a figure
is shown as its median and range over these. NAME: some of the suite alone. Those that play a run's own episodes need
`--run`: a run directory whose SFT is done. `--save` writes the table to table.json, whose figures are the column
`last`; what was not measured now keeps its figures there. Close everything else: two cores share badly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

SAVED = Path(__file__).with_name("table.json")

Figures = dict[str, list[float]]
"""Name -> its value in each repeat."""


@dataclass(frozen=True)
class Benchmark:
    arguments: tuple[str, ...] = ()
    of_a_run: bool = False
    """Whether it needs a run directory, before its other arguments."""


SUITE = {
    "stream": Benchmark(("--rounds", "1"), of_a_run=True),
    "train_step": Benchmark(),
    "head": Benchmark(("--rounds", "1")),
    "handover": Benchmark(),
    "sandbox": Benchmark(("--runs", "50")),
    "verification": Benchmark(("--problems", "128", "--rounds", "1")),
    "control_plane": Benchmark(("--replicas", "1", "4", "16", "64")),
    "straggler": Benchmark(("--target", "2000")),
    "overlap": Benchmark(("--rounds", "1")),
}


def measured(name: str, run: Path | None, repeats: int) -> Figures:
    """Raises CalledProcessError."""
    benchmark, found = SUITE[name], Figures()
    given = [str(run)] if benchmark.of_a_run else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *given, *benchmark.arguments]
        for number in range(repeats):
            print(f"{name}: {number + 1} of {repeats}", file=sys.stderr, flush=True)
            subprocess.run([*command, "--json", str(file)], check=True, stdout=subprocess.DEVNULL)
            for figure, value in flat(json.loads(file.read_text())).items():
                found.setdefault(figure, []).append(value)
    return found


def flat(tree: Any, name: str = "") -> dict[str, float]:
    """The numbers of a tree, by the names that lead to them."""
    if isinstance(tree, dict):
        parts = (flat(value, f"{name}, {key}" if name else str(key)) for key, value in tree.items())
        return {figure: value for part in parts for figure, value in part.items()}
    return {name: float(tree)} if isinstance(tree, int | float) else {}


def table(figures: dict[str, Figures], last: dict[str, Figures]) -> str:
    width = max(len(figure) for of in figures.values() for figure in of)
    lines = [f"{'':{width}} {'median':>12} {'from':>12} {'to':>12} {'last':>12}"]
    for name, of in figures.items():
        lines.append(f"== {name}")
        for figure, values in of.items():
            before = last.get(name, {}).get(figure)
            shown = [median(values), min(values), max(values), *([median(before)] if before else [])]
            lines.append(f"{figure:{width}} " + " ".join(f"{value:12,.2f}" for value in shown))
    return "\n".join(lines)


def machine() -> str:
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    kind = names[0] if names else platform.processor()
    load = ", ".join(f"{of:.1f}" for of in os.getloadavg())
    return f"{len(os.sched_getaffinity(0))} cores of {kind}, Python {platform.python_version()}, load before {load}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITE))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=Path, help="run directory whose SFT is done")
    parser.add_argument("--save", action="store_true", help=f"write the table to {SAVED.name}")
    args = parser.parse_args()
    if unknown := set(args.names) - SUITE.keys():
        parser.error(f"{min(unknown)}: no benchmark of this name; expected some of {', '.join(SUITE)}")
    names = [name for name in SUITE if name in args.names or not args.names]
    if args.run is None and (lacking := [name for name in names if SUITE[name].of_a_run]):
        parser.error(f"{', '.join(lacking)}: expected --run, a run directory whose SFT is done")
    saved = json.loads(SAVED.read_text()) if SAVED.exists() else {"figures": {}}
    where = machine()
    print(where)
    last = dict(saved["figures"])
    for name in names:
        figures = measured(name, args.run, args.repeats)
        print(table({name: figures}, last), flush=True)
        if args.save:
            saved["figures"][name] = figures
            SAVED.write_text(json.dumps(saved | {"machine": where}, indent=1) + "\n")


if __name__ == "__main__":
    main()
