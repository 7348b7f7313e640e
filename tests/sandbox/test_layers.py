"""What of a wall fails, or is not there, and what becomes of it: without a sandbox that runs."""

from __future__ import annotations

import _thread
import ctypes
import errno
import importlib.util
import mmap
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import child, kernel, program, walls, zygote


def refuse(*_: Any) -> Any:
    raise OSError(errno.EPERM, "refused")


def test_a_uid_that_cannot_be_taken_is_refused_and_no_copy_of_us_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "become", refuse)
    assert walls._try_to_end(20000) == errno.EPERM

    def broken() -> None:
        raise ValueError("not of the system's")

    assert walls._try(broken) != 0
    assert walls._try(lambda: None) == 0


def test_what_failed_ahead_of_an_order_is_tried_again_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def unshare(flags: int) -> None:
        tries.append(flags)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "no namespace left")

    became: list[child._Ahead] = []
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(kernel, "unshare", unshare)
    monkeypatch.setattr(kernel, "mount", lambda *_: None)
    monkeypatch.setattr(child, "become_run", lambda walls, made, *_: became.append(made))
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, its, open(os.devnull) as file:
        socket.send_fds(mine, [b"{}"], [file.fileno()])
        proc = os.open("/proc", os.O_PATH)
        here: Any = SimpleNamespace(run_namespaces=1, rulesets={}, scratch="/tmp", filter=b"", proc=proc)
        await_order: Any = child.await_order  # which ends the process, where it becomes a run
        await_order(here, None, zygote.array.array("Q"), [], its, (0, 0), [])
        _, (handle,), _, _ = socket.recv_fds(mine, 64, 1)
        assert os.readlink(f"/proc/self/fd/{handle}") == os.readlink("/proc/self/ns/mnt")
        os.close(handle)
        os.close(proc)
    assert tries == [1, 1] and became[0].failure is None


def test_a_fork_server_without_descriptors_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    server: Any = SimpleNamespace(
        walls=SimpleNamespace(jail=False), _clean=lambda home: None, _give_back=lambda uid: None
    )
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    home = os.open(os.devnull, os.O_RDONLY)
    with mine:
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", refuse)
            assert zygote.Zygote._spawn(server, {}, [home, theirs.detach()]) is None
        assert b"no process for the run" in mine.recv(1000)
    with pytest.raises(OSError):  # closed
        os.fstat(home)


@pytest.mark.parametrize(("wanted", "probed"), [(0, 1 << 20), (64 << 10, 64 << 10)])
def test_why_a_thread_did_not_start_is_asked_with_the_stack_that_it_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: int, probed: int
) -> None:
    asked: list[int] = []

    def reserve(fd: int, size: int) -> Any:
        asked.append(size)
        if size > 64 << 10:
            raise OSError(errno.ENOMEM, "no memory")
        return SimpleNamespace(close=lambda: None)

    def start(*_: Any) -> None:
        raise RuntimeError(program._NO_THREAD)

    monkeypatch.setattr(program, "_stack", 1 << 20)
    monkeypatch.setattr(_thread, "stack_size", lambda: wanted)
    monkeypatch.setattr(mmap, "mmap", reserve)
    with pytest.raises(RuntimeError) as failed:
        program._telling(start)(print, ())
    assert asked == [probed] and ("memory" in str(failed.value)) == (wanted == 0)


def test_the_system_calls_are_imported_where_the_library_is_not_linux_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what glibc alone has: `propose doctor` then says that nothing can run there."""

    class Library:
        def __getattr__(self, name: str) -> Any:
            if name.endswith("_np"):
                raise AttributeError(name)
            return SimpleNamespace()

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    spec = importlib.util.spec_from_file_location("sandbox.elsewhere", kernel.__file__)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
