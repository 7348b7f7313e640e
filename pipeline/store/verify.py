"""Everything that a run wrote, held against the digests that it wrote with it.

    config.yaml      its own digest                      skills, dataset, …  manifest, named by the stage's result
    stages/*.json    sealed; names what its stage left   steps/*/*           manifest, named by the next and the journal
    ledger/          the chain of its lines, `accounts`  checkpoints/*/*     a manifest of each rank
    metrics, events  the chain of their lines, `told`    tensorboard/, report.html, quarantine/   their own

Invariant: content that differs in any bit from what was written is a finding; what a crash may leave is none. A finding
says which file, what is wrong, what depends on it, and how it is mended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records import Failure
from pipeline.store import accounts, events, manifest, metrics, own, told
from pipeline.store.digests import MANIFEST, files_below
from pipeline.store.identity import config_damage
from pipeline.store.manifest import Damage, cause, differs
from pipeline.store.pairs import Pairs
from pipeline.store.run_stages import GATHERED, PRODUCTS, RUN_STAGES, whole_of
from pipeline.store.rundir import APPENDED, PROMPTS, RunDir, step_folders
from pipeline.store.snapshot import CHECKPOINTS, MIRRORED, registered

NOT_LISTED = "is in no manifest, so that nobody vouches for it"
_STEP = re.compile(r"step (\d+)|/(\d{6,})\.jsonl", re.ASCII)


@dataclass(frozen=True)
class Finding:
    path: str
    """In the run directory."""
    what: str
    unit: str
    """The folder or file that is mended as a whole: steps/<stage>/NNNNNN, checkpoints/<stage>, dataset, …"""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def verify(run: RunDir, whole: bool = True) -> list[Finding]:
    """All findings of a run, in the order in which they are mended; unless `whole`, of what takes no time: neither of
    the files of steps and checkpoints, nor of pages. Raises nothing for what is damaged. Beside a run that is going on,
    what is found once may have been on its way: what is found again is damage."""
    first = _look(run, whole)
    return [finding for finding in _look(run, whole) if finding in first] if first else []


def _look(run: RunDir, whole: bool) -> list[Finding]:
    found = list(_all(run, whole))
    gone = {f.path for f in found if not os.path.exists(run.path(f.path))}  # several tell of it, and one is enough
    once = {f.path if f.path in gone else str(f): f for f in reversed(found)}
    return sorted(once.values(), key=_place)


def _all(run: RunDir, whole: bool = True) -> Iterator[Finding]:
    """As they are found; what several tell of comes several times."""
    yield from _config(run)
    yield from _lines(run)
    yield from (f for f in _own(run) if whole or f.unit not in own.PAGES)
    if whole:
        manifest.digest_ahead(run.root)
    for stage in _stages(run):
        found = list(_result(run, stage))
        if whole:
            found += [*_steps(run, stage), *_checkpoints(run, stage, registered_in(run, stage))]
        yield from found
        if whole and all(
            f.unit.startswith(("ledger", "quarantine")) for f in found
        ):  # else what these are held against
            yield from _accounts(run, stage)
    for product, maker in PRODUCTS.items():
        left = run.path(product).exists() and step_folders(run.path("steps", maker))  # it ended early, or is not done
        if left or os.path.lexists(run.path("stages", f"{maker}.json")):
            yield from _product(run, product)
    for name in GATHERED:
        if os.path.lexists(run.path(name)):  # that one is gone is told by the result of its stage
            yield from manifested(run, run.path(name), name)


_IN_A_STAGE = ("steps", "ledger", "quarantine", "checkpoints", "stages")


def _place(finding: Finding) -> tuple[int, int, int, str]:
    """What follows from others comes after them, so that it is mended after them."""
    top, *rest = finding.path.split("/")
    if top in ("config.yaml", PROMPTS):
        return 0, 0, 0, finding.path
    stages = list(RUN_STAGES)
    if top in _IN_A_STAGE and rest:
        stage = whole_of(rest[0].removesuffix(".json"))
        return 1, stages.index(stage) if stage in stages else len(stages), _IN_A_STAGE.index(top), finding.path
    if of := PRODUCTS.get(top) or GATHERED.get(top):
        return 1, stages.index(whole_of(of)), len(_IN_A_STAGE), finding.path
    return 2, int(finding.unit in own.PAGES), 0, finding.path


def product_of(run: RunDir, stage: str) -> None:
    """Raises Failure with the first finding of what a finished stage has made for others than this run."""
    product = RUN_STAGES[stage].makes if stage in RUN_STAGES else None
    if product and run.path("stages", f"{stage}.json").exists():
        for finding in _product(run, product):
            raise Failure(f"{run.root}/{finding}; {mend(run, finding)}")


def preflight(run: RunDir, stage: str) -> None:
    """Raises Failure with the first finding of what a stage is about to build on, and the command that mends it. A
    stage that is no stage of a run (of an ablation) has no needs but its own steps."""
    for need in RUN_STAGES[stage].reads if stage in RUN_STAGES else (f"steps/{stage}",):
        for finding in _needed(run, stage, need):
            raise Failure(f"{run.root}/{finding}; {mend(run, finding)}")


def _needed(run: RunDir, stage: str, need: str) -> Iterator[Finding]:
    kind, _, of = need.partition("/")
    own = of == stage
    if kind == "stages":
        yield from (f for f in _result(run, of) if stage in dependents(run, f))
    elif kind == "steps":
        yield from _gap(run, of)
        for folder in _sorted(run, of):
            yield from _step(run, of, folder)
        if own:
            yield from _accounts(run, of)
    elif kind == "checkpoints" and not own:
        left = _left_with(run, of)
        if left and (run.root in left.parents or (left / "trainer/manifest-0.json").exists()):  # nobody else's model
            yield from _checkpoint(run, left, _named(run, left), f"checkpoints/{of}")
    elif kind == "checkpoints":
        yield from _checkpoints(run, of, registered_in(run, of)[-1:])
    elif os.path.lexists(run.path("stages", f"{PRODUCTS[kind]}.json")):  # else the stage says what is not done
        yield from _product(run, kind)


# ---------------------------------------------------------------- what mends, what depends

_DERIVED = ("config.yaml", "prompts.json", "dataset", "skills", "report.html", "tensorboard")
"""What `--repair` makes again without a mirror."""


def mend(run: RunDir, finding: Finding) -> str:
    """The command that mends a finding, in words for the end of a line."""
    command = f"propose verify {shlex.quote(str(run.root))}"
    kind, _, rest = finding.unit.partition("/")
    if kind in PRODUCTS and finding.what != NOT_LISTED:
        for source in _steps(run, PRODUCTS[kind]):
            return mend(run, source)  # what it is made from comes first, and takes it along
    stage = rest.partition("/")[0].removesuffix(".json")
    if finding.what == NOT_LISTED:
        return f"`{command} --repair` sets it aside"
    if kind == MIRRORED:
        there, away = shlex.quote(str(run.root)), shlex.quote(f"{run.root}.away")
        again = f"propose run --config {away}/config.yaml --run-dir {there}"
        return f"`mv {there} {away} && {again}` restores the run from its mirror"
    if kind == "skills" and not run.path("stages", f"{PRODUCTS[kind]}.json").exists():
        return f"`{command} --repair` sets it aside, and {PRODUCTS[kind]} makes it again"
    if kind in _DERIVED:
        return f"`{command} --repair`{' with the --config and --set of the run' if kind == 'config.yaml' else ''} " + (
            "writes it again" if kind == "config.yaml" else "makes it again"
        )
    mirrored = f"`{command} --repair` restores it from the mirror; without, " if run.path(MIRRORED).exists() else ""
    if kind == "stages" or kind in GATHERED:
        return mirrored + run.stage_again(GATHERED.get(kind, stage))
    if kind == "adversary.json":
        return mirrored + run.file_again(kind, "audit-verifiers --adversary")
    undone = stage in RUN_STAGES and not run.path("stages", f"{stage}.json").exists()
    if kind in ("steps", "checkpoints") or (kind == "ledger" and undone):
        of = whole_of(stage)
        again = run.command(of if kind == "checkpoints" and of in RUN_STAGES else "run")
        unread = "no stage needs it; " if of in RUN_STAGES and not dependents(run, finding) else ""  # an older one
        return f"{unread}{mirrored}`{command} --set-aside {shlex.quote(finding.unit)} && {again}` has it made again"
    if kind == "ledger":
        return f"{mirrored}it cannot be made again, and only the accounts of {stage} depend on it"
    return f"{mirrored}it cannot be made again, and no stage depends on it"


def dependents(run: RunDir, finding: Finding) -> list[str]:
    """The stages that have read it, or will: those that `preflight` would not let begin."""
    if finding.unit in ("config.yaml", PROMPTS):  # no stage begins without them
        return list(RUN_STAGES)
    path = Path(finding.path)
    return [name for name in RUN_STAGES if any(place in (path, *path.parents) for place in _read_by(run, name))]


def _read_by(run: RunDir, stage: str) -> Iterator[Path]:
    """Files and folders that a stage builds on, as findings name them."""
    for need in RUN_STAGES[stage].reads:
        kind, _, of = need.partition("/")
        if kind == "checkpoints" and of == stage:
            yield Path(need, CHECKPOINTS)
            yield from (Path(need, name) for name in registered_in(run, of)[-1:])
        elif kind == "checkpoints":
            with contextlib.suppress(Failure):  # the result is damaged, and that keeps the stage from beginning
                if left := _left_with(run, of):
                    yield Path(_named(run, left))
        else:
            yield Path(f"{need}.json" if kind == "stages" else need)
            if need == f"steps/{stage}":
                yield Path("ledger", stage)


def _left_with(run: RunDir, stage: str) -> Path | None:
    """The checkpoint that a stage was finished with. Raises Failure."""
    done = run.result(stage)
    return Path(done["result"]["checkpoint"]) if done and done["result"].get("checkpoint") else None


def _named(run: RunDir, path: Path) -> str:
    """A path as findings name it."""
    return path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path)


# ---------------------------------------------------------------- units


def _config(run: RunDir) -> Iterator[Finding]:
    if wrong := config_damage(run.path("config.yaml")):
        yield Finding("config.yaml", wrong, "config.yaml")


def _result(run: RunDir, stage: str) -> Iterator[Finding]:
    """The result of a stage, and what it says that the stage left."""
    name = f"stages/{stage}.json"
    try:
        done = run.finished(stage)
    except Damage as e:
        yield _finding(run, e, name)
        return
    if done is None:
        return
    for file, (size, checksum) in done["files"].items():
        if file in (*APPENDED, PROMPTS):  # not of this stage alone: `told`
            continue
        if wrong := differs(_where(run, done, file), (size, checksum)):
            yield Finding(file, f"{wrong} (by {name})", _unit(file))


def _where(run: RunDir, done: dict[str, Any], file: str) -> Path:
    """A checkpoint may lie where it was trained: the arms of an ablation share one."""
    path, checkpoint = run.path(*file.split("/")), done["result"].get("checkpoint")
    if file.startswith("checkpoints/") and checkpoint and not run.path("checkpoints", done["stage"]).exists():
        return Path(checkpoint).parent.joinpath(*file.split("/")[2:])
    return path


_PAIRED: set[str] = set()
"""Digests of manifests of steps whose verdicts and probes were found to be of their episodes."""


def _steps(run: RunDir, stage: str) -> Iterator[Finding]:
    yield from _gap(run, stage)
    for folder in _sorted(run, stage):
        yield from _step(run, stage, folder)


def _gap(run: RunDir, stage: str) -> Iterator[Finding]:
    numbers = [int(folder.name) for folder in _sorted(run, stage)]
    for missing in sorted(set(range(1, max(numbers, default=0))) - set(numbers))[:1]:
        unit = f"steps/{stage}/{missing:06d}"
        yield Finding(unit, f"is missing although step {numbers[-1]} exists", unit)


def _step(run: RunDir, stage: str, folder: Path) -> Iterator[Finding]:
    unit = f"steps/{stage}/{folder.name}"
    found = list(manifested(run, folder, unit))
    yield from found
    if any(f.what != NOT_LISTED for f in found):
        return
    stated, number = manifest.read(folder / MANIFEST), int(folder.name)
    before = folder.with_name(f"{number - 1:06d}")
    with contextlib.suppress(Damage):  # then it is that step which is damaged
        if number > 1 and manifest.read(before / MANIFEST) and stated.get("after") != accounts.manifest_of(before):
            yield Finding(f"{unit}/{MANIFEST}", f"does not follow from the {MANIFEST} of step {before.name}", unit)
    known = accounts.manifest_of(folder)
    if "verdicts.parquet" in stated["files"] and known not in _PAIRED:
        try:
            wrong = list(Pairs.on_disk(folder).wrong())
        except Damage as e:
            yield _finding(run, e, unit)
            return
        yield from (Finding(unit, line, unit) for line in wrong)
        if known and not wrong:
            _PAIRED.add(known)


def manifested(run: RunDir, folder: Path, unit: str, name: str = MANIFEST, of: str | None = None) -> Iterator[Finding]:
    """The files of a folder against its manifest."""
    try:
        stated = manifest.read(folder / name)
        listed = manifest.listed(folder / name, stated)
    except Damage as e:
        yield _finding(run, e, unit)
        return
    ours = stated["of"] == (of or unit)
    if not ours:
        yield Finding(f"{unit}/{name}", f"is the manifest of {stated['of']}", unit)
    for file, entry in listed.items():
        if wrong := differs(folder / file, entry):
            yield Finding(f"{unit}/{file}", wrong, unit)
    if name == MANIFEST and ours:  # of checkpoints each rank lists its own
        for file in sorted(set(files_below(folder)) - listed.keys() - {name}):
            yield Finding(f"{unit}/{file}", NOT_LISTED, unit)


def registered_in(run: RunDir, stage: str) -> list[str]:
    """The checkpoints that Ray Train's list names, oldest first; none where it cannot be read."""
    try:
        return sorted(registered(run.path("checkpoints", stage, CHECKPOINTS).read_bytes()))
    except (OSError, ValueError):
        return []


