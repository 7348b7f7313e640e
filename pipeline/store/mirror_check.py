"""The objects of a mirror held against its manifest, and damaged ones sent again; and the manifest before the last,
which takes its place where that is damaged.

Invariant: an object is written again under its name only with the content that the manifest says, so whoever reads it
meanwhile reads that, or what was damaged before.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.store.manifest import of_prefix
from pipeline.store.mirror import MANIFEST, STREAMS, Manifest, sealed, unseal
from pipeline.store.remote import RemoteStore


def damaged(remote: RemoteStore, manifest: Manifest) -> dict[str, str]:
    """Path -> what is wrong with its object: those that are not what the manifest says."""

    def one(path: str) -> str | None:
        size, checksum, name = manifest.files[path]
        there = remote.digest(name)
        if there == (size, checksum):
            return None
        return f"{name} is missing" if there is None else f"{name} is not what manifest {manifest.number} says"

    with ThreadPoolExecutor(STREAMS) as pool:
        found = dict(zip(manifest.files, pool.map(one, manifest.files), strict=True))
    return {path: wrong for path, wrong in found.items() if wrong}


def damaged_manifest(remote: RemoteStore, last: Manifest) -> str | None:
    """The name of the manifest beside the last one, if it is not what was written, or is lost."""
    for name in map(MANIFEST.format, (0, 1)):
        content = remote.read(name)
        if unseal(content) is None and (content is not None or last.number > 1):
            return name
    return None


def mend_manifest(remote: RemoteStore, last: Manifest) -> Iterator[str]:
    """Write it again, as one that names the same objects and is older than the last; a line."""
    if name := damaged_manifest(remote, last):
        remote.write(name, sealed(asdict(replace(last, number=last.number - 1))))
        yield f"{name}: written again, as the last one"


def mend_objects(remote: RemoteStore, manifest: Manifest, root: Path) -> Iterator[str]:
    """Send damaged objects again, whose files here are still what the manifest says; a line each."""
    for path in damaged(remote, manifest):
        size, checksum, name = manifest.files[path]
        try:
            if of_prefix(root / path, size) == (size, checksum):
                with (root / path).open("rb") as source:
                    remote.send(name, source, size)
                yield f"{path}: sent to the mirror again"
                continue
        except OSError:
            pass  # it is not here any more, as a checkpoint that Ray Train has deleted
        yield f"{path}: the mirror's copy is damaged, and here is another one; the next run sends that"
