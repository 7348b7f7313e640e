"""The audits of the verifiers: planted defects, which the committee's pools judge, and the adversary, a search in this
process.

Where the run directory is that of a run, what the adversary found is left in it (`adversary.json`), for the report.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pipeline import domains
from pipeline.config import Config
from pipeline.domains.teachers import make_teacher
from pipeline.report.facts import ADVERSARY
from pipeline.scoring import problems
from pipeline.scoring.adversary import search
from pipeline.scoring.audit import run_audit
from pipeline.store import files
from pipeline.store.digests import seal
from pipeline.watch import verbosity


def defects(config: Config, n: int, source: Path | None = None, by_model: bool = False) -> dict[str, Any]:
    """Plant a defect in each of n sound problems, the domain's or those of `source`, and see who notices; `by_model`
    lets the teacher spoil them as well."""
    from pipeline.commands.driver import closing
    from pipeline.pools.cluster import Cluster

    domain = domains.of(config.domain)
    if source is None:
        sound = domain.sound_problems(n, config.seed)
    else:
        sound = [(problems.of_row(row), ()) for row in problems.read(source, n, config.seed)]
    planted = domain.plant(sound, config.seed)
    cluster = Cluster(config, None)

    async def work() -> dict[str, Any]:
        unspoiled: dict[str, int] = {}
        if by_model:
            teacher = make_teacher(config.teacher, domain, await cluster.teaching_models())
            spoiled, unspoiled = await domain.plant_by_model(sound, teacher, config.seed)
            planted.extend(spoiled)
        pool = await cluster.committee()
        return await run_audit(pool, sound, planted, config.seed, _tell) | {"unspoiled": unspoiled}

    return asyncio.run(closing(cluster, work()))


def _tell(line: str) -> None:
    if not verbosity.quiet():
        print(f"audit · {line}", file=sys.stderr, flush=True)


def adversary(config: Config, root: Path, tries: int) -> dict[str, Any]:
    """Let the adversary loose on the judges and the rewards of a config."""
    found = asyncio.run(search(config, domains.of(config.domain), tries, config.seed, _tell))
    if (root / "config.yaml").exists():
        files.replace(root / ADVERSARY, seal(found))
    return found


def render(found: dict[str, Any]) -> str:
    lines = [
        f"{found['exploits']} exploits in {found['tries']} tries ({100 * found['exploit_share']:.2f} %); "
        f"{found['accepted']} accepted, {found['paid']} paid, {found['exported']} would be exported",
        "",
        f"{'descends from':<20}{'tries':>8}{'accepted':>10}{'paid':>8}{'exported':>10}{'exploits':>10}",
    ]
    for kind, n in found["by_kind"].items():
        lines.append(
            f"{kind:<20}{n['tries']:>8}{n['accepted']:>10}{n['paid']:>8}{n['exported']:>10}{n['exploits']:>10}"
        )
    lines += ["", *(f"{fault:<20}{100 * share:>8.2f} % of tries" for fault, share in found["by_fault"].items())]
    for fault, examples in found["examples"].items():
        lines += ["", f"{fault}:"]
        for one in examples:
            lines.append(f"  {one['question']!r} -> {one['answer']!r}, paid {one['paid']} (of {one['kind']})")
            surroundings = {k: one[k] for k in ("offered", "dropped", "turns") if one[k]}
            lines += [f"      {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in surroundings.items()]
    return "\n".join(lines)
