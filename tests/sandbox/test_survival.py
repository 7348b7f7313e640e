"""What happens when parts of the sandbox itself are killed: answers come, and nothing stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sandbox import Limits, Request, Result, Slot, host, scratch

from .simulate import PLATFORMS

ROOT = Path(__file__).parents[2]
SLEEP = Request("import time; time.sleep(20)", limits=Limits(wall_s=20))


def gone(pid: int, within_s: float = 3.0) -> bool:
    """Whether a process ends (a zombie that nobody has reaped yet counts as ended)."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def walled(pid: int) -> bool:
    """Whether a process has its last wall."""
    with contextlib.suppress(OSError):
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    return False


def during_a_run(slot: Slot, action) -> Result:
    """The result of a sleeping run, while which `action` gets the zygote's number and its children's."""
    answer: list[Result] = []
    thread = threading.Thread(target=lambda: answer.append(slot.run(SLEEP)))
    thread.start()
    zygote = slot._zygote.process.pid
    end = time.monotonic() + 5
    while not any(map(walled, descendants(zygote))) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    children = descendants(zygote)
    assert children
    action(zygote, children)
    thread.join(8)
    assert not thread.is_alive() and all(gone(child) for child in children)
    return answer[0]


def test_a_killed_zygote_is_an_infrastructure_error_and_the_next_run_works() -> None:
    with Slot(packages=()) as slot:
        started = time.monotonic()
        result = during_a_run(slot, lambda zygote, _: os.kill(zygote, signal.SIGKILL))
        assert result.status == "infra" and time.monotonic() - started < 5
        assert slot.run(Request("print(1)")).stdout == "1\n"
        assert slot.restarts == 1


