"""Files and folders written whole: under a temporary name, synced, renamed.

Invariant: what exists under its final name is whole. What a disk refuses becomes one `Failure` line.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.records import Failure
from pipeline.store.digests import files_below

_NUMBERS = itertools.count()
"""With the process id, they make temporary names that no two writers share."""
_WRITER = re.compile(r"\.(\d+)-\d+\.tmp$", re.ASCII)
APPENDING = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
"""How a file of lines is opened: what a link in its place names is not written to."""
_NO_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO),
}


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: str | bytes) -> Path:
    """Write a whole file or nothing; text as UTF-8."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_NUMBERS)}.tmp")
        try:
            with temporary.open("xb") as f:
                f.write(content.encode() if isinstance(content, str) else content)
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def whole_folder(final: Path, stays: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """A folder to fill; it takes its final name only if the block ends without an exception. With `stays` it takes the
    place of the one that is there, of which it keeps the files whose names `stays` takes, unless it has its own; where
    that cannot be done, the one that is there stays, and a process that was killed meanwhile is made up for."""
    temporary, former = (final.with_name(f".{final.name}.{end}") for end in ("tmp", "old"))
    with writing(final):
        if stays:
            _back(former, final)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for name in files_below(final) if stays else ():
                if stays and stays(name) and not (temporary / name).exists():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(final / name, temporary / name, follow_symlinks=False)
            for folder, _, names in os.walk(temporary):
                for path in (*(Path(folder, name) for name in names), Path(folder)):
                    sync(path)
            if stays and final.is_dir():
                shutil.rmtree(former, ignore_errors=True)
                final.rename(former)
            temporary.replace(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk would be fuller
            if stays:
                _back(former, final)
            raise
        sync(final.parent)  # the name too, before anything tells of it
        shutil.rmtree(former, ignore_errors=True)


def _back(former: Path, final: Path) -> None:
    if former.is_dir() and not os.path.lexists(final):
        former.rename(final)


def sweep(folder: Path) -> None:
    """Delete what processes that were killed while they wrote have left in a folder."""
    for path in folder.glob(".*.tmp"):
        writer = _WRITER.search(path.name)
        if writer and not Path("/proc", writer[1]).exists():
            path.unlink(missing_ok=True)


def without(path: Path) -> str:
    """The command that takes a file out of the way and keeps it, for the end of a line about one that a run can do
    without."""
    return f"`mv {shlex.quote(str(path))} {shlex.quote(f'{path}.away')}` goes on without it"


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
        if e.errno == errno.EISDIR or (e.errno == errno.ELOOP and os.path.islink(path)):
            away = f"rm -r {shlex.quote(str(path))}"
            raise Failure(f"{path}: {e.strerror}; expected a file: `{away}`") from None
        if e.errno in _NO_PLACE:
            raise Failure(f"{path}: {os.strerror(e.errno)}; expected a directory this user may write to") from None
        raise
