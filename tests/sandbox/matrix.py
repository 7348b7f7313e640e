"""The table of sandbox/README.md: every hostile program on every platform. Needs root.

python -m tests.sandbox.matrix [--write] [--neighbours 100 [--part 1/4]] [FOLDER]

--write puts it into sandbox/README.md, else it is printed only; the programs of FOLDER are counted apart. --neighbours
prints another table instead: beside each hostile program, while it runs again and again, so many honest runs, and
whether they end as they do alone; --part takes one of so many parts of the programs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from .attacks import ATTACKS, CPP_ATTACKS
from .simulate import PLATFORMS

ROOT = Path(__file__).parents[2]
README = ROOT / "sandbox" / "README.md"
BEGIN, END = "<!-- matrix: python -m tests.sandbox.matrix --write FOLDER -->", "<!-- end of matrix -->"


def reports(folder: list[str]) -> dict[str, list[dict]]:
    found = {}
    for platform in PLATFORMS:
        command = ["-m", "tests.sandbox.simulate", platform, "--", sys.executable, "-m", "tests.sandbox.arena", *folder]
        out = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        found[platform] = [json.loads(line) for line in out.splitlines()]
    return found


def table(found: dict[str, list[dict]]) -> str:
    def line(name: str, cells: list[str]) -> str:
        return f"| {' | '.join([name, *cells])} |"

    heads = [rows[0] for rows in found.values()]
    lines = [line("", list(found)), line("---", ["---"] * len(found))]
    lines.append(line("**level reached**", [f"**{head['level']}**" for head in heads]))
    for layer in heads[0]["layers"]:
        lines.append(line(layer, ["yes" if head["layers"][layer] else "–" for head in heads]))
    outcomes = {platform: {row["name"]: row for row in rows[1:]} for platform, rows in found.items()}
    names = [row["name"] for row in next(iter(found.values()))[1:]]
    own = {attack.name: attack.language for attack in ATTACKS + CPP_ATTACKS}
    checks = [name for name in names if name in ("ordinary programs", "ordinary C++ programs", "nothing left behind")]
    attacks = [name for name in names if name not in checks]
    for name in checks:
        lines.append(line(name, ["yes" if rows[name]["contained"] else "**no**" for rows in outcomes.values()]))
    for title, language in (("hostile Python", "python"), ("hostile C++", "c++"), ("programs of other authors", None)):
        if some := [name for name in attacks if own.get(name) == language]:
            contained = [sum(rows[name]["contained"] for name in some) for rows in outcomes.values()]
            lines.append(line(f"**{title} contained**", [f"**{n} of {len(some)}**" for n in contained]))
    for name in attacks:
        if not all(rows[name]["contained"] for rows in outcomes.values()):
            lines.append(line(name, ["yes" if rows[name]["contained"] else "**no**" for rows in outcomes.values()]))
    return "\n".join(lines)


def crowds(honest: int, part: str, folder: list[str]) -> tuple[str, int, int]:
    """The table of honest runs beside hostile ones, how many of these there were on the platform with the fewest, and
    how many runs ended otherwise than alone."""
    lines = ["| | hostile programs | honest runs | otherwise than alone |", "| --- | --- | --- | --- |"]
    hostile, wrong = list[int](), 0
    for platform in PLATFORMS:
        command = ["-m", "tests.sandbox.simulate", platform, "--", sys.executable, "-m", "tests.sandbox.crowd"]
        run = subprocess.run(
            [sys.executable, *command, str(honest), part, *folder],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=True,
        )
        rows = [json.loads(line) for line in run.stdout.splitlines()[1:]]
        faults = [f"{platform}, {row['name']}: {fault}" for row in rows for fault in row["faults"]]
        print(*faults, sep="\n", file=sys.stderr)
        lines.append(f"| {platform} | {len(rows)} | {len(rows) * (honest // 2) * 2} | {len(faults)} |")
        hostile.append(len(rows))
        wrong += len(faults)
    return "\n".join(lines), min(hostile), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="*", type=os.path.abspath)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--neighbours", type=int, metavar="HONEST")
    parser.add_argument("--part", default="1/1")
    options = parser.parse_args()
    if options.neighbours is not None:
        text, hostile, wrong = crowds(options.neighbours, options.part, options.folder)
        print(text)
        sys.exit(1 if wrong or not hostile else 0)
    text = table(reports(options.folder))
    print(text)
    if options.write:
        before, rest = README.read_text().split(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
