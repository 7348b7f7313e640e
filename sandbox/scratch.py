"""Scratch directories where no tmpfs may be mounted: made, measured and removed.

Invariant: no name that a run chose decides where anything goes, and nothing that a run made can be kept from being
counted or removed: not by its modes, its depth or its links. Folders whose owners were killed are found by the lock
they no longer hold.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile

_PREFIX = "agentic-sandbox-"
MOST_ENTRIES = 1024
_DEEPEST = 32
_LISTED_AT_ONCE = 100  # by one system call, however long the names: while it goes on, nothing moves


def new_folder() -> tuple[str, int]:
    """A private folder for one zygote, and the descriptor whose lock says that its owners live. Sweeps dead ones."""
    for entry in os.scandir(tempfile.gettempdir()):
        if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):  # another user's, or swept by someone else meanwhile
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(fd).st_uid != os.geteuid():  # who may put anything in the place of what is in it
                        continue
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(entry.path)
                finally:
                    os.close(fd)
    unlocked = tempfile.mkdtemp(prefix=f"new-{_PREFIX}")
    lock = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now under a name that others sweep: before the lock was held, it looked like a dead one's.
    path = unlocked.replace(f"new-{_PREFIX}", _PREFIX)
    os.rename(unlocked, path)
    return path, lock


def make(folder: str) -> tuple[str, int]:
    """A run's own, under a name that no other run can guess: what it cannot name it cannot ask about. And open."""
    path = os.path.join(folder, _name())
    os.mkdir(path, 0o700)
    try:
        return path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        os.rmdir(path)
        raise


def usage(path: str, still: bool) -> tuple[int, int, bool]:
    """(bytes on disk, entries, whether all was seen) below a directory. While it is being written, what moves or is
    shut may be missed: then it counts no further. If it is `still`, because its writers are dead or frozen, what is
    shut is opened and nothing is missed. Counts no further than `MOST_ENTRIES` either, and takes a nest deeper than 32
    for more."""
    size = entries = 0
    sure = True

    def count(folder: int, depth: int) -> None:
        nonlocal size, entries, sure
        with os.scandir(folder) as found:
            for entry in found:
                entries += 1
                if entries > MOST_ENTRIES or depth > _DEEPEST:
                    entries = MOST_ENTRIES + 1
                    return
                try:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    a_folder = entry.is_dir(follow_symlinks=False)
                    if not still and (a_folder or entries > _LISTED_AT_ONCE):
                        sure = False
                        return
                    if not a_folder:
                        continue
                    inner = _open(entry.name, folder, still)
                except OSError as e:
                    if e.errno in (errno.EMFILE, errno.ENFILE):
                        raise
                    sure = False
                    if still and e.errno != errno.ENOENT:  # it defies us too, which is as good as too much
                        entries = MOST_ENTRIES + 1
                    continue
                try:
                    count(inner, depth + 1)
                finally:
                    os.close(inner)

    top = _open(path, None, still)
    try:
        count(top, 0)
    finally:
        os.close(top)
    return size, entries, sure


def remove(path: str) -> None:
    """Remove a directory whose writers are dead. Its folders are moved, one by one, into one of our own, where every
    name is ours: a path may be longer than the system takes, and a recursion deeper than Python's."""
    top = _open(path, None, still=True)
    try:
        heap = _name()
        os.mkdir(heap, 0o700, dir_fd=top)
        waiting = _open(heap, top, still=True)
        try:
            moved = _empty(top, waiting, 0, but=heap)
            emptied = 0
            while emptied < moved:
                emptied += 1
                folder = _open(str(emptied), waiting, still=True)
                try:
                    moved = _empty(folder, waiting, moved)
                finally:
                    os.close(folder)
                os.rmdir(str(emptied), dir_fd=waiting)
        finally:
            os.close(waiting)
        os.rmdir(heap, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(folder: int, heap: int, moved: int, but: str = "") -> int:
    """Unlink a folder's files, and move its folders to the heap, under the numbers after `moved`."""
    for name in os.listdir(folder):
        if name == but:
            continue
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            os.chmod(name, 0o700, dir_fd=folder)  # moving a directory writes its `..`
            moved += 1
            os.rename(name, str(moved), src_dir_fd=folder, dst_dir_fd=heap)
    return moved


def _open(name: str, folder: int | None, still: bool) -> int:
    """A directory, no link; one that is shut is opened if nobody can put a link in its place meanwhile."""
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if still:
        handle = os.open(name, how | os.O_PATH, dir_fd=folder)
        try:
            if os.fstat(handle).st_mode & 0o700 != 0o700:
                os.chmod(f"/proc/self/fd/{handle}", 0o700)  # whatever has that name by now
        finally:
            os.close(handle)
    return os.open(name, how, dir_fd=folder)


def _name() -> str:
    return os.urandom(16).hex()
