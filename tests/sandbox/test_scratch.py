"""Counting and cleaning where there is no tmpfs, with whatever a run may leave there."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import Limits, Request, Slot, host, scratch, server

names = st.sampled_from([f".{n}" for n in range(4)] + [str(n) for n in range(4)] + ["run-1", "\n", "\udcff", "x" * 255])
trees = st.recursive(
    st.integers(0, 9000) | st.just("link"),
    lambda inner: st.tuples(
        st.sampled_from([0o700, 0, 0o300, 0o100, 0o500]), st.dictionaries(names, inner, max_size=5)
    ),
    max_leaves=25,
)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def grow(path: Path, tree: object) -> tuple[int, int]:
    """Make a tree; its bytes on disk and its entries, by the way it was made."""
    if tree == "link":
        path.symlink_to("/")
        return os.lstat(path).st_blocks * 512, 1
    if isinstance(tree, int):
        path.write_bytes(bytes(tree))
        return os.lstat(path).st_blocks * 512, 1
    assert isinstance(tree, tuple)
    mode, inside = tree
    path.mkdir()
    size, entries = 0, 1
    for name, inner in inside.items():
        more = grow(path / name, inner)
        size, entries = size + more[0], entries + more[1]
    size += os.lstat(path).st_blocks * 512
    path.chmod(mode)
    return size, entries


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inside=st.dictionaries(names, trees, max_size=6))
def test_all_is_counted_and_all_is_removed(home: Path, inside: dict[str, object]) -> None:
    top = home / "top"
    top.mkdir()
    grown = [grow(top / name, tree) for name, tree in inside.items()]
    size, entries, sure = scratch.usage(str(top), still=True)
    assert (size, entries, sure) == (sum(one[0] for one in grown), sum(one[1] for one in grown), True)
    scratch.remove(str(top))
    assert os.listdir(home) == []


def test_what_may_be_missed_while_it_moves_is_not_taken_for_sure(home: Path) -> None:
    (home / "file").write_bytes(b"x")
    assert scratch.usage(str(home), still=False)[1:] == (1, True)
    for n in range(120):  # more than one system call lists
        (home / f"{n}").touch()
    assert scratch.usage(str(home), still=False)[2] is False
    assert scratch.usage(str(home), still=True)[1:] == (121, True)


def test_a_folder_inside_makes_the_count_unsure_until_nothing_moves(home: Path) -> None:
    (home / "a" / "b").mkdir(parents=True)
    assert scratch.usage(str(home), still=False)[2] is False
    assert scratch.usage(str(home), still=True)[1:] == (2, True)


@pytest.mark.parametrize("depth", [34, 200])
def test_a_nest_too_deep_to_follow_counts_as_too_much(home: Path, depth: int) -> None:
    at = home
    for _ in range(depth):
        at = at / "d"
    at.mkdir(parents=True)
    assert scratch.usage(str(home), still=True)[1] > scratch.MOST_ENTRIES


def test_a_run_cannot_guess_the_name_of_another_scratch(home: Path) -> None:
    made = []
    for _ in range(50):
        path, fd = scratch.make(str(home))
        os.close(fd)
        made.append(os.path.basename(path))
    assert len(set(made)) == 50 and all(len(name) == 32 and int(name, 16) >= 0 for name in made)


def test_a_run_that_cannot_be_ordered_leaves_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders, gone = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gone.close()
    zygote: Any = SimpleNamespace(layer=lambda name: False, folder=str(home), orders=orders)
    with orders, pytest.raises(server.InfraError, match="the fork server is gone"):
        host.Run(Limits()).order(zygote, b"{}")
    assert os.listdir(home) == []

    def refused(*_: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="too many"):
        patched.setattr(os, "open", refused)
        scratch.make(str(home))
    assert os.listdir(home) == []


BOUND = 64
ENDINGS = [  # (what a program leaves just before it ends, the outcome on disk that is looked at)
    (f"for n in range({BOUND}): open(f'{{n}}', 'w').close()", "ok"),
    (f"for n in range({BOUND + 1}): open(f'{{n}}', 'w').close()", "disk_limit"),
    (f"os.makedirs('a/b')\nfor n in range({BOUND - 2}): os.symlink('x', f'a/b/{{n}}')", "ok"),
    (f"os.makedirs('a/b')\nfor n in range({BOUND - 1}): os.symlink('x', f'a/b/{{n}}')", "disk_limit"),
    ("for n in range(1): open(f'{n}', 'wb').write(bytes(1 << 20))", "ok"),
    ("for n in range(3): open(f'{n}', 'wb').write(bytes(1 << 20))", "disk_limit"),
    ("os.umask(0); os.mkdir('d', 0o300)\nfor n in range(3): open(f'd/{n}', 'wb').write(bytes(1 << 20))", "disk_limit"),
    ("os.makedirs('/'.join('d' * 30))", "ok"),
    ("os.makedirs('/'.join('d' * 60))", "disk_limit"),
    (f"for n in range({BOUND + 1}): open('x', 'w').close(); os.unlink('x')", "ok"),
    ("for n in range(3): open('x', 'wb').write(bytes(1 << 20)); os.unlink('x')", "ok"),
    (f"for n in range({BOUND + 1}): open(f'{{n}}', 'w').close()\nos._exit(0)", "disk_limit"),
    (f"for n in range({BOUND + 1}): open(f'{{n}}', 'w').close()\nraise ValueError", "disk_limit"),
]  # fmt: skip


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot without tmpfs, which nobody looks at while a program runs: as if each program were quicker than that."""
    monkeypatch.setattr(host, "_TICK_S", 60.0)
    command = "from sandbox import kernel, zygote\ndef refused(flags): raise PermissionError(1, 'refused')\n"
    boot = server._BOOT.replace("; main()", "; kernel.unshare = refused; main()")
    monkeypatch.setattr(server, "_BOOT", boot.replace("from sandbox.zygote", f"exec({command!r}); from sandbox.zygote"))
    monkeypatch.setattr(scratch, "MOST_ENTRIES", BOUND)
    with Slot(packages=(), limits=Limits(scratch_mb=2)) as slot:
        assert not next(layer for layer in slot.platform.layers if layer.name == "mount jail").active
        yield slot


def test_what_is_left_at_the_last_moment_is_counted_before_the_verdict(looked_at: Slot) -> None:
    for code, status in ENDINGS:
        result = looked_at.run(Request(f"import os\n{code}"))
        assert result.status == status, (code, result)
        with looked_at.session() as session:
            assert session.run("kept = 1").ok
            cell = session.run(f"import os\n{code}")
            assert (cell.status == "disk_limit") == (status == "disk_limit"), (code, cell)
            # What went beyond the bound is no part of the state, and did not end the session.
            assert session.run("print(kept)").stdout == "1\n" or "_exit" in code or "Error" in code


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_only_what_is_ours_is_swept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    for name, owner in (("dead", os.geteuid()), ("theirs", 23456)):
        folder = home / f"agentic-sandbox-{name}"
        (folder / "shut").mkdir(parents=True, mode=0o000)
        os.chown(folder, owner, -1)
    path, lock = scratch.new_folder()
    os.close(lock)
    assert sorted(os.listdir(home)) == sorted(["agentic-sandbox-theirs", os.path.basename(path)])
    assert os.stat(home / "agentic-sandbox-theirs" / "shut").st_mode & 0o777 == 0