def _checkpoints(run: RunDir, stage: str, names: list[str]) -> Iterator[Finding]:
    unit, base = f"checkpoints/{stage}", run.path("checkpoints", stage)
    try:
        registered((base / CHECKPOINTS).read_bytes())
    except FileNotFoundError:
        if list(base.glob("[!.]*/trainer/manifest-0.json")):
            yield Finding(f"{unit}/{CHECKPOINTS}", "is missing, and there are checkpoints", unit)
    except (OSError, ValueError) as e:
        wrong = cause(e) if isinstance(e, OSError) else f"is not what Ray Train wrote ({manifest.brief(e)})"
        yield Finding(f"{unit}/{CHECKPOINTS}", wrong, unit)
    for name in names:
        yield from _checkpoint(run, base / name, f"{unit}/{name}", unit)


def _checkpoint(run: RunDir, folder: Path, place: str, unit: str) -> Iterator[Finding]:
    manifests = sorted(f for f in files_below(folder) if f.startswith("trainer/manifest-")) if folder.is_dir() else []
    if "trainer/manifest-0.json" not in manifests:
        yield Finding(f"{place}/trainer/manifest-0.json", "is missing", unit)
        return
    known = set(manifests)
    for name in manifests:
        for f in manifested(run, folder, place, name, folder.name):
            yield Finding(f.path, f.what, unit)
        try:
            known |= manifest.listed(folder / name, manifest.read(folder / name)).keys()
        except Damage:
            return
    try:
        world = json.loads((folder / "trainer/state.json").read_text(encoding="utf-8"))["world"]
        if world != len(manifests):
            yield Finding(f"{place}/trainer", f"has {len(manifests)} manifests, {world} ranks have written", unit)
    except (OSError, ValueError, KeyError, TypeError):
        return  # found above
    for file in sorted(set(files_below(folder)) - known):
        yield Finding(f"{place}/{file}", NOT_LISTED, unit)


