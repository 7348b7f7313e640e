"""events.jsonl: what a reader gets while it is written, and that it does not grow for ever."""

import threading
import time

import pytest

from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store import events
from pipeline.store.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    yield run
    run.close()


def restart(run, steps):
    events.append(run, "stage_restarted", stage="mgpo", steps=steps, cause="a · b", pools="kept")


def test_a_run_to_which_nothing_happened_has_none(run):
    assert events.read(run, "stage_restarted") == [] and not run.path(events.FILE).exists()


def test_events_come_back_in_order_and_since_a_moment(run):
    restart(run, 1)
    restart(run, 2)
    first, second = events.read(run, "stage_restarted")
    assert (first["steps"], second["steps"], second["cause"], second["pools"]) == (1, 2, "a · b", "kept")
    assert first["time"] <= second["time"] <= time.time() + 0.001
    assert events.read(run, "stage_restarted", since=second["time"]) == []
    assert len(events.read(run, "stage_restarted", since=first["time"] - 1)) == 2


def test_of_many_the_newest_are_kept(run, monkeypatch):
    monkeypatch.setattr(events, "KEPT", 3)
    for steps in range(5):
        restart(run, steps)
    assert [event["steps"] for event in events.read(run, "stage_restarted")] == [2, 3, 4]
    assert len(run.path(events.FILE).read_text().splitlines()) == 3


def test_a_reader_beside_the_writer_sees_whole_lines_only(run):
    done = threading.Event()

    def write():
        for steps in range(150):
            restart(run, steps)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    last = 0
    while not done.is_set():
        seen = [event["steps"] for event in events.read(run, "stage_restarted")]
        assert seen == list(range(len(seen))) and len(seen) >= last
        last = len(seen)
    writer.join()
    assert len(events.read(run, "stage_restarted")) == 150


@pytest.mark.parametrize("line", ["mgpo begins again", "[1]", '{"event": "stage_restarted"}'])
def test_a_line_that_is_no_event_is_named(run, line):
    restart(run, 1)
    path = run.path(events.FILE)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(Failure, match=r"events.jsonl:2: no event") as caught:
        events.read(run, "stage_restarted")
    assert "\n" not in str(caught.value)
