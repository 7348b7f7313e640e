"""Reading with the manifest beside: a file is what it was when it was written, or the reader is told.

    steps/<stage>/NNNNNN/manifest.json            written with the step, under the same rename
    checkpoints/<stage>/step-N/trainer/manifest-R.json   what rank R wrote, uploaded with it
    dataset/manifest.json, skills/manifest.json   written last
    trajectories/, solutions/manifest.json        written with them, under the same rename

Invariant: `verified` returns only for content that is the one written. A file is digested once in a process, and again
only where its size, one of its times or its inode is another.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.records import Failure
from pipeline.store.digests import MANIFEST, SEAL, Entry, digest, entries_of, files_below, seal, unseal
from pipeline.store.files import replace

_Stamp = tuple[int, int, int, int]
_KNOWN: dict[Path, tuple[_Stamp, Entry]] = {}
"""File -> its stamp when it was digested, and what it was then."""
_SOUND: set[bytes] = set()
"""Digests of sealed files that were found to be what was written."""
UNITS = ("steps", "checkpoints", "dataset", "skills", "trajectories", "solutions", "stages")
"""Folders of a run directory whose files have digests."""


class Damage(Failure):
    """A file that is not what was written. Its message is one line that says what to do."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path}: {what}; see `propose verify {shlex.quote(str(run_of(path)))}`")
        self.path, self.what = path, what

    def __reduce__(self) -> tuple[type[Damage], tuple[Path, str]]:
        return Damage, (self.path, self.what)  # it crosses from an actor to the driver


def run_of(path: Path) -> Path:
    """The run directory of one of its files; for other files their folder."""
    for parent in path.parents:
        if parent.name in UNITS:
            return parent.parent
    return path.parent


def read(path: Path) -> dict[str, Any]:
    """A sealed file: a manifest, the result of a stage. Raises Damage."""
    try:
        content = path.read_bytes()
        known = hashlib.sha256(content).digest()
        if known in _SOUND:
            return {name: value for name, value in json.loads(content).items() if name != SEAL}
        body = unseal(content)
        _SOUND.add(known)
        return body
    except OSError as e:
        raise Damage(path, cause(e)) from None
    except ValueError as e:
        raise Damage(path, f"is not what was written ({brief(e)})") from None


def verified(path: Path) -> Path:
    """The path of a file that is what the manifest beside it says. Raises Damage."""
    manifest = read(path.parent / MANIFEST)
    expected = listed(path.parent / MANIFEST, manifest).get(path.name)
    if expected is None:
        raise Damage(path, f"is not one of the files that {MANIFEST} lists")
    check(path, expected)
    return path


def verified_folder(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest of a folder, whose files are all what it says. Raises Damage with the first that is not."""
    manifest = read(folder / name)
    for file, expected in listed(folder / name, manifest).items():
        check(folder / file, expected)
    return manifest


def seal_folder(folder: Path, of: str, names: Iterable[str], **facts: Any) -> None:
    """Write the manifest of a folder whose files are written, whole or not at all."""
    entries = {name: digest_once(folder / name) for name in names}
    replace(folder / MANIFEST, seal({"of": of, **facts, "files": entries}))


def check(path: Path, expected: Entry) -> None:
    """Raises Damage where a file is not (bytes, SHA-256)."""
    if wrong := differs(path, expected):
        raise Damage(path, wrong)


def differs(path: Path, expected: Entry) -> str | None:
    """What is wrong with a file, in words; None if nothing is."""
    try:
        found = digest_once(path)
    except OSError as e:
        return cause(e)
    if found == expected:
        return None
    if found[0] != expected[0]:
        return f"has {found[0]} bytes, {expected[0]} were written"
    return f"has SHA-256 {found[1][:12]}…, {expected[1][:12]}… was written"


def altered(root: Path, name: str, found: Entry) -> str | None:
    """What is wrong with a file of a run, found to be (bytes, SHA-256), in words; None if nothing is. Of files that are
    never written again: those of steps and checkpoints, and results."""
    top, *parts = name.split("/")
    folder = root.joinpath(top, *parts[:2])
    try:
        if top == "stages":
            read(root / name)
        of_checkpoint = folder.glob("trainer/manifest-*.json") if top == "checkpoints" else ()
        for path in [folder / MANIFEST] if top == "steps" else of_checkpoint:
            if listed(path, read(path)).get("/".join(parts[2:]), found) != found:
                return "is not what was written"
    except Damage as e:
        return None if top == "checkpoints" and not e.path.exists() else e.what
    except FileNotFoundError:  # Ray Train deletes old checkpoints meanwhile
        return None
    return None


def digest_once(path: Path) -> Entry:
    """Raises OSError."""
    stamp = _stamp(path)
    known = _KNOWN.get(path)
    if known is None or known[0] != stamp:
        _KNOWN[path] = known = (stamp, digest(path))
    return known[1]


def digest_ahead(root: Path) -> None:
    """Digest what will be asked for of a run, on all cores: the rest is looking up."""
    files = [root / top / name for top in UNITS for name in files_below(root / top)]

    def one(path: Path) -> None:
        try:
            digest_once(path)
        except OSError:
            return  # found where it is looked up

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, files))


def written(folder: Path, entries: dict[str, Entry]) -> None:
    """Remember what was digested while it was written, so that this process need not do it again."""
    for name, entry in entries.items():
        _KNOWN[folder / name] = (_stamp(folder / name), entry)


def _stamp(path: Path) -> _Stamp:
    """Another one once a file was written to: who sets its time of change back changes that of its inode."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def of_prefix(path: Path, size: int | None = None) -> Entry:
    """(bytes, SHA-256) of the first `size` bytes of a file that is appended to; of all there are without it."""
    with path.open("rb") as file:
        content = file.read(-1 if size is None else size)
    return len(content), hashlib.sha256(content).hexdigest()


def of_lines(path: Path) -> Entry:
    """(bytes, SHA-256) of the whole lines of a file that is appended to."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return len(whole), hashlib.sha256(whole).hexdigest()


def listed(path: Path, manifest: dict[str, Any]) -> dict[str, Entry]:
    """The entries of a manifest. Raises Damage."""
    try:
        return entries_of(manifest)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damage(path, "lists no files") from None


def cause(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