def _product(run: RunDir, name: str) -> Iterator[Finding]:
    """The skill library or the data set."""
    found = list(manifested(run, run.path(name), name))
    yield from found
    if name == "dataset" and all(f.what == NOT_LISTED for f in found):
        for wrong in mispaired(run.path(name)):
            yield Finding("dataset/provenance.jsonl", wrong, name)
        for unit, checksum in manifest.read(run.path(name, MANIFEST))["made_from"].items():
            path = run.path(*unit.split("/"))
            other = unit.startswith("steps/") and path.is_file() and manifest.digest_once(path)[1] != checksum
            if other and not list(_step(run, PRODUCTS[name], path.parent)):  # else it is the step that is damaged
                yield Finding(f"dataset/{MANIFEST}", f"was made from another {unit}", name)


def mispaired(folder: Path) -> Iterator[str]:
    """Rows of a data set whose provenance is of another problem."""
    from pipeline.records import Problem

    if not (folder / "provenance.jsonl").exists():
        return
    problems, origins = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line]
        for name in ("problems", "provenance")
    )
    if len(problems) != len(origins):
        yield f"has {len(origins)} rows, problems.jsonl has {len(problems)}"
    for number, (problem, origin) in enumerate(zip(problems, origins, strict=False), start=1):
        if Problem.make(problem["question"], "").id != origin["id"]:
            yield f"row {number} is of {origin['id']}, which is not the problem of that row"


