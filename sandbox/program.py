"""Inside the walls: run a script, or the cells of a session, and report.

Invariant: nothing here is trusted by anyone. It shares its memory with the program, so its report is the program's own
word; the supervisor reads it as strict JSON and believes none of it.
"""

from __future__ import annotations

import _thread
import atexit
import builtins
import contextlib
import errno
import gc
import io
import json
import linecache
import mmap
import os
import random
import shutil
import sys
import threading
import traceback
import types
import unicodedata
from collections.abc import Callable
from typing import Any, NoReturn

from . import kernel

_NAME = "main.py"
_LIMITS = {
    errno.ENOMEM: "memory_limit",
    errno.EAGAIN: "process_limit",  # as the kernel, and our filter, refuse a process; or a pipe that does not block
    errno.EMFILE: "open_files_limit",
    errno.EFBIG: "file_size_limit",
    errno.ENOSPC: "disk_limit",
    errno.EDQUOT: "disk_limit",
}
_NO_THREAD = "can't start new thread"
_STACKS = (512 << 10, 8 << 20)
"""The least that a thread's stack has (a recursion through C, a thousand deep, may want up to four times as much), and
the most, which is what glibc gives by itself."""
_stack = _STACKS[1]
_BUFFERED = frozenset((io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom))
_streams: list[Any] = []
"""Those that a program finds, whatever it puts in their place."""
_STARTS = (
    (_thread, "start_new_thread"),
    (_thread, "start_joinable_thread"),
    (threading, "_start_new_thread"),
    (threading, "_start_joinable_thread"),
)
"""How threads are started: until Python 3.12, and since 3.13 the joinable ones too."""


def run_script(job_fd: int, report_fd: int) -> NoReturn:
    namespace = _fresh_main()
    with open(job_fd, "rb", buffering=0) as file:
        job = json.loads(file.readall())
    report = _end(_run(namespace, job), report_fd)
    os._exit(1 if "reason" in report else 0)


def _end(report: dict[str, Any], report_fd: int) -> dict[str, Any]:
    try:
        if threading.active_count() > 1:
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException as e:
        report = report if "reason" in report else _failure(e)
    _flush(report)
    _send(report_fd, report)
    return report


def rehearse() -> None:
    """In a run of our own: touch what the end of every run touches. Its output goes nowhere."""
    _end({}, 1)


def run_cells(job_fd: int, report_fd: int) -> NoReturn:
    namespace = _fresh_main()
    with open(job_fd, "rb") as cells:
        for line in cells:
            job = json.loads(line)
            report = _run(namespace, job)
            _flush(report)
            _send(report_fd, report, "\n" + job["token"])  # whatever the program has written there before
    os._exit(0)


def prepare() -> None:
    """In the zygote, so that no run has to: standard streams on the numbers that each run fills with its own
    descriptors, and no exit handlers but the program's own."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    reading, writing = os.pipe()  # which runs will have there: a stream remembers whether one can seek in it
    ours = os.dup(1), os.dup(2)
    for number in (1, 2):
        os.dup2(writing, number)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
    for number, kept in enumerate(ours, 1):
        os.dup2(kept, number)
    for fd in (reading, writing, *ours):
        os.close(fd)
    _streams.extend((sys.stdout, sys.stderr))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    atexit._clear()
    if "logging" in sys.modules:
        atexit.register(sys.modules["logging"].shutdown)
    for module, name in _STARTS:
        if hasattr(module, name):
            setattr(module, name, _telling(getattr(module, name)))
    shutil.copymode = shutil.copystat = lambda *_, **__: None  # modes and times of files cannot be changed
    sys.set_int_max_str_digits(0)  # what a program may print is bounded by its time


def size_stacks(share: int) -> None:
    """In each run: a thread reserves no more than its `share` of the address space for its stack, so that a program has
    room for as many threads as it may start."""
    global _stack
    _stack = min(max(share, _STACKS[0]), _STACKS[1])
    kernel.size_stacks(_stack)


def _telling(start: Callable[..., Any]) -> Callable[..., Any]:
    """Tells, where a thread could not be started, whether memory is what failed: the system says the same of both."""

    def start_thread(*args: Any, **named: Any) -> Any:
        try:
            return start(*args, **named)
        except RuntimeError:
            try:
                mmap.mmap(-1, _thread.stack_size() or _stack).close()
            except OSError:
                raise RuntimeError(f"{_NO_THREAD}: no memory for its stack") from None
            raise

    return start_thread


def generators() -> list[Any]:
    """The sources of random numbers that exist, in whatever module."""
    return [one for one in gc.get_objects() if isinstance(one, random.Random)]


def reseed(generators: list[Any]) -> None:
    """In each run: forked, their states would be the same in all. numpy's own is not among them."""
    for one in generators:
        one.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _fresh_main() -> dict[str, Any]:
    gc.enable()
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=_NAME)
    sys.modules["__main__"] = main
    return main.__dict__


