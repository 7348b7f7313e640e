"""metrics.jsonl: what a reader gets back, what a crash may leave, and the TensorBoard mirror."""

import errno
import json
import math

import pytest

from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store import chained, metrics
from pipeline.store.files import writing
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    run = RunDir.open(tmp_path / "run", Config(domain="mini"))
    yield run
    run.close()


def values(rows, name):
    return [row.get(name) for row in rows]


def test_rows_come_back_by_stage_and_step(run):
    with Metrics(run) as log:
        log.log("mgpo", 2, {"reward": 0.5})
        log.log("sft", 1, {"loss": 3})
        log.log("mgpo", 1, {"reward": 0.25, "train/loss": -1.0})
    rows = metrics.read(run)
    assert set(rows) == {"sft", "mgpo"}
    assert values(rows["mgpo"], "step") == [1, 2]
    assert values(rows["mgpo"], "reward") == [0.25, 0.5]
    assert rows["mgpo"][0]["train/loss"] == -1.0
    assert rows["sft"][0]["loss"] == 3


def test_what_a_link_in_their_place_names_is_not_written_to(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    run.path(metrics.FILE).symlink_to(elsewhere)
    with pytest.raises(Failure, match=r"metrics\.jsonl: .*; expected a file this user may write to; `mv "):
        Metrics(run)
    journal = run.path("ledger", "mgpo", "000001.jsonl")
    journal.parent.mkdir(parents=True)
    journal.symlink_to(elsewhere)
    with pytest.raises(Failure, match=r"000001\.jsonl: .*; expected a file: `rm -r "):
        Ledger(run, "mgpo").begin(1)
    assert not elsewhere.exists()


def test_a_run_behind_a_link_that_takes_no_file_is_not_said_to_be_in_the_way(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(Failure, match=r"/run: Permission denied; expected a directory this user may write to$"):
        with writing(tmp_path / "run"):
            raise PermissionError(errno.EACCES, "Permission denied")


def test_a_step_done_again_after_a_resume_replaces_the_first(run):
    with Metrics(run) as log:
        for step in (1, 2, 3):
            log.log("mgpo", step, {"reward": step})
    with Metrics(run) as log:
        log.log("mgpo", 3, {"reward": 30})
        log.log("mgpo", 4, {"reward": 40})
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 2, 30, 40]
    assert len(run.path(metrics.FILE).read_text().splitlines()) == 5, "the file only grows"


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_torn_last_line_is_passed_over_and_then_cut_off(run, cut):
    with Metrics(run) as log:
        log.log("mgpo", 1, {"reward": 1})
        log.log("mgpo", 2, {"reward": 2})
    path = run.path(metrics.FILE)
    path.write_bytes(path.read_bytes()[:-cut])
    assert values(metrics.read(run)["mgpo"], "reward") == [1]
    with Metrics(run) as log:
        log.log("mgpo", 2, {"reward": 20})
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 20]


def test_values_that_are_not_finite_leave_the_file_json_and_the_plots_a_gap(run):
    with Metrics(run) as log:
        log.log("mgpo", 1, {"loss": math.nan, "kl": math.inf, "reward": 1})

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    line = json.loads(run.path(metrics.FILE).read_text(), parse_constant=refuse)
    assert line["loss"] is None and line["kl"] is None
    (row,) = metrics.read(run)["mgpo"]
    assert "loss" not in row and row["reward"] == 1


def three(run):
    with Metrics(run) as log:
        for step in (1, 2, 3):
            log.log("mgpo", step, {"reward": step})
    return run.path(metrics.FILE)


@pytest.mark.parametrize("line", [b"[3]", b"{}", b'{"stage": "mgpo", "step": 2, "reward": "text"}', b"\xff\x00", b""])
def test_a_line_that_is_none_of_ours_is_left_out_and_counted_and_costs_no_other(run, line):
    path = three(run)
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, third, b""]))
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 3]
    assert metrics.damage(run) == [2]
    with Metrics(run) as log:
        log.log("mgpo", 4, {"reward": 4})
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 3, 4]
    assert metrics.damage(run) == [2]


def test_a_line_with_text_where_a_number_was_is_left_out_although_its_checksum_is_right(run):
    three(run)
    line, _ = chained.line({"time": 1.0, "stage": "mgpo", "step": 4, "reward": "much"}, 0)
    run.path(metrics.FILE).write_bytes(line)
    assert metrics.read(run) == {} and metrics.damage(run) == [1]


def test_any_bit_that_is_flipped_is_noticed(run):
    path = three(run)
    content = path.read_bytes()
    for bit in range(8 * len(content) - 8):  # the last newline may be lost in a crash
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert metrics.damage(run), bit


def test_lines_that_are_taken_out_or_change_places_are_noticed(run):
    path = three(run)
    one, two, three_, *_ = path.read_bytes().split(b"\n")
    for lines in ([one, three_], [two, one, three_], [one, two, two, three_]):
        path.write_bytes(b"\n".join([*lines, b""]))
        assert metrics.damage(run)


def test_a_last_line_that_lost_its_newline_stays(run):
    path = three(run)
    path.write_bytes(path.read_bytes()[:-1])
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 2, 3]
    with Metrics(run) as log:
        log.log("mgpo", 4, {"reward": 4})
    assert values(metrics.read(run)["mgpo"], "reward") == [1, 2, 3, 4] and metrics.damage(run) == []


def test_what_has_no_newline_at_all_is_not_cut_to_nothing(run):
    path = run.path(metrics.FILE)
    path.write_bytes(b"somebody's notes")
    Metrics(run).close()
    assert path.read_bytes() == b"somebody's notes\n"


def test_a_metric_cannot_pose_as_the_step(run):
    with Metrics(run) as log, pytest.raises(ValueError, match="step"):
        log.log("sft", 1, {"step": 7})


def test_no_file_is_no_rows(run):
    assert metrics.read(run) == {}


def test_tensorboard_shows_the_same_numbers(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Metrics(run) as log:
        log.log("mgpo", 1, {"reward": 0.5, "train/loss": math.nan})
        log.log("mgpo", 2, {"reward": 0.75})
    board = accumulator.EventAccumulator(str(run.path("tensorboard")))
    board.Reload()
    assert board.Tags()["scalars"] == ["mgpo/reward"]
    assert [(e.step, e.value) for e in board.Scalars("mgpo/reward")] == [(1, 0.5), (2, 0.75)]