def _accounts(run: RunDir, stage: str) -> Iterator[Finding]:
    issues = stage in RUN_STAGES and RUN_STAGES[stage].issues_attempts
    if issues and (run.path("ledger", stage).exists() or step_folders(run.path("steps", stage))):
        for line in accounts.findings(run, stage):
            step = _STEP.search(line)
            unit = f"ledger/{stage}/{int(step[1] or step[2]) if step else 1:06d}"
            yield Finding(f"{unit}.jsonl", line, unit)


def _own(run: RunDir) -> Iterator[Finding]:
    yield from (Finding(*found) for found in own.findings(run))
    yield from (Finding(path, wrong, _unit(path)) for path, wrong in told.findings(run))


def _lines(run: RunDir) -> Iterator[Finding]:
    """The lines of metrics and events."""
    for file, damage in ((metrics.FILE, metrics.damage), (events.FILE, events.damage)):
        try:
            for number in damage(run):
                yield Finding(f"{file}:{number}", "is not the line that was written; readers leave it out", file)
        except Failure as e:
            yield Finding(file, str(e), file)
    steps = (_sorted(run, name) for name, stage in RUN_STAGES.items() if stage.issues_attempts)
    if not run.path(metrics.FILE).exists() and any(steps):
        yield Finding(metrics.FILE, "is missing", metrics.FILE)


# ---------------------------------------------------------------- shared


def _stages(run: RunDir) -> list[str]:
    """Those of a run, in order, and others that have left something (an ablation's)."""
    left = {
        p.name.removesuffix(".json")
        for folder in ("steps", "ledger", "checkpoints", "stages")
        for p in (run.path(folder).iterdir() if run.path(folder).is_dir() else ())
        if not p.name.startswith(".") and (p.is_dir() or p.suffix == ".json")
    }
    return [*RUN_STAGES, *sorted(left - RUN_STAGES.keys())]


def _sorted(run: RunDir, stage: str) -> list[Path]:
    return sorted(step_folders(run.path("steps", stage)), key=lambda p: int(p.name))


def _finding(run: RunDir, e: Damage, unit: str) -> Finding:
    return Finding(_named(run, e.path), e.what, unit)


def _unit(file: str) -> str:
    parts = file.split("/")
    size = {"steps": 3, "checkpoints": 2, "ledger": 2, "stages": 2, "quarantine": len(parts)}.get(parts[0], 1)
    return "/".join(parts[:size])
