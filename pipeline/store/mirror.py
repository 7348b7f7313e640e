"""The mirror: a copy of the run directory that outlives the machine (config `mirror`).

    <mirror>/manifest-0.json, -1.json         what counts: files, sizes, checksums, objects; written in turn
    <mirror>/files/<path>.<number>-<session>  content, named by the manifest that it was written for
    <mirror>/holder.json                      the process that writes here, and its heartbeat

A run works in a local directory, which engines, DeepSpeed and the journals need; object storage is no substitute for
one. So the mirror follows: a thread takes a snapshot of the run directory (`snapshot`), sends the files that are new,
then one manifest, then looks again. Whatever a stage ends (a result, a step with its segment and journal, a
checkpoint, the data set) is in the next snapshot, all of it or nothing. On a machine whose run directory is empty, the
same command first brings everything that the last manifest names, and goes on from there; what the manifest does not
name has not happened, attempts included. That suits a spot instance: the disk is fast and goes, the bucket stays.

Consumes snapshots; produces manifests. Nothing waits for it but `close`, so slow storage slows no step: one snapshot is
under way, the next is taken when it is done, hence what a dead machine loses is at most what it did during two of them.
Each call of the storage has a deadline (`RemoteStore`); whoever works asks `check`, which raises what the thread ran
into, and loses nothing: the run directory is whole without its mirror. A manifest has about 180 bytes a file. On S3,
`allow_delayed_open=true` among the URI's parameters sends a small file in one request, not three.

Invariant: the valid manifest with the highest number names only objects that are whole. An object is never written
again under its name once a manifest names it, and is deleted only when neither manifest does. A manifest carries a
checksum, and overwrites the older of the two, so a process that dies in the middle of writing it leaves the other.

One process at a time writes here. It has put its name into the holder and renews it; another one that starts watches
the holder for three beats and refuses while it moves; a holder that was believed dead and is not finds another's name
before it writes its next manifest, and stops. Object stores have no locks, so two that start in the same instant may
both begin: one of them stops at its first manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.records import Failure
from pipeline.store import snapshot
from pipeline.store.digests import seal
from pipeline.store.files import replace
from pipeline.store.manifest import altered
from pipeline.store.remote import RemoteStore
from pipeline.store.snapshot import MIRRORED, Found, Moving

BEAT_S = 5.0
POLL_S = 1.0
_SOON_S = 2.0
STREAMS = 8
"""Files on their way at once."""
_LISTINGS, _AGAIN_S = 50, 0.1
_DIGITS = 8
MANIFEST = "manifest-{}.json"
_HOLDER = "holder.json"


@dataclass(frozen=True)
class Manifest:
    number: int
    session: str
    time: float
    host: str
    root: str
    files: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """Path in the run directory -> bytes, SHA-256, object."""

    @property
    def id(self) -> str:
        return f"{self.number}-{self.session}"

    @property
    def has_made_something(self) -> bool:
        return any(path.startswith(("steps/", "stages/")) for path in self.files)


NOTHING = Manifest(0, "", 0.0, "", "")


class Mirror:
    """Of one run directory, for the process that holds it: `begin`, `start`, work, `close`."""

    def __init__(self, root: Path, remote: RemoteStore, beat_s: float = BEAT_S, poll_s: float = POLL_S):
        self._root, self._remote = root, remote
        self._beat_s, self._poll_s = beat_s, poll_s
        self._session = uuid.uuid4().hex[:12]
        self._mine: dict[str, Any] = {
            "session": self._session,
            "host": socket.gethostname(),
            "root": str(root),
            "pid": os.getpid(),
        }
        self._last = self._before = NOTHING
        self._seen: dict[str, Found] = {}
        self._whole: snapshot.Whole = {}
        self._held = False
        self._holding = threading.Lock()
        self._ending, self._ended = threading.Event(), threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._error: BaseException | None = None

    # ------------------------------------------------------------ from the thread of the run

    def begin(self, accept: Callable[[bytes], None]) -> None:
        """Take the mirror, and restore what it holds where the run directory is empty.

        `accept` is given the config.yaml of a run that has made something, and raises Failure where it is not ours.
        Raises Failure where another process writes here, or both this directory and another one have gone on.
        """
        self._claim()
        self._last, self._before = manifests(self._remote)
        state = self._state()
        if self._last.id == state["known"][-1]:
            self._seen = {path: Found(*stamp) for path, stamp in state["seen"].items()}
        if self._last.number and self._last.id not in state["known"]:
            if not state["restoring"] and any(not p.name.startswith(".") for p in self._root.iterdir()):
                raise Failure(
                    f"mirror {self._remote.uri}: was last written from {self._last.host}:{self._last.root}, and "
                    f"{self._root} holds something else; move that away to restore, or name another mirror"
                )
            if self._last.has_made_something:
                accept(self._content("config.yaml"))
            self._restore()
        elif not (self._root / MIRRORED).exists():  # before config.yaml names the mirror
            self._remember([""])
        self._sweep()

    def start(self) -> None:
        self._follower.start()

    def check(self) -> None:
        """Raises what the mirror ran into, if anything."""
        if self._error is not None:
            raise self._error
        if silent := self._remote.silent():
            raise Failure(f"{silent}; what is in the run directory is safe: run the same command again", "infra_error")

    def close(self, within_s: float = math.inf) -> None:
        """Bring the mirror up to date and let go of it. Raises what keeps it from that; what takes longer than
        `within_s` is left to the next process."""
        until = time.monotonic() + within_s
        self._ending.set()
        if self._follower.is_alive():
            self._follower.join(min(_SOON_S, within_s))
        if self._follower.is_alive():
            _say(f"brings {self._remote.uri} up to date")
        try:
            self._await(self._follower, until)
        finally:
            self._ended.set()
        self._await(self._heart, until)
        self.check()

    def _await(self, thread: threading.Thread, until: float) -> None:
        while thread.is_alive():
            thread.join(0.1)
            if time.monotonic() > until:
                raise Failure(
                    f"mirror {self._remote.uri}: lags behind the run directory; the same command brings it up to date",
                    "infra_error",
                )
            if silent := self._remote.silent():
                raise Failure(f"{silent}; the run directory is ahead of it", "infra_error")

    # ------------------------------------------------------------ who writes here

    def _claim(self) -> None:
        seen = self._holder()
        # Whoever held this directory on this machine is dead, for its lock is ours.
        if seen and not seen.get("released") and (seen["host"], seen["root"]) != (self._mine["host"], str(self._root)):
            _say(
                f"watches {self._remote.uri} for {3 * self._beat_s:g} s, for {seen['host']}:{seen['root']} may be alive"
            )
            until = time.monotonic() + 3 * self._beat_s
            while time.monotonic() < until:
                time.sleep(self._beat_s / 4)
                if (now := self._holder()) != seen:
                    if now and now.get("released"):
                        break
                    raise Failure(
                        f"mirror {self._remote.uri}: in use by process {seen['pid']} on {seen['host']} "
                        f"({seen['root']}); wait, or name another mirror"
                    )
        self._remote.write(_HOLDER, sealed(self._mine))
        self._held = True
        self._heart.start()

    def _holder(self) -> dict[str, Any] | None:
        return unseal(self._remote.read(_HOLDER))

    def _still_mine(self) -> None:
        """Raises Failure where another process has taken the mirror."""
        now = self._holder()
        if now is not None and now["session"] != self._session:
            self._held = False
            raise Failure(
                f"mirror {self._remote.uri}: was taken over by process {now['pid']} on {now['host']} ({now['root']}); "
                f"what is in {self._root} is safe, and no longer goes there"
            )

    def _beat(self) -> None:
        beats = 0
        try:
            while not self._ended.wait(self._beat_s):
                beats += 1
                with self._holding:
                    self._still_mine()
                    if not self._ended.is_set():
                        self._remote.write(_HOLDER, sealed(self._mine | {"beat": beats}))
            if self._held and self._error is None and not self._follower.is_alive():
                self._remote.write(_HOLDER, sealed(self._mine | {"released": True}))
        except BaseException as e:
            self._error = self._error or e

    # ------------------------------------------------------------ following the run

    def _follow(self) -> None:
        try:
            while not self._ending.wait(self._poll_s) and self._error is None:
                self.sync()
            if self._error is None:
                self.sync()
        except BaseException as e:
            self._error = self._error or e

    def sync(self) -> None:
        """Make the mirror what the run directory is now."""
        for _ in range(_LISTINGS):
            try:
                return self._sync()
            except Moving as e:
                moving = e
                time.sleep(_AGAIN_S)
        raise Failure(f"mirror {self._remote.uri}: the run directory cannot be listed: {moving}")

    def _sync(self) -> None:
        found = snapshot.take(self._root, self._whole)
        self._refuse_losses(found)
        new = {path: file for path, file in found.items() if self._seen.get(path) != file}
        if not new and found.keys() == self._last.files.keys():
            return
        number = self._last.number + 1
        with _opened(self._root, new) as held, ThreadPoolExecutor(STREAMS) as pool:
            sent = pool.map(lambda path: self._send(path, new[path], held.get(path), number), new)
            entries = dict(zip(new, sent, strict=True))
        self._seen = found
        files = {path: entries.get(path) or self._last.files[path] for path in found}
        if files == self._last.files:
            return  # touched, and the same
        with self._holding:
            self._still_mine()
        manifest = Manifest(number, self._session, time.time(), self._mine["host"], str(self._root), files)
        self._remember([self._last.id, manifest.id])
        self._remote.write(MANIFEST.format(number % 2), sealed(asdict(manifest)))
        old, self._before, self._last = self._before, self._last, manifest
        self._delete(_objects(old) - _objects(self._before) - _objects(self._last))

    def _send(self, path: str, file: Found, held: BinaryIO | None, number: int) -> tuple[int, str, str]:
        """The manifest's entry of a file, which is there when this returns."""
        with held or _open(self._root / path) as source:
            stat = os.fstat(source.fileno()) if file.content is None else None
            # One that has grown ends where the snapshot saw its end; one that was replaced is taken as it is now.
            size = file.size if stat is None or stat.st_ino == file.inode else stat.st_size
            before = self._last.files.get(path)
            if before and path not in self._seen and before[:2] == _digest(source, size):
                return before  # known from an earlier process
            name = f"files/{path}.{number:0{_DIGITS}d}-{self._session}"
            there, checksum = self._remote.send(name, source, size)
        if there < size:
            raise Moving(f"{self._root / path}: shrank")
        if wrong := altered(self._root, path, (size, checksum)):
            raise self._damage(path, wrong)
        return size, checksum, name

    def _refuse_losses(self, found: dict[str, Found]) -> None:
        """Raises Failure where a step has lost a file: what the mirror has is the only copy."""
        for path in self._last.files:
            if path.startswith("steps/") and path not in found:
                _, stage, number, _ = path.split("/", 3)
                if f"ledger/{stage}/{number}.jsonl" in found or (self._root / path).parent.exists():
                    raise self._damage(path, "is missing")

    def _damage(self, path: str, wrong: str) -> Failure:
        return Failure(
            f"mirror {self._remote.uri}: keeps what it has, for {self._root / path} {wrong}; "
            f"`propose verify {shlex.quote(str(self._root))} --repair` restores it"
        )

    def _delete(self, names: set[str]) -> None:
        with ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(self._remote.delete, names))

    def _sweep(self) -> None:
        """Delete the objects that a dead process sent, that no manifest names, and that none to come will name."""
        unnamed = set(self._remote.names("files")) - _objects(self._last) - _objects(self._before)
        self._delete({name for name in unnamed if int(name.rpartition(".")[2][:_DIGITS]) <= self._last.number})

    # ------------------------------------------------------------ restoring

    def _restore(self) -> None:
        files = self._last.files
        size = sum(entry[0] for entry in files.values())
        _say(f"restores {len(files)} files, {size / 1e6:.1f} MB, from {self._remote.uri}")
        self._remember([""], restoring=True)
        for folder in self._root.iterdir():  # what an earlier try brought of another manifest
            if folder.is_dir():
                for path in [p for p in folder.rglob("*") if p.is_file()]:
                    if str(path.relative_to(self._root)) not in files:
                        path.unlink()
        download(self._remote, self._last, self._root, lambda _: True)
        self._seen = {path: f for path, f in snapshot.take(self._root, self._whole).items() if path in files}
        self._remember([self._last.id])

    def _content(self, path: str) -> bytes:
        content = self._remote.read(self._last.files[path][2])
        if content is None:
            raise _damaged(self._remote, self._last, path, "is not there")
        return content

    def _state(self) -> dict[str, Any]:
        return snapshot.mirror_state(self._root) or {"known": [""], "restoring": False, "seen": {}}

    def _remember(self, known: list[str], restoring: bool = False) -> None:
        """Before a manifest is written: that it, or the one before, is of this directory; and of the new one, what the
        files looked like, so that the next process need not read them all."""
        seen = {path: (f.inode, f.size, f.changed_ns) for path, f in self._seen.items()}
        replace(self._root / MIRRORED, seal({"known": known, "restoring": restoring, "seen": seen}))


