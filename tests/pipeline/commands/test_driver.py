"""The driver: whatever happens, the directory is free again and no process is left. Stages and Ray are replaced."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from pipeline import stages
from pipeline.commands import driver
from pipeline.commands.driver import drive
from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir


@pytest.fixture
def closed(monkeypatch):
    """How often the cluster was closed."""
    times = []

    class Cluster:
        joins = False

        def __init__(self, config, root, say):
            pass

        async def sandbox_stats(self):
            layers = [{"name": "landlock", "active": True}, {"name": "mount jail", "active": False}]
            return {"level": "strong", "layers": layers, "restarts": 2}

        async def idle(self):
            pass

        def close(self, shutdown):
            assert shutdown
            times.append(1)

    monkeypatch.setattr(driver, "Cluster", Cluster)
    return times


def test_stages_run_in_order_and_their_results_come_back(tmp_path, monkeypatch, closed):
    async def run(context, name):
        assert context.run.root == tmp_path / "r"
        return {"name": name}

    monkeypatch.setattr(stages, "run", run)
    assert list(drive(Config(domain="mini"), tmp_path / "r", ["sft", "acquire"]).items()) == [
        ("sft", {"name": "sft"}), ("acquire", {"name": "acquire"}),
    ]  # fmt: skip
    assert closed == [1]


def test_the_walls_that_programs_ran_behind_are_in_the_metrics(tmp_path, monkeypatch, closed):
    async def run(context, name):
        return {}

    monkeypatch.setattr(stages, "run", run)
    drive(Config(domain="mini"), tmp_path / "r", ["sft"])
    (row,) = read_metrics(RunDir.read(tmp_path / "r")[0])["sandbox"]
    told = {name: value for name, value in row.items() if name not in ("time", "stage", "step")}
    assert told == {"level": 1, "restarts": 2, "layer/landlock": 1, "layer/mount jail": 0}


def test_stdout_is_the_results_alone_though_ray_prints_to_it(tmp_path, monkeypatch, closed, capsys):
    async def run(context, name):
        await asyncio.to_thread(print, "(raylet) The node is gone.")
        return {}

    monkeypatch.setattr(stages, "run", run)
    drive(Config(domain="mini"), tmp_path / "r", ["mgpo"])
    print("the result")
    told = capsys.readouterr()
    assert told.out == "the result\n"
    assert "(raylet) The node is gone." in told.err


def test_a_failure_ends_the_run_and_frees_the_directory(tmp_path, monkeypatch, closed):
    ran = []

    async def run(context, name):
        ran.append(name)
        raise Failure(f"{name}: cause")

    monkeypatch.setattr(stages, "run", run)
    with pytest.raises(Failure, match="sft: cause"):
        drive(Config(domain="mini"), tmp_path / "r", ["sft", "mgpo"])
    assert (ran, closed) == (["sft"], [1])
    RunDir.open(tmp_path / "r", Config(domain="mini")).close()


def test_on_a_cluster_the_nodes_are_asked_for_what_is_left_to_do(tmp_path, monkeypatch, closed):
    asked = []

    async def run(context, name):
        asked.append(name)
        return {}

    async def check(config, root, models):
        asked.append((root, sorted(models)))

    monkeypatch.setattr(stages, "run", run)
    monkeypatch.setattr(driver.nodes, "check", check)
    monkeypatch.setattr(driver.Cluster, "joins", True)
    monkeypatch.setattr(driver.Cluster, "start", lambda self: asked.append("joined"), raising=False)
    drive(Config(domain="mini"), tmp_path / "r", ["acquire", "solve"])
    assert asked == ["joined", (tmp_path / "r", ["solve.base.path"]), "acquire", "solve"]


WAITING = """
    import asyncio, subprocess, sys, time
    from pipeline.commands import driver
    from pipeline import stages

    class Cluster:
        joins = False
        def __init__(self, config, root, say): pass
        async def idle(self): pass
        def close(self, shutdown):
            assert not shutdown
            {close}

    async def run(context, name):
        null = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=null, stderr=null)
        print(child.pid, file=sys.__stdout__, flush=True)
        {wait}

    driver.Cluster, stages.run = Cluster, run
    {more}
    from pipeline.cli import main
    main()
