"""Storage as it is on a bad day: a pyarrow file system that delays, fails now and then, and stops in the middle."""

import io
import time

import pyarrow as pa
from pyarrow import fs


class Stopped(OSError):
    """The storage has stopped for good."""


class Storm(fs.FileSystemHandler):
    """Over a local folder. Each call is an operation, each chunk of a stream too.

    `weather(n, what)` is asked before the n-th: it may sleep or raise OSError. From operation `stops_at` on everything
    raises, and what is being written by then is cut in the middle, as a file system without atomic writes leaves it.
    """

    def __init__(self, folder, weather=lambda n, what: None, stops_at=None, base="mirror"):
        folder.mkdir(parents=True, exist_ok=True)
        self._fs = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.weather, self.stops_at, self.operations = weather, stops_at, 0
        self._base = base

    def resolve(self, uri):
        return fs.PyFileSystem(self), self._base

    def step(self, what):
        self.operations += 1
        if self.stops_at is not None and self.operations >= self.stops_at:
            raise Stopped(f"{what}: the storage has stopped")
        self.weather(self.operations, what)

    # ------------------------------------------------------------ pyarrow's interface

    def get_type_name(self):
        return "storm"

    def open_input_stream(self, path):
        self.step(f"open {path}")
        return self._fs.open_input_stream(path)

    def open_output_stream(self, path, metadata):
        self.step(f"create {path}")
        return pa.PythonFile(_Cut(self, path, self._fs.open_output_stream(path)), mode="w")

    def create_dir(self, path, recursive):
        self.step(f"create {path}")
        self._fs.create_dir(path, recursive=recursive)

    def delete_file(self, path):
        self.step(f"delete {path}")
        self._fs.delete_file(path)

    def get_file_info_selector(self, selector):
        self.step(f"list {selector.base_dir}")
        return self._fs.get_file_info(selector)

    def get_file_info(self, paths):
        return self._fs.get_file_info(paths)

    def normalize_path(self, path):
        return path

    def _unused(self, *_):
        raise NotImplementedError

    copy_file = move = delete_dir = delete_dir_contents = delete_root_dir_contents = _unused
    open_append_stream = open_input_file = _unused


class _Cut(io.RawIOBase):
    """A stream whose last chunk is half written when the storage stops."""

    def __init__(self, storm, path, stream):
        self._storm, self._path, self._stream = storm, path, stream

    def writable(self):
        return True

    def write(self, data):
        try:
            self._storm.step(f"write {self._path}")
        except Stopped:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
            raise
        self._stream.write(data)
        return len(data)

    def close(self):
        if not self.closed:
            self._stream.close()
            super().close()


def seldom(rng, share, seconds=0.0):
    """Weather in which each operation fails with this share, and takes up to so many seconds."""

    def weather(n, what):
        time.sleep(rng.random() * seconds)
        if rng.random() < share:
            raise OSError(f"{what}: connection reset")

    return weather
