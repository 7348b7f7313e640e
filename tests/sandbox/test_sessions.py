"""What a caller of a session relies on: its variables, its end, and that it can be rebuilt from its cells."""

from __future__ import annotations

import math
import time

import pytest

from sandbox import Cell, Limits, Slot
from sandbox.host import Run
from sandbox.session import MAX_CELLS


def test_a_session_keeps_its_variables(slot: Slot) -> None:
    with slot.session() as session:
        assert session.run("import math; x = 2\ndef f(): return x * 3").ok
        assert session.run("y = f()", value="y").value == 6
        failed = session.run("x = 5; undefined")
        assert (failed.status, failed.reason) == ("error", "NameError: name 'undefined' is not defined")
        assert session.run("print(x)").stdout == "5\n"


@pytest.mark.parametrize(
    "end", ["while True: pass", "import time; time.sleep(9)", "import os; os._exit(0)", "import os; os.abort()"]
)
def test_a_stopped_cell_leaves_the_state_from_before_it(slot: Slot, end: str) -> None:
    with slot.session() as session:
        session.run("x = [1]")
        assert session.run(f"x.append(2)\n{end}").status in ("timeout", "cpu_limit", "crash", "error", "ok")
        assert [cell.code for cell in session.cells] == ["x = [1]"]
        assert session.run("pass", value="x").value == [1]


def test_a_session_can_be_rebuilt_elsewhere(slot: Slot) -> None:
    with slot.session() as first:
        first.run("x = 1")
        first.run("x += 1")
    with slot.session(cells=first.cells) as second:
        assert second.run("", value="x").value == 2


def test_nothing_runs_between_cells(slot: Slot) -> None:
    with slot.session() as session:
        session.run(
            "import threading, time\nn = 0\ndef tick():\n    global n\n    while True: n += 1; time.sleep(0.001)"
        )
        session.run("threading.Thread(target=tick, daemon=True).start(); time.sleep(0.05)")
        before = session.run("", value="n").value
        time.sleep(0.5)
        assert session.run("", value="n").value < before + 250


def test_a_session_ends_with_its_lifetime(slot: Slot) -> None:
    with slot.session(lifetime_s=0.3) as session:
        assert session.run("x = 1").ok and not session.over
        time.sleep(0.4)
        assert session.over
        result = session.run("x")
        assert (result.status, result.reason) == ("infra", "the session's lifetime is over")  # not the program's fault
    with slot.session(cells=session.cells) as again:
        assert again.run("", value="x").value == 1


def test_a_session_holds_so_many_cells(slot: Slot) -> None:
    with slot.session(cells=["pass"] * MAX_CELLS) as session:
        result = session.run("x")
        assert (result.status, result.reason) == ("error", f"the session holds {MAX_CELLS} cells")


@pytest.mark.parametrize(("code", "value"), [(5, None), (b"", None), ("", "a b"), ("", 5)])
def test_a_malformed_cell_fails_in_the_callers_hands(slot: Slot, code: object, value: object) -> None:
    with slot.session() as session, pytest.raises(ValueError, match="request"):
        session.run(code, value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"session\.cells"):
        slot.session(cells="x = 1")
    for wall_s in (-1, math.nan, math.inf, "1", True, None):
        with pytest.raises(ValueError, match=r"cell\.wall_s"):
            Cell("x = 1", wall_s)  # type: ignore[arg-type]


def replayed(slot: Slot, monkeypatch: pytest.MonkeyPatch, cells: list[Cell | str], **limits: float) -> tuple[int, str]:
    """How many of the cells were begun again, and the outcome of one that prints `n` after them."""
    sent = []
    send_cell = Run.send_cell
    monkeypatch.setattr(Run, "send_cell", lambda run, job: (sent.append(job), send_cell(run, job)))
    with slot.session(Limits(memory_mb=128, **limits), cells) as session:  # type: ignore[arg-type]
        result = session.run("print(n)")
        if not result.ok:
            return len(sent), f"{result.status}: {result.reason}"
        assert all(isinstance(cell, Cell) for cell in session.cells)
        assert [cell for cell in session.cells if cell in cells] == [cell for cell in cells if isinstance(cell, Cell)]
        return len(sent) - 1, result.stdout


NAP = "import time; n = globals().get('n', 0) + 1; time.sleep(0.2)"


@pytest.mark.parametrize("known", [0.0, 0.001, 0.01])
def test_cells_that_are_slow_only_when_replayed_hold_nobody_up(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, known: float
) -> None:
    """Each is within twice its own limit. Together they may take twice what they took, and two limits."""
    begun, said = replayed(slot, monkeypatch, [Cell(NAP, known)] * 40, wall_s=0.2)
    assert begun <= 7
    assert said.startswith("error: the session cannot be rebuilt: a cell that had ended now gives timeout")


def test_cells_that_took_their_time_have_it_again(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    for cells in ([Cell(NAP, 0.2)] * 4, [NAP] * 4, [NAP, Cell(NAP, 0.3), NAP]):
        assert replayed(slot, monkeypatch, cells, wall_s=3.0) == (len(cells), f"{len(cells)}\n")
    assert replayed(slot, monkeypatch, [Cell("n = 1", 0.0)] * 40, wall_s=3.0) == (40, "1\n")


def test_no_replay_takes_more_than_some_limits_whatever_its_cells_took(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, said = replayed(slot, monkeypatch, [Cell(NAP, 0.2)] * 9, wall_s=0.2)
    assert begun == 0 and said == (
        "error: the session cannot be rebuilt: its cells took 1.8 s, and what takes more than 1.6 s is not run again"
    )
    begun, said = replayed(slot, monkeypatch, [NAP] * 40, wall_s=0.2)
    assert begun <= 8 and "one of its cells now gives timeout" in said


def test_a_replay_that_outlasts_its_session_is_no_fault_of_the_program(slot: Slot) -> None:
    cells = ["n = 1", "import time; time.sleep(0.4)", "n += 1"]
    with slot.session(cells=cells, lifetime_s=0.3) as session:
        assert session.run("print(n)").stdout == "2\n" and session.over