# ---------------------------------------------------------------- reading


def manifests(remote: RemoteStore) -> tuple[Manifest, Manifest]:
    """The last manifest and the one before; number 0 where there is none. Raises Failure where both are damaged."""
    contents = [remote.read(MANIFEST.format(i)) for i in (0, 1)]
    found = [Manifest(**(body | {"files": _entries(body)})) for c in contents if (body := unseal(c))]
    if not found and all(contents):
        raise Failure(f"mirror {remote.uri}: neither manifest-0.json nor manifest-1.json is one; the mirror is damaged")
    found = sorted([*found, NOTHING, NOTHING], key=lambda m: -m.number)
    return found[0], found[1]


def download(remote: RemoteStore, manifest: Manifest, root: Path, wanted: Callable[[str], bool]) -> None:
    """Write the wanted files of a manifest below `root`. Those that are there already are left.

    Raises Failure where an object is missing or not what the manifest says.
    """

    def one(path: str) -> None:
        size, checksum, name = manifest.files[path]
        target = root / path
        if target.is_file() and target.stat().st_size == size:
            with target.open("rb") as file:
                if _digest(file, size) == (size, checksum):
                    return
        there = remote.fetch(name, target)
        if there != (size, checksum):
            target.unlink(missing_ok=True)
            what = "is not there" if there is None else f"has {there[0]} bytes, SHA-256 {there[1][:12]}…"
            raise _damaged(remote, manifest, path, what)

    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(one, [path for path in manifest.files if wanted(path)]))


