"""`propose verify`: what is damaged, what depends on it, and what can be made again; and the two ways to mend it.

    --repair      from the mirror, else what is derived: prompts, skills, data set, report, TensorBoard, config.yaml;
                  a file that no manifest lists is set aside
    --set-aside   moves a unit and what was built on it to .set-aside/N, so that the next run makes them again

Invariant: a repair replaces only what is damaged, and only by what has the digests that were written, or by what the
run makes of its own sound steps. Nothing is ever deleted: what is replaced or set aside stays in .set-aside.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import domains, report
from pipeline.commands import aside
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.skills import candidates
from pipeline.store import chained, manifest, metrics, verify
from pipeline.store.digests import MANIFEST, files_below
from pipeline.store.identity import config_damage, config_text, identity_of
from pipeline.store.lock import Lock
from pipeline.store.manifest import Damage
from pipeline.store.run_stages import RUN_STAGES, onwards, whole_of
from pipeline.store.rundir import APPENDED, PROMPTS, RunDir, refuse_pipes, step_folders
from pipeline.store.snapshot import MIRRORED
from pipeline.store.verify import Finding

ASIDE = ".set-aside"
_OF_A_DATA_SET = (MANIFEST, "problems.jsonl", "provenance.jsonl")
"""What the folder of one is known by, also where one of them is lost; no run has them at its top."""
_MENDS_A_COPY = {verify.NOT_LISTED: "move it away"}
_UNIT = re.compile(r"(steps|ledger)/([^./][^/]*)/([0-9]{6,})|(checkpoints)/([^./][^/]*)", re.ASCII)


def verify_and_mend(
    place: Path | str, config: Config, mend: bool, unit: str | None
) -> tuple[list[str], dict[str, Any]]:
    """What was mended or set aside, a line each, and what is found after that."""
    done: list[str] = []
    if isinstance(place, str):
        if mend or unit:
            raise Failure(f"{place}: a mirror is mended from its run directory; expected that")
        return done, check(place)
    place = place.absolute()
    if unit:
        done += [f"{name} set aside" for name in set_aside(place, unit)]
    if mend:
        done += repair(place, config)
    return done, check(place)


def check(place: Path | str) -> dict[str, Any]:
    """What `propose verify` tells of a run directory, the URI of a mirror, or the folder of a data set."""
    if isinstance(place, str):
        return _mirror(place)
    if any(os.path.lexists(place / name) for name in _OF_A_DATA_SET):
        refuse_pipes(place)
        return _told(place, [(str(f), [], _MENDS_A_COPY.get(f.what, "take another copy")) for f in dataset(place)])
    run = RunDir.look(place)
    return _told(place, [(str(f), verify.dependents(run, f), verify.mend(run, f)) for f in verify.verify(run)])


def dataset(folder: Path) -> Iterator[Finding]:
    """Findings of a data set, wherever it is: its run is not needed."""
    found = list(verify.manifested(RunDir(folder.parent), folder, folder.name, of="dataset"))
    yield from found
    if all(f.what == verify.NOT_LISTED for f in found):
        for wrong in verify.mispaired(folder):
            yield Finding("provenance.jsonl", wrong, "dataset")


def _told(place: Path | str, findings: list[tuple[str, list[str], str]]) -> dict[str, Any]:
    files = [] if isinstance(place, str) else [place / name for name in files_below(place)]
    return {
        "place": str(place),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files if path.is_file()),
        "findings": [{"what": what, "needed_by": needed_by, "mend": mend} for what, needed_by, mend in findings],
    }


def _mirror(uri: str) -> dict[str, Any]:
    from pipeline.store.mirror import download, manifests
    from pipeline.store.mirror_check import damaged, damaged_manifest
    from pipeline.store.remote import RemoteStore

    remote = RemoteStore(uri)
    last, _ = manifests(remote)
    if not last.number:
        raise Failure(f"mirror {uri}: holds no manifest; expected the mirror of a run")
    bad = damaged(remote, last)
    mend = "`propose verify --repair` of the run directory sends it again"
    found: list[tuple[str, list[str], str]] = [(f"{path}: object {what}", [], mend) for path, what in bad.items()]
    if name := damaged_manifest(remote, last):
        found.append((f"{name}: is lost, or not what was written", [], mend))
    with tempfile.TemporaryDirectory(prefix="propose-") as folder:
        download(remote, last, Path(folder), lambda path: path not in bad)
        run = RunDir(Path(folder))
        found += [
            (str(f), verify.dependents(run, f), "mend it where the run is, and its next `propose run` sends it")
            for f in verify.verify(run)
            if f.path not in (*bad, MIRRORED)  # that is the directory's own
        ]
    told = _told(uri, found)
    return told | {"files": len(last.files), "bytes": sum(entry[0] for entry in last.files.values())}


def render(found: dict[str, Any]) -> str:
    lines = []
    for f in found["findings"]:
        needed = f"; needed by {', '.join(f['needed_by'])}" if f["needed_by"] else ""
        lines.append(f"{f['what']}{needed}; {f['mend']}")
    size = f"{found['files']} files, {found['bytes'] / 1e6:.1f} MB"
    return "\n".join([*lines, f"{found['place']}: {size}, {len(found['findings'])} findings"])


# ---------------------------------------------------------------- mending


def repair(root: Path, config: Config) -> list[str]:
    """Mend what can be mended; says what it did, a line each. `config` is the one that the options name, for a
    config.yaml that is damaged."""
    run = RunDir.look(root)  # before the lock, which makes the directory that it is of
    lock = Lock(root)
    try:
        return list(_repair(run, config))
    finally:
        lock.close()


def _repair(run: RunDir, config: Config) -> Iterator[str]:
    if config_damage(run.path("config.yaml")):
        if identity_of(config) not in _identities(run):
            yield "config.yaml: left as it is, for --config and --set name another config than that of the run"
            return
        _away(run, ["config.yaml"])
        run.write_text("config.yaml", config_text(config))
        yield "config.yaml: written again"
    config = loading.load(run.path("config.yaml"))
    found = verify.verify(run)
    extra = [f.path for f in found if f.what == verify.NOT_LISTED and not Path(f.path).is_absolute()]
    if any(f.unit == "skills" for f in found) and not os.path.lexists(run.path("stages", "acquire.json")):
        extra.append("skills")  # the stage is not done, and makes them anew
    for name in _away(run, extra):
        yield f"{name}: set aside"
    if config.mirror is not None:
        yield from _from_mirror(run, config.mirror)
    damaged = {f.unit for f in verify.verify(run)}
    for unit, again in ((PROMPTS, _prompts), ("skills", _skills), ("dataset", _dataset), ("tensorboard", _tensorboard)):
        if unit in damaged:
            try:
                again(run, config)
                yield f"{unit}: made again"
            except Failure as e:
                yield f"{unit}: cannot be made again: {e}"
    if "report.html" in damaged:
        try:
            _away(run, ["report.html", "summary.json"])
            report.write(run)
            yield "report.html: made again"
        except Failure as e:
            yield f"report.html: cannot be made again: {e}"


def _identities(run: RunDir) -> set[str]:
    """Of the configs that the run's own files say they were made with."""
    found = set()
    results = [*run.path("stages").glob("[!.]*.json")]  # steps may be shared with the run that it was forked from
    for path in results or run.path("steps").glob(f"*/[0-9]*/{MANIFEST}"):
        try:
            found.add(manifest.read(path).get("run", ""))
        except Damage:
            continue  # the next one says it too
    return found


