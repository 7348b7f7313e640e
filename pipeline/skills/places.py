"""Where the files of a corpus lie: local files and folders, or a place that pyarrow reaches (s3://, gs://, hdfs://).

Invariant: files come in the order of their names, so that file n is the same on every run; whatever lies in a folder
and is not to be read is told to `leave_out`, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from pipeline.records import Failure
from pipeline.skills.readers import COMPRESSED, SUFFIXES, reader_of, suffix_of

LeaveOut = Callable[[str, str], None]
"""(reason, file)."""


@dataclass(frozen=True)
class File:
    path: str
    """As it can be found again; text, whatever bytes its name is."""
    name: str
    open: Callable[[], IO[bytes]]
    """Raises OSError."""


def files(place: str | Path, leave_out: LeaveOut, closed: Callable[[str, str], None]) -> Iterator[File]:
    """The files of a configured place that are to be read. `closed` is told of folders that cannot be (folder, why).
    Raises Failure for a place that is none."""
    if isinstance(place, str) and "://" in place:
        return _remote(place, leave_out)
    path = Path(place)
    if path.is_file():
        _known(str(path), path.name)
        return iter([_file(path)])
    if not path.is_dir():
        raise Failure(f"acquire.corpus {path}: no such file or folder")
    return _walked(path, leave_out, closed)


def printable(name: Path | str) -> str:
    """A name on disk may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _known(place: str, name: str) -> None:
    if reader_of(name) is None:
        kind = "".join(suffix_of(name))
        raise Failure(
            f"acquire.corpus {place}: unknown kind {kind!r}; expected one of {', '.join(SUFFIXES)}, "
            f"most of them also with {' or '.join(COMPRESSED)}"
        )


def _file(path: Path) -> File:
    return File(printable(path), printable(path.name), lambda: path.open("rb"))


def _walked(path: Path, leave_out: LeaveOut, closed: Callable[[str, str], None]) -> Iterator[File]:
    found: list[Path] = []
    errors: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=errors.append):
        for name in sorted(folders):
            inner = Path(folder, name)
            if _is_hidden(name):
                leave_out("a hidden folder", printable(inner))
            elif inner.is_symlink():
                leave_out("a link to a folder; name that folder itself", printable(inner))
        folders[:] = [name for name in folders if not _is_hidden(name)]  # of these, os.walk enters no link
        inside = (Path(folder, name) for name in names)
        found += [file for file in inside if _is_read(printable(file.name), printable(file), leave_out)]
    for error in errors:
        closed(printable(Path(error.filename)), str(error.strerror))
    for file in sorted(found):
        if file.is_file():
            yield _file(file)
        else:
            leave_out("no regular file (a link to nowhere, a socket)", printable(file))


def _is_read(name: str, path: str, leave_out: LeaveOut) -> bool:
    if name.startswith("._"):
        leave_out("an AppleDouble file", path)
    elif _is_hidden(name):
        leave_out("a hidden file", path)
    elif reader_of(name) is None:
        suffix = "".join(suffix_of(name))
        leave_out(f"{suffix or 'a name without suffix'} is no format that is read", path)
    else:
        return True
    return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _remote(uri: str, leave_out: LeaveOut) -> Iterator[File]:
    try:
        system, base = fs.FileSystem.from_uri(uri)
        info = system.get_file_info(base)
        if info.type == fs.FileType.NotFound:
            raise Failure(f"acquire.corpus {uri}: no such file or folder")
        inside: list[Any] = [info]
        if info.type == fs.FileType.Directory:
            inside = system.get_file_info(fs.FileSelector(base, recursive=True))
    except (OSError, ValueError, pa.ArrowException) as e:
        reason = " ".join(str(e).split())[:160]
        raise Failure(f"acquire.corpus {uri}: {reason}; expected a file or folder there") from None
    root = uri.rstrip("/")
    for entry in sorted(inside, key=lambda entry: entry.path):
        below = entry.path[len(base.rstrip("/")) :]
        if entry.type != fs.FileType.File:
            continue
        if len(inside) == 1 and not below:
            _known(uri, entry.base_name)
        hidden = [part for part in below.strip("/").split("/")[:-1] if _is_hidden(part)]
        if hidden:
            leave_out("a hidden folder", f"{root}{below}")
        elif _is_read(entry.base_name, f"{root}{below}", leave_out):
            yield File(f"{root}{below}", entry.base_name, partial(system.open_input_file, entry.path))