def copy_for_accounts(uri: str, root: Path) -> None:
    """What `accounts` reads of a run, from its mirror; takes nothing and writes nothing there."""
    remote = RemoteStore(uri)
    last, _ = manifests(remote)
    if not last.number:
        raise Failure(f"mirror {uri}: holds no manifest; expected the mirror of a run")
    download(
        remote, last, root,
        lambda path: not path.startswith("checkpoints/") or path.endswith((snapshot.CHECKPOINTS, "trainer/state.json")),
    )  # fmt: skip


def _say(text: str) -> None:
    """As `Progress.say`, before there is a display, and after."""
    print(f"mirror · {text}", file=sys.stderr, flush=True)


def _damaged(remote: RemoteStore, manifest: Manifest, path: str, what: str) -> Failure:
    size, checksum, name = manifest.files[path]
    return Failure(
        f"mirror {remote.uri}: {name} {what}; manifest {manifest.number} says {size} bytes, SHA-256 {checksum[:12]}…"
    )


def _entries(body: dict[str, Any]) -> dict[str, tuple[int, str, str]]:
    return {path: (entry[0], entry[1], entry[2]) for path, entry in body["files"].items()}


def _objects(manifest: Manifest) -> set[str]:
    return {entry[2] for entry in manifest.files.values()}