def _skills(run: RunDir, config: Config) -> None:
    from pipeline.stages import acquire  # brings Ray

    done = run.finished("acquire")
    assert done is not None, "a product is looked at where its stage has a result"
    documents = done["result"]["documents"]
    made = acquire.build(run, domains.of(config.domain), config, documents, lambda _: None)
    if made.untried:
        raise Failure(f"no script can be tried: {made.untried}")
    _away(run, ["skills"])
    made.library.save(run.path("skills"), candidates=candidates.written(made.candidates))


def _dataset(run: RunDir, config: Config) -> None:
    from pipeline.stages import synthesize  # brings Ray

    for step in run.steps("synthesize"):
        manifest.verified_folder(step)
    file = f"dataset/{MANIFEST}"
    before = _problems(run)
    _away(run, ["dataset"])
    synthesize.export(run, config)
    try:
        done = run.finished("synthesize")
    except Damage:
        return  # a finding of its own, and the stage writes both anew
    if done is None:  # it ended early
        return
    entry = manifest.digest_once(run.path("dataset", MANIFEST))
    if tuple(done["files"].get(file, ())) == entry:
        return
    if before is None or before != _problems(run):
        raise Failure("the steps make other files than those written; the former ones are in .set-aside")
    run.write_sealed("stages/synthesize.json", done | {"files": done["files"] | {file: entry}})  # of another card


def _problems(run: RunDir) -> manifest.Entry | None:
    """What the manifest of the data set says of its problems; None where it cannot be read."""
    path = run.path("dataset", MANIFEST)
    try:
        return manifest.listed(path, manifest.read(path)).get("problems.jsonl")
    except Damage:
        return None


def _prompts(run: RunDir, config: Config) -> None:
    digests = domains.of(config.domain).prompts.digests()
    run.refuse_other_prompts(digests)
    _away(run, [PROMPTS])
    run.adopt_prompts(digests)