def test_a_stopped_zygote_does_not_hold_a_run_beyond_its_limit() -> None:
    with Slot(packages=(), limits=Limits(wall_s=0.5)) as slot:
        os.kill(slot._zygote.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        assert slot.run(Request("print(1)")).status == "infra"
        assert time.monotonic() - started < 8
        assert slot.run(Request("print(1)")).stdout == "1\n"


def test_a_run_killed_from_outside_is_no_verdict_on_the_program() -> None:
    with Slot(packages=()) as slot:
        result = during_a_run(slot, lambda _, children: [os.kill(child, signal.SIGKILL) for child in children])
        assert (result.status, result.reason) == ("infra", "killed from outside the sandbox")
        assert slot.run(Request("print(1)")).stdout == "1\n"
        assert slot.restarts == 1  # whatever it was, no further run is in the same zygote


def test_a_run_that_dies_before_its_walls_is_the_last_of_its_zygote() -> None:
    with Slot(packages=()) as slot:
        (spare,) = waiting(slot._zygote.process.pid)
        os.kill(spare, signal.SIGSTOP)  # it gets its order and does nothing about it
        threading.Timer(0.5, os.kill, (spare, signal.SIGKILL)).start()
        result = slot.run(Request("print(1)"))
        assert result.status == "infra" and "before its walls stood" in result.reason
        assert slot.run(Request("print(1)")).stdout == "1\n" and slot.restarts == 1


def test_what_a_program_does_costs_no_zygote() -> None:
    with Slot(packages=(), limits=Limits(wall_s=0.5, cpu_s=0.3, memory_mb=64)) as slot:
        ends = (
            "1/0",
            "while True: pass",
            "import time; time.sleep(9)",
            "import os; os.abort()",
            "x = bytearray(1 << 30)",
        )
        assert "infra" not in [slot.run(Request(code)).status for code in ends]
        assert slot.restarts == 0


_SUPERVISOR = """
import sys, threading
from sandbox import Limits, Request, Slot
slot = Slot("unsafe", packages=())
threading.Thread(target=slot.run, args=(Request("import time; time.sleep(60)", limits=Limits(wall_s=60)),)).start()
print(slot._zygote.process.pid, flush=True)
"""


@pytest.mark.parametrize("zygote_too", [False, True])
@pytest.mark.parametrize("platform", PLATFORMS if os.geteuid() == 0 else PLATFORMS[:1])
def test_when_the_supervisor_dies_so_does_all_below_it(platform: str, zygote_too: bool, tmp_path: Path) -> None:
    """With `zygote_too`, the zygote is stopped first and killed last, so that it can do nothing about its run."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent != Path("/") and os.access(parent, os.W_OK) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    command = [sys.executable, "-m", "tests.sandbox.simulate", platform, "--", sys.executable, "-c", _SUPERVISOR]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True)
    try:
        assert process.stdout
        zygote = int(process.stdout.readline())
        end = time.monotonic() + 10
        while not descendants(zygote) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        below = [zygote, *descendants(zygote)]
        assert len(below) >= 2
        if zygote_too:
            for pid in below[:-1]:
                os.kill(pid, signal.SIGSTOP)
    finally:
        process.kill()
        process.communicate()
    if zygote_too:
        os.kill(zygote, signal.SIGKILL)
        assert all(gone(pid) for pid in below)
        return  # its folder, if it had one, is swept by the next to start
    assert all(gone(pid) for pid in below)
    end = time.monotonic() + 3
    while os.listdir(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []


def test_a_folder_whose_owners_are_dead_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "agentic-sandbox-dead"
    (dead / "run-1" / "deep").mkdir(parents=True)
    (dead / "run-1" / "file").write_text("x")
    living, lock = scratch.new_folder()
    assert not dead.exists()
    again, other = scratch.new_folder()
    assert os.path.exists(living) and os.path.exists(again)
    os.close(lock)
    os.close(other)


def test_removing_follows_no_link_and_no_depth(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path)
    here = os.getcwd()
    os.chdir(top)
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    scratch.remove(str(top))
    assert not top.exists() and kept.exists()


def held() -> list[str]:
    """What this process has open of processes and of memory that is shared with them. Sockets and files do not count:
    threads that tests of other rooms left behind open and close theirs."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(link for link in links if "pidfd" in link or "memfd" in link)


def test_a_zygote_is_replaced_after_its_runs_and_nothing_of_it_stays() -> None:
    before = held()
    with Slot(packages=(), recycle_after=3) as slot:
        first = slot._zygote.process.pid
        with slot.session() as session:
            session.run("x = 1")
            for _ in range(7):
                assert slot.run(Request("print(1)")).ok
            assert slot.restarts == 2 and not gone(first, 0.1)  # its session keeps it
            assert session.run("", value="x").value == 1
        assert gone(first)
        assert slot.run(Request("")).ok
    assert held() == before


def test_a_fork_server_at_rest_keeps_no_descriptor_of_runs_that_have_ended() -> None:
    """The mounts of a run outlive it, until nothing else is to be done."""
    with Slot(packages=()) as slot:
        (spare,) = waiting(slot._zygote.process.pid)
        server = int(Path(f"/proc/{spare}/stat").read_text().rpartition(")")[2].split()[1])
        before = rested(server, 0)
        for _ in range(20):
            assert slot.run(Request("print(1)")).stdout == "1\n"
        assert rested(server, before) == before


def rested(server: int, at_most: int) -> int:
    """How many descriptors a fork server has, once no more than that, or for a second."""
    end = time.monotonic() + 1
    while (count := len(os.listdir(f"/proc/{server}/fd"))) > at_most and time.monotonic() < end:
        time.sleep(0.02)
    return count


def test_the_environment_of_the_supervisor_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/x")
    with Slot(packages=()) as slot:
        environment = Path(f"/proc/{slot._zygote.process.pid}/environ").read_bytes()
        assert b"secret" not in environment and b"PYTHON" not in environment


def test_a_slot_made_in_a_thread_that_ends_lives_on() -> None:
    """A death signal would follow the thread, not the process."""
    slots: list[Slot] = []
    thread = threading.Thread(target=lambda: slots.append(Slot(packages=())))
    thread.start()
    thread.join()
    with slots[0] as slot:
        assert slot.run(Request("print(1)")).stdout == "1\n" and slot.restarts == 0


def test_a_child_that_waits_for_its_order_is_replaced_when_killed_and_ends_with_its_zygote() -> None:
    with Slot(packages=()) as slot:
        zygote = slot._zygote.process.pid
        for _ in range(2):
            assert slot.run(Request("print(1)")).stdout == "1\n"
            (spare,) = waiting(zygote)
            os.kill(spare, signal.SIGKILL)
            assert gone(spare)
        assert slot.run(Request("print(2)")).stdout == "2\n" and slot.restarts == 0
        (spare,) = waiting(zygote)
    assert gone(spare, 0.2)


def waiting(zygote: int) -> list[int]:
    """The innermost processes below a zygote, once there is one: no run is on."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        if found := [pid for pid in descendants(zygote) if not descendants(pid) and not gone(pid, 0.01)]:
            return found
    return []


def test_a_machine_that_lets_no_memory_be_executed_costs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with vm.memfd_noexec=2: each try to run a compiled program is refused."""

    def refused(fd: int, mode: int) -> None:
        raise PermissionError(1, "refused")

    before = held()
    monkeypatch.setattr(os, "fchmod", refused)
    for program in (True, False):
        with pytest.raises(PermissionError):
            host._memfd(b"x", program)
    assert held() == before
