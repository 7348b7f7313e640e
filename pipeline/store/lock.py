"""The lock of a run directory: one process at a time writes there.

Two locks, both on descriptors: the directory itself, which nobody can delete while it is held, where the file system
locks directories (local ones do, NFS does not); and the file `.lock`, which says who holds it.

Invariant: a link in place of `.lock` is not followed. A holder whose directory was moved away, or whose lock was
deleted, is told by `check`, which it asks before each step that it writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
from pathlib import Path

from pipeline.records import Failure
from pipeline.store.files import writing

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Lock:
    """Raises Failure where another process holds it."""

    def __init__(self, root: Path):
        self._root, self._path = root, root / ".lock"
        self._held: list[int] = []
        try:
            with writing(root):
                root.mkdir(parents=True, exist_ok=True)
                self._take(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), may_not=True)
            if self._path.is_symlink() or self._path.is_dir():
                away = f"rm -r {shlex.quote(str(self._path))}"
                raise Failure(f"{self._path}: is a link or a folder; expected a file: `{away}`")
            with writing(self._path):
                self._take(os.open(self._path, _FLAGS, 0o644))
        except BaseException:
            self.close()
            raise
        with contextlib.suppress(OSError):  # a full disk; who holds it is told as unknown then
            os.ftruncate(self._held[-1], 0)
            os.pwrite(self._held[-1], str(os.getpid()).encode(), 0)

    def _take(self, descriptor: int, may_not: bool = False) -> None:
        self._held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"run directory {self._root}: in use by process {self._holder()}; wait, or take another --run-dir"
            ) from None
        except OSError as e:
            if not may_not or e.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP):
                raise

    def _holder(self) -> str:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return "unknown"
        try:
            told = os.pread(descriptor, 32, 0)
        except OSError:
            told = b""
        finally:
            os.close(descriptor)
        return told.decode() if told.isdigit() else "unknown"

    def check(self) -> None:
        """Raises Failure where what is locked is not what others would lock."""
        for path, descriptor in zip((self._root, self._path), self._held, strict=True):
            try:
                now, mine = path.lstat(), os.fstat(descriptor)
                same = (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)
            except FileNotFoundError:
                same = False
            if not same:
                raise Failure(
                    f"{path}: was moved or deleted while this process held it; another one may be writing there: see "
                    "that none is, and run the same command again"
                )

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())


def in_use(root: Path) -> bool:
    """Whether a process holds the run directory."""
    try:
        lock = os.open(root / ".lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