def _tensorboard(run: RunDir, config: Config) -> None:
    _away(run, ["tensorboard"])
    metrics.board_again(run)


def _from_mirror(run: RunDir, uri: str) -> Iterator[str]:
    from pipeline.store.mirror import manifests
    from pipeline.store.mirror_check import mend_manifest, mend_objects
    from pipeline.store.remote import RemoteStore

    remote = RemoteStore(uri)
    last, _ = manifests(remote)
    units = {f.unit for f in verify.verify(run)} - {"report.html", "tensorboard", "config.yaml"}
    units |= {unit.replace("ledger/", "steps/") for unit in units}
    for path, (size, checksum, name) in last.files.items():
        target = run.path(*path.split("/"))
        if not any(path in (unit, f"{unit}.jsonl") or path.startswith(f"{unit}/") for unit in units):
            continue
        appended = path in APPENDED or path.startswith("ledger/")
        tail = b""
        try:
            if (manifest.of_prefix(target, size) if appended else manifest.digest_once(target)) == (size, checksum):
                continue
            tail = target.read_bytes()[size:] if appended else b""  # what was appended since
        except OSError:
            pass  # it is missing, or cannot be read: that is what is mended
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=run.root) as folder:
            there = remote.fetch(name, Path(folder, "file"))
            if there != (size, checksum):
                yield f"{path}: the mirror's copy is damaged too"
                continue
            if chained.continues(Path(folder, "file").read_bytes(), tail):  # else it is that of another file
                with Path(folder, "file").open("ab") as file:
                    file.write(tail)
            _away(run, [path])
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(folder, "file").replace(target)
        yield f"{path}: restored from the mirror"
    yield from mend_objects(remote, last, run.root)
    yield from mend_manifest(remote, last)


# ---------------------------------------------------------------- setting aside


def set_aside(root: Path, unit: str) -> list[str]:
    """Move a unit, and what was built on it, out of the way; returns what was moved."""
    match = _UNIT.fullmatch(unit.strip("/"))
    stage = (match[2] or match[5]) if match else ""
    if match is None or not any((root / kind / stage).exists() for kind in ("steps", "ledger", "checkpoints")):
        raise Failure(
            f"--set-aside {unit}: no such part of {root}; expected steps/STAGE/NNNNNN or checkpoints/STAGE, as "
            "`propose verify` names it"
        )
    lock = Lock(root)
    try:
        run = RunDir.look(root)
        names: list[str | Path] = [f"stages/{stage}.json", f"stages/{whole_of(stage)}.json", f"checkpoints/{stage}"]
        later: list[str] = []
        if match[3]:
            later = onwards(stage)[1:] if stage in RUN_STAGES else []
            names = [path for name in reversed(later) for path in aside.left_by(root, name)]
            names += [f"stages/{stage}.json", f"checkpoints/{stage}", *_from_step(run, stage, int(match[3]))]
        gone = _lines_from(stage, int(match[3]) if match[3] else None, later)
        return aside.take(run, aside.free(root, ASIDE), names, [whole_of(stage), *later], gone)
    finally:
        lock.close()


def _lines_from(stage: str, number: int | None, later: list[str]) -> aside.Gone:
    """The lines of metrics of a stage from a step on (None: of no step), of those after it, and of a training that
    begins again, whose steps are not those of the stage."""
    anew = stage in RUN_STAGES and RUN_STAGES[stage].trains and not RUN_STAGES[stage].on_policy

    def gone(facts: Mapping[str, Any]) -> bool:
        if whole_of(stage) != stage:  # a part, whose lines are called `<stage>-<part>`
            return facts.get("stage") == stage.replace(".", "-")
        if aside.stage_of(facts) != stage:
            return aside.stage_of(facts) in later
        if anew and facts["stage"] == stage:
            return True
        return number is not None and isinstance(facts.get("step"), int) and facts["step"] >= number

    return gone


def _from_step(run: RunDir, stage: str, number: int) -> list[str]:
    """Steps from a number on, and all that stages after it have made."""
    gone = [f"steps/{stage}/{p.name}" for p in step_folders(run.path("steps", stage)) if int(p.name) >= number]
    journals = run.path("ledger", stage).glob("[0-9]*.jsonl")
    gone += [f"ledger/{stage}/{p.name}" for p in journals if p.stem.isdecimal() and int(p.stem) >= number]
    own = RUN_STAGES[stage].makes if stage in RUN_STAGES else None
    return [*gone, *([own] if own else [])]


def _away(run: RunDir, names: list[str]) -> list[str]:
    """What is replaced stays; returns what there was of it."""
    return aside.move(run, aside.free(run.root, ASIDE), names)
