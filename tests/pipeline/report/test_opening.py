"""The report's first lines: a solver that got worse says so, in colour, and only where an interval does."""

from types import SimpleNamespace

import pytest

from pipeline.report.opening import opening
from pipeline.scoring import items, measures
from pipeline.store.run_stages import RUN_STAGES


def said(pattern):
    rows = [{"question": f"Question {i}?", "answer": "1", "answer_kind": "math"} for i in range(len(pattern))]
    judged = [["equal" if c == "+" else "different"] for c in pattern]
    return items.items_of(items.table(rows, [[r"\boxed{1}"]] * len(rows), judged))


def facts(paired=None, before=0.4, after=0.3, width=0.05, done=tuple(RUN_STAGES), by="problems"):
    results = {
        "evaluate": {
            "before": {"mean": before, "interval": [before - width, before + width]},
            "after": {"mean": after, "interval": [after - width, after + width]},
            "paired": measures.compare(*paired, seed=0) if paired else None,
        },
        "synthesize": {"unsolved": 7, "ended_by": by},
    }
    return SimpleNamespace(
        results={stage: results.get(stage, {}) for stage in done},
        provenance=[{"pass_at_k": 0.25}, {"pass_at_k": 0.75}, {"pass_at_k": 0.0}],
        pass_at_k=lambda: [0.25, 0.75, 0.0],
        result=lambda stage, name: results.get(stage, {}).get(name) if stage in done else None,
    )


@pytest.mark.parametrize(
    ("before", "after", "way", "words"),
    [
        ("+" * 30 + "-" * 10, "+" * 12 + "-" * 28, "down", 'The solver <b class="bad">got worse</b>: -45.0 points'),
        ("+" * 12 + "-" * 28, "+" * 30 + "-" * 10, "up", 'The solver <b class="good">got better</b>: +45.0 points'),
        ("+-" * 20, "-+" * 20, "level", 'The solver <b class="soft">did not measurably change</b>: +0.0 points'),
    ],
)
def test_by_the_items_that_both_answered(before, after, way, words):
    html = opening(facts((said(before), said(after))))
    assert html.startswith(f'<p class="opening {way}">') and words in html
    assert ("Look at the data set" in html) == (way == "down")


def test_pairing_shows_what_two_intervals_alone_do_not():
    """All problems but a few stay; those few all turn wrong."""
    both = said("+-" * 40 + "+" * 8), said("+-" * 40 + "-" * 8)
    shares = {"before": 48 / 88, "after": 40 / 88, "width": 0.104}
    assert "did not measurably change" in opening(facts(**shares))
    assert "got worse" in opening(facts(both, **shares))


def test_what_was_made_and_where_a_run_has_come_to():
    html = opening(facts(done=("acquire", "sft", "mgpo", "synthesize")))
    assert "The run made 3 problems, 2 of which the prober fails more often than not; 7 more are valid" in html
    assert "It is not done: solve comes next." in html and "solver" not in html and "target" not in html
    assert "It stopped writing at its target of hours, before that of problems." in opening(facts(by="hours"))
    assert opening(facts(done=())) == ""


def test_problems_that_nobody_checked_are_said_to_be_unchecked():
    run = facts(done=("acquire", "sft", "mgpo", "synthesize"))
    run.provenance = [{"decision": "accepted"}, {"decision": "rejected"}, {"decision": "rejected"}]
    assert "Nobody was to check them, and the committee rejects 2 of them." in opening(run)
    run.provenance = [{"decision": "accepted"}, {}]  # of a version that did not say it
    assert "Nobody" not in opening(run)
