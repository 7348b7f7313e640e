"""What the terminal, and a log file, get to see. The clock is ours."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from pipeline.watch import verbosity
from pipeline.watch.progress import EVERY_S, Progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def told(stream):
    return stream.getvalue().splitlines()


def test_a_log_file_gets_a_line_every_ten_seconds_at_most(clock):
    out = io.StringIO()
    with Progress(out, clock) as progress, progress.stage("synthesize", 100, "problem") as stage:
        for _ in range(100):
            clock.now += EVERY_S / 4
            stage.advance(1)
    lines = told(out)
    assert lines[0] == "synthesize · starts, 100 problems"
    assert len(lines) == 2 + 100 // 4
    assert lines[-1] == "synthesize · done, 100 problems in 4:10"


def test_a_line_tells_rate_time_left_and_the_latest_facts(clock):
    out = io.StringIO()
    with Progress(out, clock) as progress, progress.stage("mgpo", 12, "step") as stage:
        clock.now += 20
        stage.advance(2, reward=0.51234, accepted=7)
        clock.now += 20
        stage.advance(2, reward=0.7)
    assert told(out)[1:3] == [
        "mgpo · 2/12 steps · reward 0.512 · accepted 7",
        "mgpo · 4/12 steps · 10.0 s/step · 1:20 left · reward 0.7 · accepted 7",
    ]


def test_the_first_step_which_compiles_says_nothing_of_those_that_follow(clock):
    """One of 678 steps took 37 s, the others 0.4 s each: minutes are left, not hours."""
    out = io.StringIO()
    with Progress(out, clock) as progress, progress.stage("sft: train", 678, "step") as stage:
        clock.now += 37
        stage.advance(1)
        for _ in range(25):
            clock.now += 0.4
            stage.advance(1)
    first, second = told(out)[1:3]
    assert first == "sft: train · 1/678 steps"
    assert second == "sft: train · 26/678 steps · 2.5 steps/s · 4:21 left"


def test_a_quiet_command_says_nothing(clock):
    out = io.StringIO()
    verbosity.choose(verbosity.Verbosity.QUIET)
    try:
        with Progress(out, clock) as progress, progress.stage("sft", 10, "step") as stage:
            clock.now += 60
            stage.advance(3)
    finally:
        verbosity.choose(verbosity.Verbosity.NORMAL)
    assert out.getvalue() == ""


def test_what_an_earlier_run_did_does_not_count_for_the_rate(clock):
    out = io.StringIO()
    with Progress(out, clock) as progress, progress.stage("mgpo", 12, "step", done=4) as stage:
        clock.now += 90
        stage.advance(1)
        clock.now += 30
        stage.advance(1)
    lines = told(out)
    assert lines[:2] == ["mgpo · resumes at step 5 of 12", "mgpo · 5/12 steps"]
    assert lines[2] == "mgpo · 6/12 steps · 30.0 s/step · 3:00 left"


def test_a_stage_that_breaks_says_where_and_lets_the_error_through(clock):
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(out, clock) as progress:
        with progress.stage("sft", 10, "step") as stage:
            clock.now += 61
            stage.advance(3)
            raise KeyboardInterrupt
    assert told(out)[-1] == "sft · stopped, 3/10 steps in 1:01"


def test_a_stage_without_a_total_counts_up(clock):
    out = io.StringIO()
    with Progress(out, clock) as progress, progress.stage("acquire", None, "document") as stage:
        clock.now += 4
        stage.advance(10, kept=1)
        clock.now += 10
        stage.advance(50, kept=3)
    assert told(out) == [
        "acquire · starts",
        "acquire · 60 documents · 5.0 documents/s · kept 3",
        "acquire · done, 60 documents in 0:14 · kept 3",
    ]


def test_a_skipped_stage(clock):
    out = io.StringIO()
    with Progress(out, clock) as progress:
        progress.skip("sft")
    assert told(out) == ["sft · done before, skipped"]


def test_on_a_terminal_the_bar_moves_on_stderr_and_stdout_stays_one_json_object():
    program = (
        "import json, time\nfrom pipeline.watch.progress import Progress\n"
        "with Progress() as p, p.stage('mgpo', 2, 'step') as s:\n"
        "    s.advance(1, reward='[red]0.5'); print(json.dumps({'a': 1})); s.advance(1); time.sleep(0.5)\n"
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=env, timeout=60, check=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux: all of it was read and the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert json.loads(done.stdout) == {"a": 1}
    text = shown.decode()
    assert "\x1b[" in text and "2/2 steps" in text
    assert re.search(r"2/2 steps[^\r\n]*\[red\]0\.5", text), "facts are shown as they are, not read as markup"
    assert "done, 2 steps" in text
