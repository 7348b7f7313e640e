"""Files written whole: under a temporary name, synced, renamed.

Invariant: a file that exists under its final name is whole. What a disk refuses becomes one `Failure` line.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.records import Failure

_NO_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, text: str) -> Path:
    """Write a whole file or nothing."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a disk may refuse into one line."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Failure(
                f"{path}: no space left on the device; free some, and run the same command again", "infra_error"
            ) from None
        if e.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO):
            raise Failure(
                f"{path}: {os.strerror(e.errno)}; mend the storage, and run the same command again", "infra_error"
            ) from None
        if e.errno in _NO_PLACE:
            raise Failure(f"{path}: {os.strerror(e.errno)}; expected a directory this user may write to") from None
        raise
