"""`propose dataset` and `propose compare` as a user calls them, on folders and files made here."""

import json

import pytest

from pipeline.commands.keys import (
    COMPARE_KEYS,
    DATASET_CARD_KEYS,
    DATASET_CHECK_KEYS,
    DATASET_EXPORT_KEYS,
    DATASET_STATS_KEYS,
)
from pipeline.scoring import items
from tests.pipeline.dataset.test_folder import PROBLEMS, publish
from tests.pipeline.test_cli import propose


@pytest.fixture
def place(tmp_path):
    return publish(tmp_path / "dataset", PROBLEMS[:3])


def asked(capsys, *words):
    code, out, _ = propose(capsys, *words, "--json")
    return code, json.loads(out)


def test_check_finds_what_is_in_a_benchmark(capsys, place, tmp_path):
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps({"question": PROBLEMS[1].question.upper(), "answer": "B"}) + "\n")
    code, found = asked(capsys, "dataset", "check", place)
    assert code == 0 and set(found) == set(DATASET_CHECK_KEYS) and (found["rows"], found["barred"]) == (3, 0)
    code, found = asked(capsys, "dataset", "check", place, "--benchmark", bench)
    assert code == 2 and found["gates"][f"benchmark {bench}: exact"] == 1
    code, out, _ = propose(capsys, "dataset", "check", place, "--benchmark", bench)
    assert code == 2 and "3 rows, 1 barred" in out and "row 2: Which is even?" in out


def test_check_fails_where_a_training_file_tells_how_it_was_made(capsys, place):
    (place / "more.jsonl").write_text('{"question": "What is 2 + 2?", "answer": "4", "rationale": "because"}\n')
    code, found = asked(capsys, "dataset", "check", place)
    assert code == 2 and found["traces"] == 1 and "column 'rationale'" in found["traces_shown"][0]


def test_stats_count_by_hand(capsys, place):
    code, found = asked(capsys, "dataset", "stats", place)
    assert code == 0 and set(found) == set(DATASET_STATS_KEYS)
    assert found["kinds"] == {"choice": 1, "math": 1, "text": 1} and found["categories"] == {"maths": 3}
    assert found["pass_at_k"] == {"median": 0.5, "zero": 0, "one": 0} and found["answers"]["distinct"] == 3
    assert asked(capsys, "dataset", "stats", place / "problems.jsonl")[1]["pass_at_k"] is None


def test_card_and_export(capsys, place, tmp_path):
    code, found = asked(capsys, "dataset", "card", place)
    assert code == 0 and set(found) == set(DATASET_CARD_KEYS) and found["card"] == (place / "README.md").read_text()
    code, found = asked(capsys, "dataset", "export", "--layout", "verl", place, tmp_path / "out")
    assert code == 0 and set(found) == set(DATASET_EXPORT_KEYS)
    assert all((tmp_path / "out" / name).is_file() for name in found["files"]) and found["rows"] == 3
    code, _, err = propose(capsys, "dataset", "export", "--layout", "verl", place, tmp_path / "out")
    assert code == 2 and "new or empty" in err
    assert "# problems" in asked(capsys, "dataset", "card", place / "problems.jsonl")[1]["card"]


def test_what_is_no_data_set_is_named(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = propose(capsys, "dataset", "stats", tmp_path / "empty")
    assert code == 2 and "no data set; expected a run directory" in err
    code, _, err = propose(capsys, "dataset", "stats", tmp_path / "gone")
    assert code == 2 and "gone: no such run, folder or file" in err


def said(path, pattern):
    rows = [{"question": f"Question {i}?", "answer": "1", "answer_kind": "math"} for i in range(len(pattern))]
    judged = [["equal" if c == "+" else "different"] for c in pattern]
    texts = [[rf"\boxed{{{1 if c == '+' else 2}}}"] for c in pattern]
    items.write(path, items.table(rows, texts, judged))
    return path


def test_compare_says_in_words_which_is_better_and_what_changed(capsys, tmp_path):
    a, b = said(tmp_path / "a.parquet", "+" * 6 + "-" * 14), said(tmp_path / "b.parquet", "-" + "+" * 18 + "-")
    code, found = asked(capsys, "compare", a, b)
    assert code == 0 and set(found) == set(COMPARE_KEYS)
    assert (found["better"], found["worse"], found["problems"]) == (13, 1, 20)
    assert found["changed"][0] == {"id": found["changed"][0]["id"], "a": 1.0, "b": 0.0, "question": "Question 0?"}
    assert found["verdict"].startswith("B is better: +60.0 points")
    code, out, _ = propose(capsys, "compare", b, a)
    assert out.startswith("B is worse: -60.0 points") and "100 % →   0 %  Question 6?" in out
    code, _, err = propose(capsys, "compare", a, tmp_path / "a.json")
    assert code == 2 and "a.json" in err
