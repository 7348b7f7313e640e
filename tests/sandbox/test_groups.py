"""Control groups: where a folder for them is made, what is in one and what becomes of it. Without a cgroup v2 that we
may write to, only the choice is tested, on folders that look like one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import Limits, Request, Slot, groups
from sandbox.conclude import conclude
from sandbox.groups import Groups
from sandbox.host import Run


def _may_make() -> bool:
    with contextlib.suppress(OSError):
        path, lock = groups.new_folder()
        os.close(lock)
        groups.remove(path)
        return True
    return False


needs_groups = pytest.mark.skipif(not _may_make(), reason="no cgroup v2 that we may write to")


@pytest.fixture
def folder() -> Iterator[str]:
    path, lock = groups.new_folder()
    yield path
    os.close(lock)
    _removed(path)


def _removed(path: str) -> None:
    end = time.monotonic() + 5
    while os.path.exists(path) and time.monotonic() < end:
        with contextlib.suppress(OSError):
            groups.remove(path)
        time.sleep(0.01)
    assert not os.path.exists(path)


def processes(path: str) -> list[int]:
    return [int(line) for line in Path(path, "cgroup.procs").read_text().split()]


# ---------------------------------------------------------------- where


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """top/middle/own, this process in `own`, without a limit anywhere."""
    own = tmp_path / "middle" / "own"
    own.mkdir(parents=True)
    for group in (own, own.parent):
        (group / "memory.max").write_text("max\n")
        (group / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(groups, "_own", lambda: (str(tmp_path), str(own)))
    return tmp_path


def test_it_is_looked_for_upwards_to_where_cgroup_is_mounted(tree: Path) -> None:
    middle = tree / "middle"
    assert list(groups._parents()) == [str(middle / "own"), str(middle), str(tree)]


@pytest.mark.parametrize(("file", "text"), [("memory.max", "1000"), ("pids.max", "7"), ("cpu.max", "50000 100000")])
@pytest.mark.parametrize("level", [0, 1])
def test_no_run_is_put_where_a_limit_of_our_own_would_not_hold_for_it(
    tree: Path, level: int, file: str, text: str
) -> None:
    groups_here = [tree / "middle" / "own", tree / "middle", tree]
    (groups_here[level] / file).write_text(text)
    assert list(groups._parents()) == list(map(str, groups_here[: level + 1]))


def test_the_nearest_of_those_with_most_controllers_is_taken(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"own": "", "middle": "memory pids", tree.name: "memory pids"}

    def made(parent: str) -> tuple[str, int]:
        path = Path(parent, "made")
        path.mkdir()
        (path / "cgroup.subtree_control").write_text(has[os.path.basename(parent)])
        return str(path), os.open(path, os.O_RDONLY)

    removed: list[str] = []
    monkeypatch.setattr(groups, "_folder_in", made)
    monkeypatch.setattr(groups, "remove", removed.append)
    path, lock = groups.new_folder()
    os.close(lock)
    assert path == str(tree / "middle" / "made")
    assert removed == [str(tree / "middle" / "own" / "made"), str(tree / "made")]


def test_what_was_refused_for_our_own_group_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(parent: str) -> tuple[str, int]:
        raise PermissionError(13, f"refused in {os.path.basename(parent)}")

    monkeypatch.setattr(groups, "_folder_in", refused)
    with pytest.raises(PermissionError, match="refused in own"):
        groups.new_folder()


def test_a_kernel_without_a_way_to_end_a_group_is_refused_and_nothing_stays(tree: Path) -> None:
    with pytest.raises(OSError, match=r"cgroup\.kill"):
        groups.new_folder()
    assert not list(tree.rglob("agentic-*"))


@pytest.mark.parametrize("held_before", [False, True])
def test_a_folder_that_others_sweep_at_its_birth_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_before: bool
) -> None:
    lock, swept = groups._lock, []

    def sweeping(path: str) -> int:
        if swept:
            return lock(path)
        swept.append(path)
        fd = lock(path) if held_before else -1
        os.rmdir(path)
        return fd if held_before else lock(path)

    monkeypatch.setattr(groups, "_lock", sweeping)
    path, fd = groups._locked_folder(str(tmp_path))
    os.close(fd)
    assert swept and os.listdir(tmp_path) == [os.path.basename(path)] != [os.path.basename(swept[0])]


def test_limits_are_written_once_where_their_controller_is(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory pids io")
    some = Groups(str(tmp_path))
    name = some.take()
    for file in ("memory.max", "pids.max", "memory.swap.max", "cgroup.events"):
        (tmp_path / name / file).write_text("")
    some.limit(name, 1 << 20, 7)
    assert [(tmp_path / name / file).read_text() for file in ("memory.max", "pids.max")] == ["1048576", "7"]
    (tmp_path / name / "pids.max").write_text("")
    some.limit(name, 1 << 20, 7)
    assert (tmp_path / name / "pids.max").read_text() == ""
    some.give_back(name)
    assert some.take() == name and some.take() != name


def test_only_what_was_killed_since_it_was_asked_last_counts(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    some = Groups(str(tmp_path))
    name = some.take()
    said = []
    for kills in (0, 1, 1, 3):
        (tmp_path / name / "memory.events").write_text(f"low 0\nmax 5\noom 2\noom_kill {kills}\noom_group_kill 0\n")
        said.append(some.ran_out_of_memory(name))
    assert said == [False, True, False, True]


def test_a_run_killed_for_its_groups_memory_met_a_limit() -> None:
    run = Run(Limits())
    facts = {"exit": -signal.SIGKILL, "cpu_s": 0.1, "peak_kb": 1000}
    assert conclude(run_started(run), "strong", False, facts | {"out_of_memory": True}).status == "memory_limit"
    assert conclude(run_started(run), "strong", False, facts | {"out_of_memory": False}).status == "infra"


def run_started(run: Run) -> Run:
    run.started = time.monotonic()
    return run


# ---------------------------------------------------------------- in groups


@needs_groups
def test_what_a_run_leaves_behind_ends_and_its_group_is_used_no_more(folder: str) -> None:
    some = Groups(folder)
    name = some.take()
    said, saying = os.pipe()
    leader = os.fork()
    if leader == 0:
        some.enter(name)
        if (left := os.fork()) == 0:
            os.setsid()
            time.sleep(60)
        os.write(saying, str(left).encode())
        os._exit(0)
    left = int(os.read(said, 20))
    os.waitpid(leader, 0)
    os.close(said)
    os.close(saying)
    assert processes(f"{folder}/{name}") == [left]
    some.give_back(name)
    end = time.monotonic() + 5
    while processes(f"{folder}/{name}") and time.monotonic() < end:
        time.sleep(0.01)
    assert processes(f"{folder}/{name}") == []
    assert some.take() != name
    other = some.take()
    some.give_back(other)
    assert some.take() == other


@needs_groups
def test_a_folder_of_the_dead_is_swept_and_one_of_the_living_is_not() -> None:
    living, lock = groups.new_folder()
    dead, gone = groups.new_folder()
    os.mkdir(f"{dead}/0")
    os.close(gone)
    new, other = groups.new_folder()
    assert os.path.exists(living) and not os.path.exists(dead)
    for path, fd in ((living, lock), (new, other)):
        os.close(fd)
        _removed(path)


_SLEEP = "import time; time.sleep(20)"


@needs_groups
def test_each_live_run_is_alone_in_its_group_and_the_slot_leaves_none() -> None:
    with Slot(packages=(), limits=Limits(wall_s=20)) as slot:
        assert slot._zygote is not None
        folder = slot._zygote._group
        assert folder and slot._zygote.layer("cgroup")
        sessions = [slot.session() for _ in range(3)]
        assert [session.run("x = 1").status for session in sessions] == ["ok"] * 3
        runner = threading.Thread(target=slot.run, args=(Request(_SLEEP),))
        runner.start()
        end = time.monotonic() + 5
        while len(occupied(folder)) < 5 and time.monotonic() < end:  # and the one that waits
            time.sleep(0.02)
        there = occupied(folder)
        assert [len(pids) for pids in there.values()] == [1] * 5
        for session in sessions:
            session.close()
        assert [slot.run(Request("print(1)")).stdout for _ in range(4)] == ["1\n"] * 4
        assert len(os.listdir(folder)) - len(os.listdir(f"{folder}/0")) <= 6  # groups are used again
    runner.join()
    assert not os.path.exists(folder)


def occupied(folder: str) -> dict[str, list[int]]:
    groups_there = [entry for entry in os.scandir(folder) if entry.is_dir()]
    return {entry.name: pids for entry in groups_there if (pids := processes(entry.path))}


@needs_groups
def test_the_groups_of_a_killed_fork_server_go_with_it() -> None:
    with Slot(packages=()) as slot:
        assert slot._zygote is not None
        first = slot._zygote._group
        os.kill(slot._zygote.process.pid, signal.SIGKILL)
        slot._zygote.process.wait()
        assert slot.run(Request("print(1)")).stdout == "1\n"
        assert not os.path.exists(first) and os.path.exists(slot._zygote._group) and slot._zygote._group != first
