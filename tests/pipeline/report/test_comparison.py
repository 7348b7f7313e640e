"""Two runs side by side: what differs is said in words, better and worse only where an interval says so."""

import json
from pathlib import Path

import pytest

from pipeline import report
from pipeline.commands import compare
from pipeline.commands.keys import REPORT_TWO_KEYS
from pipeline.records import Failure
from pipeline.scoring import items
from tests.pipeline import runs
from tests.pipeline.report.test_report import HOSTILE, Page
from tests.pipeline.test_cli import propose, refused


def evaluated(run, right, questions=60):
    """An evaluation in which the solver is right on the first questions."""
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(questions)]
    said = [[rf"\boxed{{{n + 1}}}"] for n in range(questions)]
    judged = [["equal" if n < right else "different"] for n in range(questions)]
    with run.new_step("evaluate", 1) as folder:
        items.write(folder / items.FILE, items.table(rows, said, judged))
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Of the second every kind of text is hostile, and its solver better."""
    folder = tmp_path_factory.mktemp("two")
    pair = [
        evaluated(runs.upto(folder / "one", "evaluate", mgpo_steps=3), 20),
        evaluated(runs.upto(folder / "other", "evaluate", HOSTILE, mgpo_steps=5), 45),
    ]
    for run in pair:
        run.close()
    return [str(run.root) for run in pair]


def contents(places):
    return {path: path.read_bytes() for place in places for path in Path(place).rglob("*") if path.is_file()}


def test_both_runs_are_told_and_better_is_said_where_it_is_shown(two, tmp_path):
    found = compare.report(*two, tmp_path / "page.html")
    assert set(found) == set(REPORT_TWO_KEYS)
    assert found["compared"]["verdict"].startswith("B is better: +41.7 points")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Of the two solvers, B is better: +41.7 points" in page.text
    assert ("p", "class", "opening up") in page.attributes
    assert "25 problems better in B, 0 worse, of 60" in page.text and "What is 44 + 1?" in page.text
    assert "What is 45 + 1?" not in page.text, "both answer it wrong"
    assert "validity: accepted of judged episodes, in synthesis 60.0 % 60.0 % not shown to differ" in page.text
    for title in ("mgpo: Hard yield", "solve: Loss", "Difficulty, A", "Categories, B"):
        assert title in page.text
    assert not {"script", "img", "link"} & set(page.tags) and page.tags.count("style") == 1


def test_the_other_way_round_it_is_worse(two, tmp_path):
    compare.report(*reversed(two), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "B is worse: -41.7 points" in page.text and ("p", "class", "opening down") in page.attributes


def test_runs_without_an_evaluation_say_so_and_show_the_rest(two, tmp_path):
    run = runs.upto(tmp_path / "short", "sft")
    run.close()
    found = compare.report(two[0], str(run.root), tmp_path / "page.html")
    assert found["compared"] is None and "was not evaluated" in found["why_not"]
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "The solvers cannot be compared" in page.text and "not known" in page.text
    assert "sft: Loss" in page.text and "mgpo: Hard yield" not in page.text, "of one run alone there is nothing beside"
    with pytest.raises(Failure, match="one run; expected two"):
        compare.report(two[0], two[0], None)


def test_the_command_writes_a_page_and_leaves_the_runs_as_they_are(two, tmp_path, capsys):
    before = contents(two)
    code, out, _ = propose(capsys, "report", *two, "--out", tmp_path / "p.html", "--json")
    assert code == 0 and (tmp_path / "p.html").is_file() and json.loads(out)["page"] == str(tmp_path / "p.html")
    assert "Solvers: B is better" in propose(capsys, "report", *two, "--out", tmp_path / "q.html")[1]
    assert "expected two by their names" in refused(capsys, "report", *two, "--run-dir", two[0])
    assert "only of two runs" in refused(capsys, "report", two[0], "--out", str(tmp_path / "r.html"))
    assert report.SUMMARY_KEYS.keys() == compare.report(*two, tmp_path / "s.html")["a"].keys()
    assert contents(two) == before
