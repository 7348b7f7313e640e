"""Scratch directories where no tmpfs may be mounted: made, measured and removed by name.

Invariant: whatever a run left (deep nests, closed directories, links), `remove` takes it away without following a
link and without recursion; folders whose owners were killed are found by the lock they no longer hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile

_PREFIX = "agentic-sandbox-"


def new_folder() -> tuple[str, int]:
    """A private folder for one zygote, and the descriptor whose lock says that its owners live. Sweeps dead ones."""
    for entry in os.scandir(tempfile.gettempdir()):
        if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):  # another user's, or swept by someone else meanwhile
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
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


def make(folder: str, turn: int, first_uid: int | None) -> str:
    path = os.path.join(folder, f"run-{turn}")
    os.mkdir(path, 0o700)
    if first_uid is not None:
        os.chown(path, first_uid + turn % 32, first_uid + turn % 32)
    return path


def usage(path: str, most_entries: int) -> tuple[int, int]:
    """(bytes on disk, entries) below a directory that is being written. Counts no further than `most_entries`, and
    takes a nest deeper than 32 for that many: its paths may be longer than can be followed."""
    size = entries = 0
    waiting = [(path, 0)]
    while waiting:
        folder, depth = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            for entry in found:
                entries += 1
                if entries > most_entries or depth > 32:
                    return size, most_entries + 1
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
    return size, entries


def remove(path: str) -> None:
    """Remove a directory whose writers are dead. Deep trees are flattened level by level: a path may be longer than
    the system takes, and a recursion deeper than Python's."""
    moved = 0
    while True:
        os.chmod(path, 0o700)
        folders = []
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                os.unlink(entry.path)
        if not folders:
            break
        for folder in folders:
            os.chmod(folder, 0o700)
            for entry in list(os.scandir(folder)):
                if entry.is_dir(follow_symlinks=False):
                    moved += 1
                    os.chmod(entry.path, 0o700)  # renaming a directory writes its `..`
                    os.rename(entry.path, os.path.join(path, f".{moved}"))
                else:
                    os.unlink(entry.path)
            os.rmdir(folder)
    os.rmdir(path)