"""


def start(folder, close="pass", more="", wait="await asyncio.sleep(600)", sets=()):
    """A run that waits in a stage, with a child in a session of its own."""
    code = textwrap.dedent(WAITING).format(close=close, more=more, wait=wait)
    ours = subprocess.Popen(
        [sys.executable, "-c", code, "acquire", "--run-dir", "r", *sets],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert ours.stdout
    line = ours.stdout.readline()
    assert line, ours.communicate()[1]
    return ours, psutil.Process(int(line))


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_the_directory_free(tmp_path, how):
    ours, child = start(tmp_path)
    ours.send_signal(how)
    _, err = ours.communicate(timeout=60)
    assert ours.returncode == 130
    assert err.splitlines()[-1] == "propose: interrupted; the same command goes on from here"
    assert "Traceback" not in err
    assert gone(child)
    RunDir.open(tmp_path / "r", Config(domain="mini")).close()


def test_closing_that_hangs_is_ended(tmp_path):
    ours, child = start(tmp_path, close="time.sleep(600)", more="driver._CLOSE_S = 0.5")
    ours.send_signal(signal.SIGINT)
    _, err = ours.communicate(timeout=60)
    assert ours.returncode == 130
    assert err.splitlines()[-1].startswith("propose: the processes of this run did not end")
    assert gone(child)


DEAF = """
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
"""


@pytest.mark.parametrize("wait", [DEAF, "time.sleep(600)"], ids=["swallows", "never looks"])
def test_a_stage_that_does_not_end_when_told_is_ended(tmp_path, wait):
    ours, child = start(tmp_path, more="driver._CLOSE_S = 0.5", wait=wait.strip())
    ours.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = ours.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert ours.returncode == 130
    assert err.splitlines()[-1].startswith("propose: the processes of this run did not end")
    assert gone(child)
    RunDir.open(tmp_path / "r", Config(domain="mini")).close()


STUCK = """
    from pathlib import Path
    from pipeline.store import remote, rundir
    from tests.pipeline.storms import Storm
    rundir._LAST_S = 0.5
    remote.resolve = Storm(Path("storage"), lambda n, what: time.sleep(600) if n > 12 else None).resolve
"""


def test_an_interrupt_does_not_wait_for_slow_storage(tmp_path):
    ours, child = start(tmp_path, more=textwrap.dedent(STUCK).strip(), sets=["--set", "mirror=m"])
    time.sleep(3)  # the mirror is under way
    ours.send_signal(signal.SIGINT)
    _, err = ours.communicate(timeout=30)
    assert ours.returncode == 130
    assert "lags behind the run directory; the same command brings it up to date" in err
    assert err.splitlines()[-1] == "propose: interrupted; the same command goes on from here"
    assert gone(child)
    RunDir.open(tmp_path / "r", Config(domain="mini")).close()


def test_a_second_interrupt_does_not_leave_what_the_first_was_ending(tmp_path):
    ours, child = start(tmp_path, close="print('closing', file=sys.__stdout__, flush=True); time.sleep(1)")
    ours.send_signal(signal.SIGINT)
    assert ours.stdout.readline() == "closing\n"
    time.sleep(0.1)
    ours.send_signal(signal.SIGINT)
    _, err = ours.communicate(timeout=60)
    assert ours.returncode == 130 and "Traceback" not in err
    left = not gone(child)
    if left:
        child.kill()
    assert not left


AGAIN = """
try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        import os, signal
        os.kill(os.getpid(), signal.SIGINT)
        raise
"""
IDLE = """
async def idle(self):
    await asyncio.sleep(0.1)
Cluster.idle = idle
"""


def test_a_second_interrupt_that_comes_with_the_first_is_the_same_one(tmp_path):
    """As `timeout` and terminals send it: to the process, and to its group."""
    ours, child = start(tmp_path, wait=AGAIN.strip(), more=IDLE.strip())
    ours.send_signal(signal.SIGINT)
    _, err = ours.communicate(timeout=60)
    assert ours.returncode == 130 and "Traceback" not in err
    assert err.splitlines()[-1] == "propose: interrupted; the same command goes on from here"
    assert gone(child)
