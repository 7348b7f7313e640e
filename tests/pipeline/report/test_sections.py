"""The registry of report sections: each is on the page, at its place, at any point of a run; none is forgotten."""

import inspect
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipeline import report
from pipeline.report import charts, sections
from pipeline.report.charts import text
from pipeline.report.facts import gather
from pipeline.report.sections import SECTIONS, Section
from tests.pipeline import runs


def page(run):
    return report.write(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = runs.upto(tmp_path_factory.mktemp("whole") / "run", "evaluate")
    yield run
    run.close()


def test_every_section_function_has_its_entry():
    written = [
        function
        for name, function in vars(sections).items()
        if inspect.isfunction(function) and function.__module__ == sections.__name__ and not name.startswith("_")
    ]
    assert {f.__name__ for f in written} == {section.body.__name__ for section in SECTIONS}
    assert len(written) == len(SECTIONS)


def test_titles_tell_sections_apart():
    titles = [section.title for section in SECTIONS]
    assert len(set(titles)) == len(titles)


def test_a_whole_run_has_every_section_in_order(whole):
    found, at, written = gather(whole), 0, page(whole)
    for section in SECTIONS:
        html = section.html(found)
        assert html.startswith(f"<h2>{text(section.title)}</h2>" if section.title else "<div"), section.title
        at = written.index(html, at) + len(html)


@pytest.mark.parametrize("last", ["nothing", "acquire", "sft", "mgpo", "synthesize", "solve"])
def test_a_section_is_left_out_or_says_what_is_missing(tmp_path, last):
    run = runs.upto(tmp_path / "run", last, mgpo_steps=2)
    found, written = gather(run), page(run)
    run.close()
    for section in SECTIONS:
        body = section.body(found)
        heading = f"<h2>{text(section.title)}</h2>"
        assert (heading + body in written) if body and section.title else body in written
        assert body or heading not in written


def test_a_new_section_is_one_function_and_one_entry(whole, monkeypatch):
    def episodes_of_sft(facts):
        return f"<p>{facts.played['sft'].episodes} episodes</p>"

    monkeypatch.setattr("pipeline.report.page.SECTIONS", [*SECTIONS, Section("Episodes & teachers", episodes_of_sft)])
    assert "<h2>Episodes &amp; teachers</h2><p>48 episodes</p></main></body></html>\n" in page(whole)


def test_what_the_judges_can_be_exploited_for_is_told(whole):
    found = gather(whole)
    shown = sections.adversary(found)
    assert "1.5 %" in shown and "200 tries" in shown and "vacuous" in shown
    assert report.summary(whole)["exploit_share"] == 0.015
    assert sections.adversary(replace(found, adversary=None)) == ""


def test_a_data_set_says_what_nobody_solves_and_how_little_it_varies(whole):
    shown = sections.dataset(gather(whole))
    assert "7 valid problems that no prober solves above chance are kept out of it." in shown
    assert "Little variety: 3 skeletons in 60 problems, the commonest 34 % of them" in shown
    summary = report.summary(whole)
    assert (summary["unsolved"], summary["guessable"], summary["skeletons"]) == (7, 30, 3)


def facts_of(provenance, **results):
    played = SimpleNamespace(prober=SimpleNamespace(k=4))
    return SimpleNamespace(
        config=played,
        provenance=provenance,
        pass_at_k=lambda: [p["pass_at_k"] for p in provenance if p["pass_at_k"] is not None],
        pass_rate=lambda: [],
        diversity=lambda: None,
        result=lambda stage, name: results.get(stage, {}).get(name),
        status=lambda stage: "done",
        rows={},
    )


def test_skills_that_rows_need_together_are_counted_by_pairs():
    """By what verifiers read; of an earlier version by what was active. A row that nobody probed is in no figure of
    difficulty."""
    row = {"category": "maths", "active": ["a", "b"], "pass_at_k": 0.5}
    html = sections.dataset(facts_of([row, row | {"used": ["b", "c", "a"]}, row | {"used": [], "pass_at_k": None}]))
    drawn = html[html.index("Skills together") :]
    assert "a + b · 2" in drawn and "a + c · 1" in drawn and "b + c · 1" in drawn and "commonest of 3 pairs" in drawn
    assert f"mean difficulty {charts.number(0.5, True)}" in html
    unprobed = sections.dataset(facts_of([row | {"used": ["a"], "pass_at_k": None}]))
    assert "none was probed" in unprobed and "Skills together" not in unprobed
    rewritten = sections.dataset(facts_of([row | {"active": [], "used": []}]))  # from a seed: no skill was offered
    assert "Categories" in rewritten and "Skills" not in rewritten


def test_a_warm_up_is_told_before_the_curves_of_training():
    warm = {"solutions": 180, "steps": 6, "loss_first": 1.25, "loss_last": 0.5, "left_out": {"no solution": 3}}
    html = sections.solver_training(facts_of([], solve={"warmup": warm}))
    told = "SFT on 180 worked solutions, 6 steps: loss 1.25 → 0.50 nats a token; left out: 3 no solution."
    assert told in html and "SFT on" not in sections.solver_training(facts_of([]))


def test_what_a_run_took_is_told_by_stage_and_by_problem(tmp_path):
    run = runs.upto(tmp_path / "run", "synthesize")
    facts = gather(run)
    run.close()
    text_of = " ".join(re.sub("<[^>]*>", " ", sections.taken(facts)).split())
    assert facts.spent == {} and "paid" not in text_of
    # 2 + 130 + 410 + 95 s; ten steps of twelve episodes with 100 tokens each; 60 problems.
    assert "synthesize 1 min 35 s 14.9 % 120 12,000" in text_of
    assert "acquire 2 s 0.3 % – –" in text_of
    assert "A problem of the data set took with all finished stages 10.6 s." in text_of
    result = facts.results["synthesize"]["result"]
    result |= {"seconds_per_problem": 1.5, "tokens_per_problem": 1353.0, "usd_per_problem": 0.02}
    facts = replace(facts, spent={"acquire": 0.5, "synthesize": 1.3})
    text_of = " ".join(re.sub("<[^>]*>", " ", sections.taken(facts)).split())
    assert (
        "synthesize 1 min 35 s 14.9 % 120 12,000 $1.3" in text_of and "mgpo 6 min 50 s 64.4 % 288 28,800 –" in text_of
    )
    took = "A problem of the data set took 1.5 s of writing, 1,353 sampled tokens, $0.02"
    assert f"{took}; with all finished stages 10.6 s, $0.03." in text_of
