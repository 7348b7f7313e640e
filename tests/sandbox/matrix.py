"""The table of sandbox/README.md: every hostile program on every platform. Needs root.

python -m tests.sandbox.matrix [--write] [FOLDER]

--write puts it into sandbox/README.md, else it is printed only; the programs of FOLDER are counted apart.
"""

from __future__ import annotations

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


def main() -> None:
    options = sys.argv[1:]
    text = table(reports([os.path.abspath(word) for word in options if word != "--write"]))
    print(text)
    if "--write" in options:
        before, rest = README.read_text().split(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
