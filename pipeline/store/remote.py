"""A folder on any file system that pyarrow reaches (s3://, gs://, hdfs://, file:///, a path), which may fail or stall.

Invariant: an operation that returns has taken effect; one that fails is made again, with growing pauses, and after
`patience_s` of failures becomes one line that names the place. A call that does not return at all is seen by whoever
asks `silent`, from another thread. Objects are written whole under a name of their own: nothing here depends on
renaming, appending or locking, which object stores do not have.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
from pyarrow import fs

from pipeline.records import Failure
from pipeline.store.files import writing

T = TypeVar("T")
PATIENCE_S = 600.0
_FIRST_S = 20.0
"""The same before anything was written there: then it is more likely a wrong place than a bad moment."""
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_CHUNK = 4 << 20


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI or path, and the folder in it. Raises Failure where there is none."""
    try:
        return fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute()))
    except (OSError, ValueError, pa.ArrowException) as e:
        raise Failure(
            f"mirror {uri}: {_line(e)}; expected a path, or a URI like s3://bucket/run, gs://, hdfs:// or file:///"
        ) from None


class RemoteStore:
    """`name` below is a path in the folder, with slashes. Used by several threads at once."""

    def __init__(self, uri: str, patience_s: float = PATIENCE_S):
        self.uri = uri
        self._fs, self._base = resolve(uri)
        self._base = self._base.rstrip("/")
        self._patience_s = patience_s
        self._written = False
        self._moved: dict[int, float] = {}

    def silent(self) -> str | None:
        """One line about a call that has not returned for `patience_s`; None where there is no such call."""
        longest = time.monotonic() - min(self._moved.copy().values(), default=time.monotonic())
        return f"mirror {self.uri}: no answer for {longest:.0f} s" if longest > self._patience_s else None

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""

        def attempt() -> bytes | None:
            try:
                with self._fs.open_input_stream(self._path(name), compression=None) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

        return self._retried(f"reading {name}", attempt)

    def write(self, name: str, content: bytes) -> None:
        """A small object."""
        self.send(name, io.BytesIO(content), len(content))

    def send(self, name: str, source: BinaryIO, size: int) -> tuple[int, str]:
        """Write the first `size` bytes of a local file; returns how many there were, and their SHA-256."""

        def attempt() -> tuple[int, str]:
            source.seek(0)
            digest, left = hashlib.sha256(), size
            with self._output(name) as stream:
                while left and (chunk := source.read(min(left, _CHUNK))):
                    stream.write(chunk)
                    digest.update(chunk)
                    left -= len(chunk)
                    self._move()
            return size - left, digest.hexdigest()

        sent = self._retried(f"writing {name}", attempt)
        self._written = True
        return sent

    def fetch(self, name: str, path: Path) -> tuple[int, str] | None:
        """Read an object into a local file, whole or not at all; returns its size and SHA-256, None if it is none."""
        temporary = path.with_name(f".{path.name}.tmp")

        def attempt() -> tuple[int, str] | None:
            digest, size = hashlib.sha256(), 0
            try:
                stream = self._fs.open_input_stream(self._path(name), compression=None)
            except FileNotFoundError:
                return None
            with stream, _local(temporary) as file:
                while chunk := stream.read(_CHUNK):
                    with writing(path):
                        file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    self._move()
            return size, digest.hexdigest()

        found = self._retried(f"reading {name}", attempt)
        if found is not None:
            temporary.replace(path)
        return found

    def digest(self, name: str) -> tuple[int, str] | None:
        """Size and SHA-256 of an object; None if there is none."""

        def attempt() -> tuple[int, str] | None:
            digest, size = hashlib.sha256(), 0
            try:
                stream = self._fs.open_input_stream(self._path(name), compression=None)
            except FileNotFoundError:
                return None
            with stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    self._move()
            return size, digest.hexdigest()

        return self._retried(f"reading {name}", attempt)

    def names(self, folder: str) -> list[str]:
        """Every object below a folder, at any depth."""
        selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        found = self._retried(f"listing {folder}", lambda: self._fs.get_file_info(selector))
        return [info.path[len(self._base) + 1 :] for info in found if info.type == fs.FileType.File]

    def delete(self, name: str) -> None:
        def attempt() -> None:
            try:
                self._fs.delete_file(self._path(name))
            except FileNotFoundError:
                return

        self._retried(f"deleting {name}", attempt)

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _output(self, name: str) -> Any:
        path = self._path(name)
        try:
            return self._fs.open_output_stream(path, compression=None)
        except FileNotFoundError:  # not an object store: folders are made
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            return self._fs.open_output_stream(path, compression=None)

    def _move(self) -> None:
        self._moved[threading.get_ident()] = time.monotonic()

    def _retried(self, what: str, attempt: Callable[[], T]) -> T:
        began, pause = time.monotonic(), _PAUSE_S
        patience_s = self._patience_s if self._written else min(self._patience_s, _FIRST_S)
        try:
            while True:
                self._move()
                try:
                    return attempt()
                except (OSError, pa.ArrowException) as e:
                    failing_s = time.monotonic() - began
                    if failing_s + pause > patience_s:
                        raise Failure(
                            f"mirror {self.uri}: {what}: {_line(e)}, for {failing_s:.0f} s; what is in the run "
                            "directory is safe: mend the storage, and run the same command again",
                            "infra_error",
                        ) from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            self._moved.pop(threading.get_ident(), None)


def _local(path: Path) -> BinaryIO:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