def _run(namespace: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    source = job["code"].removeprefix("\ufeff")
    linecache.cache[_NAME] = (len(source), None, io.StringIO(source, newline=None).readlines(), _NAME)
    try:
        exec(compile(source, _NAME, "exec", dont_inherit=True), namespace)
    except SystemExit as e:
        try:  # the program's own objects, which compare and print as they like
            if e.code not in (None, 0):
                if not isinstance(e.code, int):
                    print(e.code, file=sys.stderr)
                return {"reason": f"SystemExit: {e.code}"}
        except BaseException as of_the_code:
            return _failure(of_the_code)
    except BaseException as e:
        return _failure(e)
    name = unicodedata.normalize("NFKC", job.get("entry") or job.get("value") or "")  # as Python spells names
    try:
        if name and name not in namespace:
            return {"reason": f"NameError: name {name!r} is not defined"}
        if job.get("entry"):
            return {"value": _plain(namespace[name](*job["args"]))}
        if name:
            return {"value": _plain(namespace[name])}
    except BaseException as e:
        return _failure(e)
    return {}


def _plain(value: Any) -> Any:
    """The value as JSON has it; anything that JSON would bend is an error."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a numpy scalar
        value = value.item()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is no plain value; export None, bool, int, float, str, list or dict")


def _failure(e: BaseException) -> dict[str, Any]:
    """Print the traceback without our own frames; name the exception, and the limit that it speaks of."""
    frames = e.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        traceback.print_exception(type(e), e, frames)
        text = " ".join(traceback.format_exception_only(type(e), e)[-1].split())
    except BaseException:
        text = type(e).__name__
    report: dict[str, Any] = {"reason": text[:500]}
    if isinstance(e, MemoryError):
        report["limit"] = "memory_limit"
    elif isinstance(e, OSError) and e.errno in _LIMITS:
        report["limit"] = _LIMITS[e.errno]
    elif isinstance(e, RuntimeError) and _NO_THREAD in text:
        report["limit"] = "memory_limit" if "memory" in text else "process_limit"
    return report


def _flush(report: dict[str, Any]) -> None:
    """What CPython writes when it ends: the standard streams, unless they are closed or put away, and then, without a
    word of what fails, what files are open."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as e:
            report.setdefault("reason", f"{type(e).__name__}: {e}"[:500])
    with contextlib.suppress(BaseException):
        # Of this run: what it was forked with is frozen. Text goes to a file of bytes, which may be another's too.
        files = [one for one in gc.get_objects() if type(one) in _BUFFERED]
        files.sort(key=lambda file: type(file) is not io.TextIOWrapper)
        for file in (*files, *_streams):
            with contextlib.suppress(BaseException):
                file.flush()


def _send(report_fd: int, report: dict[str, Any], token: str = "") -> None:
    try:
        text = json.dumps(report, allow_nan=False)
    except (ValueError, RecursionError, MemoryError) as e:
        report.pop("value", None)
        report["reason"] = f"{type(e).__name__}: {e}"[:500]
        text = json.dumps(report)
    data = memoryview(f"{token}{text}\n".encode())
    try:
        while data:
            data = data[os.write(report_fd, data) :]
    except OSError:  # the program closed it: how the process ends still tells
        os._exit(1 if "reason" in report else 0)
