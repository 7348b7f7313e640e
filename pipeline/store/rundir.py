"""The run directory: where a run keeps everything, and what makes it resumable.

    config.yaml            the resolved config            stages/<stage>.json   a finished stage and its result
    skills/                the skill library              steps/<stage>/NNNNNN/ one atomic step of a stage
    checkpoints/<stage>/   Hugging Face directories       dataset/              problems.jsonl, provenance.jsonl
    metrics.jsonl, tensorboard/, report.html              events.jsonl          what befell the run, for who watches

Invariant: a file or step directory that exists under its final name is whole; it was written under another name,
synced and renamed. One process at a time holds a run directory. It is local, and may have a mirror elsewhere
(`pipeline.store.mirror`), which follows it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store.files import replace, sync, writing
from pipeline.store.identity import config_in, refuse_another
from pipeline.store.snapshot import MIRRORED

if TYPE_CHECKING:
    from pipeline.store.mirror import Mirror

_LAST_S = 5.0
"""What a mirror gets after an interrupt."""


def refuse_foreign(root: Path) -> None:
    """Raises Failure for a directory that holds other things than a run: nothing is to be mixed with them."""
    if os.path.isfile(root / "config.yaml") or os.path.isfile(root / MIRRORED) or not os.path.isdir(root):
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


class RunDir:
    """An open run directory. Use `RunDir.open`; `close` lets the next process in."""

    def __init__(self, root: Path, lock: int):
        self.root = root
        self._lock = lock
        self._mirror: Mirror | None = None

    @classmethod
    def open(cls, root: Path, config: Config) -> RunDir:
        """Create or reopen `root` for this config; where it has a mirror, an empty one is restored from that.

        Raises Failure where the path cannot be written, another process holds it, or it was made with a config
        that computes something else; and what `Mirror.begin` raises.
        """
        root = root.absolute()  # actors on a joined cluster have another working directory
        if ":/" in str(root):  # Path has made one slash of two
            raise Failure(f"run directory {root}: expected a local path; object storage can be its `mirror`")
        refuse_foreign(root)
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip()
            os.close(lock)
            raise Failure(
                f"run directory {root}: in use by process {holder or 'unknown'}; wait, or take another --run-dir"
            ) from None
        run = cls(root, lock)
        try:
            with writing(root):
                os.ftruncate(lock, 0)
                os.pwrite(lock, str(os.getpid()).encode(), 0)
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
        try:
            found = (root / "config.yaml").is_file()
        except OSError as e:
            raise Failure(f"run directory {root}: {e.strerror}; expected the directory of a run") from None
        if not found:
            raise Failure(f"run directory {root}: holds no config.yaml; expected the directory of a run")
        return cls(root, -1), loading.load(root / "config.yaml")

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
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    @staticmethod
    def in_use(root: Path) -> bool:
        """Whether a process holds the run directory."""
        try:
            lock = os.open(root / ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def check_mirror(self) -> None:
        """Raises what keeps the mirror from following, so that a run does not go on for long without it."""
        if self._mirror is not None:
            self._mirror.check()

    def _adopt(self, config: Config) -> None:
        mirrored = self.path(MIRRORED)
        if mirrored.exists() and json.loads(mirrored.read_text())["restoring"]:
            raise Failure(
                f"run directory {self.root}: its restore was interrupted; name its mirror again, or delete it"
            )
        path = self.root / "config.yaml"
        if path.exists() and (self.path("steps").exists() or self.path("stages").exists()):
            refuse_another(config_in(str(path), path.read_bytes()), config, f"run directory {self.root}", "--run-dir")
        self.write_text("config.yaml", loading.dump(config))

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

    # ------------------------------------------------------------ stages

    def result(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left: {"result": ..., "wall_s": ...}; None if it is not done."""
        path = self.path("stages", f"{stage}.json")
        if not path.exists():
            return None
        try:
            done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise Failure(f"{path}: not JSON; delete it to run the stage {stage} again") from None
        if checkpoint := done["result"].get("checkpoint"):
            own = self.path("checkpoints", stage, Path(checkpoint).name)
            if own.is_dir():  # wherever the directory was when it was written: it may have been moved, or restored
                done["result"]["checkpoint"] = str(own)
        return done

    def finish(self, stage: str, result: dict[str, Any], wall_s: float) -> None:
        self.write_json(f"stages/{stage}.json", {"stage": stage, "wall_s": round(wall_s, 2), "result": result})
        self.check_mirror()

    # ------------------------------------------------------------ steps

    def steps(self, stage: str) -> list[Path]:
        """The whole step directories of a stage, in order. Step numbers start at 1 and have no gap."""
        base = self.path("steps", stage)
        found = sorted(p for p in base.iterdir() if p.name.isdigit()) if base.is_dir() else []
        for number, path in enumerate(found, start=1):
            if int(path.name) != number:
                raise Failure(f"{base}: step {number} is missing although step {int(path.name)} exists")
        return found

    @contextlib.contextmanager
    def new_step(self, stage: str, number: int) -> Iterator[Path]:
        """A directory to fill; it takes its final name only if the block ends without an exception."""
        final = self.path("steps", stage, f"{number:06d}")
        temporary = final.with_name(f".{final.name}.tmp")
        with writing(final):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            temporary.replace(final)
            sync(final.parent)  # the name too, before the ledger says that the step is committed
        self.check_mirror()
