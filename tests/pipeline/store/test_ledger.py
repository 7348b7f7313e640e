"""The ledger: an attempt is issued once and ends once, through any crash; and the audit finds what is tampered with.

Runs are made up of the real journal, segments and files; what happens in them, and what is then corrupted, is chosen by
hypothesis."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Config
from pipeline.records import Episode, Failure, Rollout
from pipeline.store import accounts
from pipeline.store.digests import write_manifest
from pipeline.store.ledger import INTERRUPTED, Journal, Ledger, journal_path
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_records
from tests.pipeline.judged import episode, rollout, task

examples = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])

tasks = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["trained", "filtered", "failed"])), min_size=1, max_size=5
)
"""Of each task: how many attempts failed before the last one, and how that ended."""
histories = st.lists(
    st.tuples(tasks, st.sampled_from(["", "", "in the step", "before commit"])), min_size=1, max_size=4
)
"""Of each step: its tasks, and where the process died once on the way."""


@contextmanager
def directory():
    root = Path(tempfile.mkdtemp(prefix="ledger-"))
    run = RunDir.open(root / "run", Config(domain="mini"))
    try:
        yield run
    finally:
        run.close()
        shutil.rmtree(root)


def play(run, history, checkpoints=True):
    """An MGPO stage with this history. The process that dies leaves what it had written."""
    ledger = Ledger(run, "mgpo")
    trained = 0
    for step, (members, crash) in enumerate(history, start=1):
        names = [f"mgpo-{step:06d}-{i}" for i in range(len(members))]
        if crash == "in the step":
            ledger.begin(step)
            for name in names[:2]:
                ledger.issue(name)
            ledger = Ledger(run, "mgpo")
        ledger.begin(step)
        ends = {}
        for name, (retries, end) in zip(names, members, strict=True):
            for _ in range(retries):
                ledger.fail((name, ledger.issue(name)), "replica died")
            key = name, ledger.issue(name)
            ledger.judged(key, 10)
            ends[key] = end
        write_step(run, ledger, step, ends)
        if crash == "before commit":
            ledger = Ledger(run, "mgpo")
        else:
            ledger.commit(
                {"issued": len(ends)} | {e: list(ends.values()).count(e) for e in ("trained", "filtered", "failed")}
            )
        trained += list(ends.values()).count("trained")
        if checkpoints:
            checkpoint(run, step, trained)
    ledger.close()


def write_step(run, ledger, step, ends):
    with run.new_step("mgpo", step) as folder:
        account = ledger.segment(folder, ends)
        (folder / "state.json").write_text(json.dumps({"ledger": account}))
        write_records(folder / "episodes.parquet", [episode(task(i), a) for i, a in ends], Episode)
        rollouts = [rollout(i, a, tokens=2) for (i, a), end in ends.items() if end == "trained"]
        write_records(folder / "rollouts.parquet", rollouts, Rollout)


def checkpoint(run, step, rollouts):
    """As Ray Train leaves it: registered in the snapshot, the trainer's own state in its directory."""
    base = run.path("checkpoints", "mgpo")
    state = base / f"step-{step:06d}" / "trainer" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"step": step, "rollouts": rollouts, "world": 1}))
    write_manifest(state.parents[1], state.parents[1].name, ["trainer/state.json"], "trainer/manifest-0.json")
    names = [{"checkpoint_dir_name": p.name} for p in sorted(base.glob("step-*"))]
    (base / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": names}))


# ---------------------------------------------------------------- whole runs


@examples
@given(histories)
def test_whatever_happens_every_attempt_has_one_end_and_the_totals_are_those_of_the_history(history):
    with directory() as run:
        play(run, history)
        found = accounts.audit(run)
        assert found["findings"] == []
        stage = found["stages"]["mgpo"]
        total = stage["totals"]
        flat = [member for members, _ in history for member in members]
        interrupted = sum(min(2, len(m)) for m, crash in history if crash == "in the step")
        assert total["tasks"] == len(flat)
        assert total["interrupted"] == interrupted
        assert total["issued"] == len(flat) + sum(retries for retries, _ in flat) + interrupted
        assert total["trained"] == sum(end == "trained" for _, end in flat)
        assert total["filtered"] == sum(end == "filtered" for _, end in flat)
        assert total["issued"] == total["trained"] + total["filtered"] + total["failed"]
        assert [c["rollouts"] for c in stage["checkpoints"]][-1] == total["trained"]
        assert accounts.check(run, "mgpo") == total


def test_what_is_under_way_is_live_and_no_finding():
    with directory() as run:
        play(run, [([(0, "trained")], "")])
        ledger = Ledger(run, "mgpo")
        ledger.begin(2)
        ledger.issue("a")
        ledger.fail(("b", ledger.issue("b")), "replica died")
        row = accounts.audit(run)["stages"]["mgpo"]["steps"][-1]
        assert accounts.audit(run)["findings"] == []
        assert (row["issued"], row["live"], row["failed"], row["on_disk"]) == (2, 1, 1, False)


def test_an_attempt_number_is_never_used_again():
    with directory() as run:
        first = Ledger(run, "mgpo")
        first.begin(1)
        assert [first.issue("a"), first.issue("b"), first.issue("a")] == [1, 1, 2]
        second = Ledger(run, "mgpo")
        second.begin(1)
        assert [second.issue("a"), second.issue("b"), second.issue("c")] == [3, 2, 1]
        fails = [e for e in Journal.read(journal_path(run, "mgpo", 1)).events if e["event"] == "fail"]
        assert {(e["id"], e["attempt"]) for e in fails} == {("a", 1), ("a", 2), ("b", 1)}
        assert {e["reason"] for e in fails} == {INTERRUPTED}


@examples
@given(st.integers(1, 400))
def test_a_journal_cut_anywhere_is_gone_on_with(length):
    """What a crash leaves: some of the last bytes are missing."""
    with directory() as run:
        ledger = Ledger(run, "mgpo")
        ledger.begin(1)
        for name in "abc":
            ledger.issue(name)
        path = journal_path(run, "mgpo", 1)
        path.write_bytes(path.read_bytes()[:-length] if length < path.stat().st_size else b"")
        again = Ledger(run, "mgpo")
        again.begin(1)
        key = "a", again.issue("a")
        write_step(run, again, 1, {key: "filtered"})
        again.commit({"issued": 1, "trained": 0, "filtered": 1, "failed": 0})
        assert accounts.audit(run)["findings"] == []


def test_a_step_on_disk_has_its_journal_also_after_a_power_loss(tmp_path, monkeypatch):
    """Of a file, what was there when it was last synced is what is left."""
    run, left, real = RunDir.open(tmp_path / "run", Config(domain="mini")), {}, os.fsync

    def sync(descriptor):
        real(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        left[path] = path.read_bytes() if path.is_file() else b""

    monkeypatch.setattr(os, "fsync", sync)
    ledger = Ledger(run, "mgpo")
    ledger.begin(1)
    keys = [(name, ledger.issue(name)) for name in ("mgpo-000001-0", "mgpo-000001-1")]
    write_step(run, ledger, 1, dict.fromkeys(keys, "trained"))  # and the power goes, before it is committed
    run.close()
    journal = journal_path(run, "mgpo", 1)
    journal.write_bytes(left.get(journal, b""))
    again = RunDir.open(tmp_path / "run", Config(domain="mini"))
    assert accounts.audit(again)["findings"] == []
    assert run.path("steps", "mgpo") in left  # so that the directory's name is not lost once the ledger counts on it
    again.close()


def test_a_step_whose_attempts_do_not_all_end_is_not_written(tmp_path):
    with directory() as run:
        ledger = Ledger(run, "mgpo")
        ledger.begin(1)
        key = "a", ledger.issue("a")
        with pytest.raises(Failure, match=r"a \(attempt 1\) has no end"):
            ledger.segment(tmp_path, {})
        with pytest.raises(Failure, match=r"b \(attempt 1\) was not issued"):
            ledger.segment(tmp_path, {key: "trained", ("b", 1): "trained"})
        assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- corrupted ones

whole = [
    ([(0, "trained"), (1, "trained"), (0, "filtered"), (2, "failed")], ""),
    ([(0, "trained"), (0, "failed"), (1, "filtered")], "in the step"),
    ([(0, "trained"), (0, "trained")], ""),
]


def rows_of(path):
    table = pq.read_table(path)
    return table.to_pylist(), table.schema


def rewrite(path, rows, schema):
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def tamper(data, run):
    """Change one thing in the directory of a run; returns what."""
    journals = sorted(run.path("ledger", "mgpo").iterdir())
    steps = run.steps("mgpo")
    states = sorted(run.path("checkpoints", "mgpo").glob("step-*/trainer/state.json"))
    tables = [s / n for s in steps for n in ("ledger.parquet", "rollouts.parquet", "episodes.parquet")]
    kind = data.draw(st.sampled_from(["line", "table", "account", "checkpoint", "missing", "step"]), label="kind")
    if kind == "line":
        path = data.draw(st.sampled_from(journals))
        lines = path.read_bytes().splitlines(keepends=True)
        how = data.draw(st.sampled_from(["drop", "twice", "byte", "swap"]))
        i = data.draw(st.integers(0, len(lines) - 2))  # losing the very last line is what a crash does
        if how == "drop":
            del lines[i]
        elif how == "twice":
            lines.insert(i, lines[i])
        elif how == "swap":
            lines[i], lines[i + 1] = lines[i + 1], lines[i]
        else:
            at = data.draw(st.integers(0, 10_000)) % (len(lines[i]) - 1)
            changed = bytearray(lines[i])
            changed[at] ^= 1
            lines[i] = bytes(changed)
        path.write_bytes(b"".join(lines))
        return how, path
    if kind == "table":
        path = data.draw(st.sampled_from(tables))
        rows, schema = rows_of(path)
        assume(rows)
        i = data.draw(st.integers(0, len(rows) - 1))
        how = data.draw(st.sampled_from(["drop", "twice", "attempt", "id", "end"]))
        name = "episode_id" if "episode_id" in rows[i] else "id"
        if how == "drop":
            del rows[i]
        elif how == "twice":
            rows.append(rows[i])
        elif how == "attempt":
            rows[i]["attempt"] += data.draw(st.sampled_from([-1, 1, 7]))
        elif how == "id":
            rows[i][name] += "x"
        else:
            assume("end" in rows[i])
            rows[i]["end"] = data.draw(st.sampled_from(sorted({"trained", "filtered", "failed"} - {rows[i]["end"]})))
        rewrite(path, rows, schema)
        return how, path
    if kind == "account":
        path = data.draw(st.sampled_from(steps)) / "state.json"
        state = json.loads(path.read_text())
        field = data.draw(st.sampled_from(sorted(state["ledger"])))
        state["ledger"][field] += data.draw(st.sampled_from([-1, 1]))
        path.write_text(json.dumps(state))
        return field, path
    if kind == "checkpoint":
        path = data.draw(st.sampled_from(states))
        state = json.loads(path.read_text())
        field = data.draw(st.sampled_from(["step", "rollouts"]))
        state[field] += data.draw(st.sampled_from([-1, 1]))
        path.write_text(json.dumps(state))
        return field, path
    if kind == "missing":
        path = data.draw(st.sampled_from([*tables, *states, *journals, *(s / "state.json" for s in steps)]))
        path.unlink()
        return "unlink", path
    path = data.draw(st.sampled_from(steps))
    shutil.rmtree(path)
    return "rmtree", path


@pytest.fixture(scope="module")
def played():
    with directory() as run:
        play(run, whole)
        assert accounts.audit(run)["findings"] == []
        yield run


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_single_thing_is_corrupted_the_audit_finds_it(played, data):
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        run = RunDir(Path(shutil.copytree(played.root, f"{folder}/run")))
        what = tamper(data, run)
        found = accounts.audit(run)["findings"]
        assert found, what
        assert all("\n" not in line for line in found)
        with pytest.raises(Failure, match="ledger: "):
            accounts.check(run, "mgpo")


def test_a_task_that_is_trained_in_two_steps_is_named():
    """No single file is wrong: the same task was issued in both."""
    with directory() as run:
        ledger = Ledger(run, "mgpo")
        for step in (1, 2):
            ledger.begin(step)
            key = "again", ledger.issue("again")
            write_step(run, ledger, step, {key: "trained"})
            ledger.commit({"issued": 1, "trained": 1, "filtered": 0, "failed": 0})
        assert accounts.audit(run)["findings"] == ["mgpo: again is trained twice, in steps 1 and 2"]


def test_a_finished_stage_has_its_last_checkpoint():
    with directory() as run:
        play(run, whole)
        run.finish("mgpo", {"steps": 3}, 1.0)
        assert accounts.audit(run)["findings"] == []
        shutil.rmtree(run.path("checkpoints", "mgpo"))
        assert accounts.audit(run)["findings"] == ["mgpo: its newest checkpoint has 0 steps, 3 were released"]


# ---------------------------------------------------------------- the command


def ledger_command(capsys, root, *options):
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "--run-dir", str(root), *options])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_the_command_prints_the_accounts_and_ends_with_2_and_a_line_if_they_do_not_add_up(capsys):
    with directory() as run:
        Metrics(run).close()
        play(run, whole)
        code, out, err = ledger_command(capsys, run.root, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out) == json.loads(json.dumps(accounts.audit(run)))
        code, out, _ = ledger_command(capsys, run.root)
        assert code == 0 and "checkpoint of step 3, 5 rollouts" in out
        rows, schema = rows_of(run.steps("mgpo")[0] / "rollouts.parquet")
        rewrite(run.steps("mgpo")[0] / "rollouts.parquet", rows[1:], schema)
        code, out, err = ledger_command(capsys, run.root)
        assert code == 2 and "mgpo" in out
        accounted, digested = err.splitlines()
        assert accounted == (
            "propose: ledger: mgpo step 1: mgpo-000001-0 (attempt 1) is 0 times in rollouts.parquet, expected 1"
        )
        assert digested.startswith("propose: ledger: steps/mgpo/000001/rollouts.parquet: has ")