def sealed(body: dict[str, Any]) -> bytes:
    text = json.dumps(body)
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n".encode()


def unseal(content: bytes | None) -> dict[str, Any] | None:
    """None where there is nothing, or a file that its process died writing."""
    checksum, _, text = (content or b"").partition(b"\n")
    if hashlib.sha256(text.removesuffix(b"\n")).hexdigest().encode() != checksum:
        return None
    body: dict[str, Any] = json.loads(text)
    return body


def _digest(file: BinaryIO, size: int) -> tuple[int, str]:
    """Of the first `size` bytes, as `RemoteStore.send` counts them."""
    digest, left = hashlib.sha256(), size
    while left and (chunk := file.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    return size - left, digest.hexdigest()


@contextlib.contextmanager
def _opened(root: Path, files: dict[str, Found]) -> Iterator[dict[str, BinaryIO]]:
    """The files that may be gone or changed when their turn to be sent comes: checkpoints, which Ray Train deletes."""
    with contextlib.ExitStack() as stack:
        held: dict[str, BinaryIO] = {}
        for path, file in files.items():
            if file.content is not None:
                held[path] = io.BytesIO(file.content)
            elif path.startswith("checkpoints/"):
                held[path] = stack.enter_context(_open(root / path))
        yield held


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise Moving(f"{path}: was deleted") from None
