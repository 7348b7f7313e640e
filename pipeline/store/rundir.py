"""The run directory: where a run keeps everything, and what makes it resumable.

    config.yaml            the resolved config            stages/<stage>.json   a finished stage and its result
    prompts.json           digests of the prompts
    skills/                the skill library              steps/<stage>/NNNNNN/ one atomic step of a stage
    trajectories/          what SFT clones beside them    solutions/            what a solver's warm-up learns from
    dataset/               problems, provenance, card
    checkpoints/<stage>/   Hugging Face directories
    metrics.jsonl, tensorboard/, report.html              events.jsonl          what befell the run, for who watches

Invariant: a file or step directory that exists under its final name is whole; it was written under another name,
synced and renamed. One process at a time holds a run directory. It is local, and may have a mirror elsewhere
(`pipeline.store.mirror`), which follows it.

Digests: each step, checkpoint, data set and skill library has a manifest of its files. A step's names the manifest of
the step before it, and what prompts, metrics and events held then; the commit line of its journal names it, and the
result of a finished stage names them all, with its journals (`manifest`, `verify`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store import manifest
from pipeline.store.digests import MANIFEST, Entry, files_below, seal, write_manifest
from pipeline.store.files import replace, sweep, whole_folder, writing
from pipeline.store.identity import config_damage, config_in, config_text, has_digest, identity_of, refuse_another
from pipeline.store.lock import Lock
from pipeline.store.manifest import Damage
from pipeline.store.run_stages import GATHERED, PRODUCTS, RUN_STAGES, whole_of
from pipeline.store.snapshot import CHECKPOINTS, MIRRORED, mirror_state

if TYPE_CHECKING:
    from pipeline.store.mirror import Mirror

APPENDED = ("metrics.jsonl", "events.jsonl")
"""Files that go on: steps and results vouch for the lines that they held then."""
PROMPTS = "prompts.json"
"""Digests of what the models are told; steps and results vouch for it, too."""
_STEP = re.compile(r"(?!000000)[0-9]{6}|[1-9][0-9]{6,}", re.ASCII)
_CONFIG_AGAIN = "`propose verify --repair --run-dir {}`, with the --config and --set of the run, writes it again"
_LAST_S = 5.0
"""What a mirror gets after an interrupt."""


_OF_A_RUN = ("steps", "stages")
"""What a run is known by where its config is gone."""


def refuse_foreign(root: Path) -> None:
    """Raises Failure for a directory that holds other things than a run: nothing is to be mixed with them."""
    if not os.path.isdir(root) or any(os.path.lexists(root / name) for name in ("config.yaml", MIRRORED, *_OF_A_RUN)):
        return
    with writing(root):
        others = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    if others:
        runs = [name for name in others if os.path.isfile(root / name / "config.yaml")]
        mean = f"; did you mean {root / runs[0]}?" if runs else ""
        raise Failure(
            f"run directory {root}: no run, but holds {others[0]}"
            f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}; expected a new or empty directory, or that "
            f"of a run{mean}"
        )


def refuse_pipes(root: Path) -> None:
    """Raises Failure for what is neither file nor folder: who reads a pipe waits for somebody who writes to it."""
    for folder, _, names in os.walk(root):
        for path in (os.path.join(folder, name) for name in names):
            with contextlib.suppress(OSError):  # a link to nowhere is found where it is read
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise Failure(
                        f"{path}: is neither a file nor a folder; expected one of them: `rm {shlex.quote(path)}`"
                    )


class RunDir:
    """An open run directory. Use `RunDir.open`; `close` lets the next process in."""

    def __init__(self, root: Path, lock: Lock | None = None, identity: str = ""):
        self.root = root
        self._lock = lock
        self._identity = identity
        self._mirror: Mirror | None = None

    @classmethod
    def open(cls, root: Path, config: Config) -> RunDir:
        """Create or reopen `root` for this config; where it has a mirror, an empty one is restored from that.

        Raises Failure where the path cannot be written, another process holds it, or it was made with a config
        that computes something else; and what `Mirror.begin` raises.
        """
        root = named(root.absolute())  # actors on a joined cluster have another working directory
        if ":/" in str(root):  # Path has made one slash of two
            raise Failure(f"run directory {root}: expected a local path; object storage can be its `mirror`")
        refuse_foreign(root)
        refuse_pipes(root)
        run = cls(root, Lock(root), identity_of(config))
        try:
            if config.mirror is None:
                run._adopt(config)
            else:
                run._adopt_mirrored(config, config.mirror)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, root: Path) -> tuple[RunDir, Config]:
        """An existing run directory without taking it, for reports. Raises Failure if it holds no run."""
        run = cls.look(root)
        path = run.path("config.yaml")
        if wrong := config_damage(path):
            raise Failure(f"{path}: {wrong}; {_CONFIG_AGAIN.format(shlex.quote(str(root)))}")
        return run, loading.load(path)

    @classmethod
    def look(cls, root: Path) -> RunDir:
        """The same of one whose config may be damaged."""
        named(root)
        try:
            found = any((root / name).exists() for name in ("config.yaml", *_OF_A_RUN))
        except OSError as e:
            raise Failure(f"run directory {root}: {e.strerror}; expected the directory of a run") from None
        if not found:
            raise Failure(f"run directory {root}: holds no config.yaml; expected the directory of a run")
        refuse_pipes(root)
        _refuse_without_digests(root)
        return cls(root)

    def close(self) -> None:
        """Let the next process in, with the mirror brought up to date, as far as an interrupt leaves time for it.
        Raises Failure where that fails; beside another error it is only told."""
        ended_by = sys.exception()
        try:
            if self._mirror is not None:
                self._mirror.close(_LAST_S if isinstance(ended_by, KeyboardInterrupt) else math.inf)
        except Failure as e:
            if ended_by is None:
                raise
            if e is not ended_by:
                print(f"propose: {e}", file=sys.stderr, flush=True)
        finally:
            self._mirror = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def check_mirror(self) -> None:
        """Raises what keeps the mirror from following, so that a run does not go on for long without it, and Failure
        where the directory is no longer ours alone."""
        self.check_lock()
        if self._mirror is not None:
            self._mirror.check()

    def check_lock(self) -> None:
        """Raises Failure where the directory is no longer ours alone."""
        if self._lock is not None:
            self._lock.check()

    def _adopt(self, config: Config) -> None:
        if (state := mirror_state(self.root)) and state["restoring"]:
            raise Failure(
                f"run directory {self.root}: its restore was interrupted; name its mirror again, or delete it"
            )
        _refuse_without_digests(self.root)
        path, text = self.path("config.yaml"), config_text(config)
        if self.path("steps").exists() or self.path("stages").exists():
            if wrong := config_damage(path):
                raise Failure(f"{path}: {wrong}; {_CONFIG_AGAIN.format(shlex.quote(str(self.root)))}")
            refuse_another(config_in(str(path), path.read_bytes()), config, f"run directory {self.root}", "--run-dir")
        if config_damage(path) or path.read_text(encoding="utf-8") != text:  # a full disk keeps no finished run away
            self.write_text("config.yaml", text)
        for folder in (self.root, self.path("stages")):
            sweep(folder)

    def _adopt_mirrored(self, config: Config, uri: str) -> None:
        from pipeline.store.mirror import Mirror  # brings pyarrow.fs, which no other run needs
        from pipeline.store.remote import RemoteStore

        self._mirror = Mirror(self.root, RemoteStore(uri))
        where = f"mirror {uri}"
        self._mirror.begin(
            lambda content: refuse_another(config_in(f"{where}: config.yaml", content), config, where, "mirror")
        )
        self._adopt(config)
        self._mirror.start()

    # ------------------------------------------------------------ files

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def write_text(self, name: str, text: str) -> Path:
        """Write a whole file or nothing."""
        return replace(self.path(*name.split("/")), text)

    def write_json(self, name: str, value: Any) -> Path:
        return self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def adopt_prompts(self, digests: dict[str, str]) -> None:
        """Note what the run's models are told. Raises Failure where a run that has begun was told something else."""
        path = self.path(PROMPTS)
        if not os.path.lexists(path):
            self.refuse_other_prompts(digests)
        elif self.path("steps").exists() or self.path("stages").exists():
            try:
                before: dict[str, str] = manifest.read(path)
            except Damage as e:
                again = f"`propose verify {shlex.quote(str(self.root))} --repair` makes it again"
                raise Failure(f"{e.path}: {e.what}; {again}") from None
            changed = sorted(role for role in {*before, *digests} if before.get(role) != digests.get(role))
            if changed:
                raise Failure(
                    f"run directory {self.root}: made with other prompts: {', '.join(changed)}; use those, or another "
                    "--run-dir"
                )
        self.write_sealed(PROMPTS, digests)

    def refuse_other_prompts(self, digests: dict[str, str]) -> None:
        """Where prompts.json is lost, results and steps say what it was. Raises Failure."""
        now = hashlib.sha256(seal(digests).encode()).hexdigest()
        for stage in RUN_STAGES:
            done, steps = self._finished(stage), step_folders(self.path("steps", stage))
            told = [done["files"]] if done is not None else []
            told += [manifest.read(step / MANIFEST).get("beside", {}) for step in steps[:1]]
            if any(entries.get(PROMPTS, (0, now))[1] != now for entries in told):
                raise Failure(
                    f"{self.path(PROMPTS)}: is lost, and {stage} was made with other prompts than today's; use "
                    "those, or another --run-dir"
                )

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> Path:
        return self.write_text(name, seal(value))

    # ------------------------------------------------------------ stages

    def result(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left: {"stage", "wall_s", "result"}; None if it is not done. Raises Failure."""
        done = self._finished(stage)
        if done is None:
            return None
        if checkpoint := done["result"].get("checkpoint"):
            own = self.path("checkpoints", stage, Path(checkpoint).name)
            if own.is_dir():  # wherever the directory was when it was written: it may have been moved, or restored
                done["result"]["checkpoint"] = str(own)
        return {name: done[name] for name in ("stage", "wall_s", "result")}

    def _finished(self, stage: str) -> dict[str, Any] | None:
        try:
            return self.finished(stage)
        except Damage as e:
            raise Failure(f"{e.path}: {e.what}; {self.stage_again(stage)}") from None

    def finished(self, stage: str) -> dict[str, Any] | None:
        """All that stages/<stage>.json says: also `run`, `after` (the stages done before), and `files`, the digests of
        what the stage left. Raises Damage."""
        path = self.path("stages", f"{stage}.json")
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):  # a folder that may not be looked into is no stage undone
            return None
        done = manifest.read(path)
        if done.get("stage") != stage:
            raise Damage(path, f"is the result of {done.get('stage')}")
        return done

    def stage_again(self, stage: str) -> str:
        """How a result that is damaged is made again: a command that works as it stands. A part is made again with its
        stage."""
        results = dict.fromkeys((stage, whole_of(stage)))
        away = "".join(self._without(self.path("stages", f"{name}.json")) for name in results)
        return f"`{away}{self.command(whole_of(stage))}` makes it again from the steps on disk"

    def file_again(self, name: str, command: str) -> str:
        """How a file that is damaged is written again by a command that misses it: a line that works as it stands."""
        return f"`{self._without(self.path(name))}{self.command(command)}` writes it again"

    def _without(self, path: Path) -> str:
        """The beginning of a command that takes away what it makes again."""
        return f"rm -r {shlex.quote(str(path))} && " if os.path.lexists(path) else ""

    def command(self, name: str) -> str:
        """The command that goes on with this run, without the options that began it: config.yaml has them all."""
        config, root = shlex.quote(str(self.path("config.yaml"))), shlex.quote(str(self.root))
        return f"propose {name} --config {config} --run-dir {root}"

    def finish(self, stage: str, result: dict[str, Any], wall_s: float) -> None:
        """Write down that a stage is done, with what it left."""
        self.write_sealed(f"stages/{stage}.json", {
            "stage": stage, "wall_s": round(wall_s, 2), "result": result, "run": self._identity,
            "after": sorted({p.stem for p in self.path("stages").glob("[!.]*.json")} - {stage}),
            "files": {name: self._entry(name) for name in self._left_by(stage)},
        })  # fmt: skip
        self.check_mirror()

    def _left_by(self, stage: str) -> Iterator[str]:
        """Files whose digests vouch for all that a stage left."""
        found = [
            *self.path("ledger", stage).glob("[0-9]*.jsonl"),
            *self.path("steps", stage).glob(f"[0-9]*/{MANIFEST}"),
            # What cannot be read of it is made by nobody again, and keeps no stage from its end.
            *(p for p in self.path("quarantine", stage).rglob("[!.]*.json") if p.is_file() and os.access(p, os.R_OK)),
        ]
        checkpoints = self.path("checkpoints", stage)
        if (checkpoints / CHECKPOINTS).is_file():
            found += [checkpoints / CHECKPOINTS, *checkpoints.glob("[!.]*/trainer/manifest-*.json")]
        folders = [name for name, by in (PRODUCTS | GATHERED).items() if by == stage]
        found += [path for name in folders if (path := self.path(name, MANIFEST)).is_file()]
        found += [self.path(name) for name in (*APPENDED, PROMPTS) if self.path(name).is_file()]
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def _entry(self, name: str) -> Entry:
        path = self.path(*name.split("/"))
        try:
            return manifest.of_lines(path) if name in APPENDED else manifest.digest_once(path)
        except OSError as e:
            command = f"propose verify {shlex.quote(str(self.root))}"
            raise Failure(f"{path}: {manifest.cause(e)}; `{command}` says what mends it") from None

    # ------------------------------------------------------------ steps

    def steps(self, stage: str) -> list[Path]:
        """The whole step directories of a stage, in order. Step numbers start at 1 and have no gap."""
        base = self.path("steps", stage)
        found = sorted(step_folders(base), key=lambda path: int(path.name))
        for number, path in enumerate(found, start=1):
            if int(path.name) != number:
                raise Failure(
                    f"{base}: step {number} is missing although step {int(path.name)} exists; see `propose verify "
                    f"{shlex.quote(str(self.root))}`"
                )
        return found

    @contextlib.contextmanager
    def new_step(self, stage: str, number: int) -> Iterator[Path]:
        """A directory to fill; it takes its final name, with a manifest of what it holds, only if the block ends
        without an exception."""
        self.check_mirror()
        final = self.path("steps", stage, f"{number:06d}")
        before = final.with_name(f"{number - 1:06d}") / MANIFEST
        with whole_folder(final) as folder:
            yield folder
            entries = write_manifest(
                folder, f"steps/{stage}/{final.name}", files_below(folder), run=self._identity,
                after=manifest.digest_once(before)[1] if number > 1 and before.is_file() else None,
                beside={name: self._entry(name) for name in (*APPENDED, PROMPTS) if self.path(name).is_file()},
            )  # fmt: skip
        manifest.written(final, entries)
        self.check_mirror()


def named(root: Path) -> Path:
    """Raises Failure where the name is not text: it is written into configs and results."""
    try:
        str(root).encode()
    except UnicodeEncodeError:
        raise Failure(f"run directory {str(root)!r}: its name is not UTF-8; expected one that is") from None
    return root


def _refuse_without_digests(root: Path) -> None:
    """Raises Failure for a run of a version that wrote no digests: no step, no result and no config has one."""
    left = any(next(root.glob(pattern), None) for pattern in ("stages/*.json", "steps/*/[0-9]*"))
    sealed = (path for path in (root / "config.yaml", *root.glob("stages/*.json")) if has_digest(path))
    if left and not any(root.glob(f"steps/*/[0-9]*/{MANIFEST}")) and not any(sealed):
        raise Failure(
            f"run directory {root}: made by a version that wrote no digests, so that damage could not be told from "
            "what it wrote; go on with that version, or take another --run-dir; its checkpoints and "
            "dataset/problems.jsonl can be used by their paths"
        )


def step_folders(base: Path) -> list[Path]:
    """The step directories in a stage's folder, and nothing else that may lie there."""
    return [p for p in base.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()] if base.is_dir() else []
