"""events.jsonl: what a reader gets while it is written, and after it was damaged."""

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


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_damaged_line_is_named_and_left_out_and_the_next_ones_are_read(run, damaged):
    for steps in (1, 2, 3):
        restart(run, steps)
    path = run.path(events.FILE)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[damaged - 1] = lines[damaged - 1].replace(b'"steps": ', b'"steps": 9')
    path.write_bytes(b"".join(lines))
    restart(run, 4)
    assert events.damage(run) == [damaged]
    assert [e["steps"] for e in events.read(run, "stage_restarted")] == [n for n in (1, 2, 3, 4) if n != damaged]


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
def test_a_line_that_is_no_event_is_named_and_left_out(run, line):
    restart(run, 1)
    path = run.path(events.FILE)
    path.write_text(path.read_text() + line + "\n")
    assert events.damage(run) == [2] and len(events.read(run, "stage_restarted")) == 1


def test_a_folder_in_its_place_is_one_line(run):
    run.path(events.FILE).mkdir()
    for use in (lambda: restart(run, 1), lambda: events.read(run, "stage_restarted")):
        with pytest.raises(Failure, match=r"events\.jsonl: Is a directory"):
            use()


def test_what_was_paid_is_of_the_stage_that_was_under_way(run):
    """A process that was killed tells of no end: what it has paid is found at the next begin."""
    for event, stage, usd in (
        ("stage_started", "acquire", 0.0), ("stage_finished", "acquire", 0.5), ("stage_started", "sft", 0.5),
        ("stage_started", "sft", 2.0), ("stage_stopped", "sft", 2.25), ("stage_started", "sft", 2.25),
        ("stage_finished", "sft", 3.0), ("stage_started", "mgpo", 3.0),
    ):  # fmt: skip
        events.append(run, event, stage=stage, usd=usd)
    restart(run, 1)
    assert events.spent(run) == {"acquire": 0.5, "sft": 2.5}
