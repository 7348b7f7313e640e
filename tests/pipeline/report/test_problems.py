"""The browser of problems: some of each sort, all counted, whatever they hold; and trajectories that people read."""

import random
import re
from collections import Counter

import pytest

from actors.tool_calls import render as call
from pipeline import report
from pipeline.records import Episode, Outcome, Problem, Task, ToolResult, Turn
from pipeline.report import browser, trajectories
from pipeline.report.facts import Browsed, Sample, gather
from pipeline.report.strata import DIFFICULTIES, OF_A_SORT, Sort, Strata, sort_of
from tests.pipeline import runs
from tests.pipeline.report.test_report import HOSTILE, Page

FORMULA = r" Use $\frac{1}{2}$, \(x^2\) and $5."


def test_each_sort_has_its_turn_and_all_are_counted():
    names = [
        (Sort("maths", "math", "d", "s", v), f"{v}{i}") for v, n in (("a", 500), ("b", 3), ("c", 1)) for i in range(n)
    ]
    random.Random(1).shuffle(names)
    one, other = Strata(), Strata()
    for sort, name in names:
        one.take(sort, name, name)
    for sort, name in sorted(names):
        other.take(sort, name, name)
    assert one.chosen(72) == other.chosen(72), "whatever the order in which they were read"
    assert {sort.verdict: n for sort, n in one.counts.items()} == {"a": 500, "b": 3, "c": 1}
    assert Counter(sort.verdict for sort, _ in one.chosen(72)) == {"a": OF_A_SORT, "b": 3, "c": 1}
    assert [sort.verdict for sort, _ in one.chosen(4)] == ["a", "b", "c", "a"]


def test_a_sort_says_how_hard_it_is_and_for_whom():
    e = runs.episode("a", "maths", "Q?")
    judged = runs.verdict(e, "accepted")
    found = [sort_of("maths", "math", judged, runs.probe(e, n)) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)]
    assert [DIFFICULTIES.index(sort.difficulty) for sort in found] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [sort.solved for sort in found[:2]] == ["solved by nobody above chance", "solved above chance"]
    assert sort_of("maths", "math", None, None) == ("maths", "math", "not asked", "not asked", "not judged")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = runs.upto(tmp_path_factory.mktemp("problems") / "run", "synthesize", FORMULA, mgpo_steps=1)
    yield run
    run.close()


def test_filters_mark_what_they_show_and_the_rest_is_linked(run):
    facts = gather(run)
    html = browser.render(facts)
    page = Page(html)
    marks = [value.split() for tag, name, value in page.attributes if (tag, name) == ("details", "class")]
    assert len(marks) == len(facts.browsed.entries) <= 72
    assert f"{len(marks)} of the 100 problems that were submitted in synthesize" in page.text  # 10 of 12, ten steps
    radios = {value for tag, name, value in page.attributes if (tag, name) == ("input", "id")}
    worn = {mark for of in marks for mark in of if mark != "p"}
    assert radios <= worn and {"f0v0", "f0v1", "f0v2", "f4v0", "f4v1", "f4v2"} <= radios
    shown = Counter(sort.category for sort, _ in facts.browsed.entries)
    for j, name in enumerate(sorted(shown, key=lambda name: (-shown[name], name))):
        assert sum(f"f0v{j}" in of for of in marks) == shown[name] > 0
    for mark in radios:
        assert f".browser:has(#{mark}:checked) .p:not(.{mark}){{display:none}}" in browser.CSS
    assert 'href="dataset/problems.jsonl"' in html and "dataset/unsolved" not in html, "of what is there"
    assert report.write(run).read_bytes() == report.write(run).read_bytes()


def test_problems_that_are_too_large_together_are_left_to_the_files(run, monkeypatch):
    facts = gather(run)
    monkeypatch.setattr(browser, "_BYTES", 30_000)
    html = browser.render(facts)
    shown = html.count("<details")
    assert 0 < shown < len(facts.browsed.entries) and len(html) < 35_000 and f">{shown} of the 100" in html


def test_many_categories_share_the_last_button(run):
    facts = gather(run)
    facts.browsed.entries[:] = [
        (sort._replace(category=f"c{i % 20:02}"), sample) for i, (sort, sample) in enumerate(facts.browsed.entries)
    ]
    page = Page(browser.render(facts))
    marks = [v.split() for tag, name, v in page.attributes if (tag, name) == ("details", "class")]
    first = Counter(mark for of in marks for mark in of if mark.startswith("f0v"))
    assert len(first) == 12 and "others" in page.text and first["f0v11"] == max(first.values())


def test_formulas_of_problems_are_typeset_and_money_is_not(run):
    asked = re.findall(r'<div class="problem">(.*?)</div>', browser.render(gather(run)))
    assert len(asked) > 40
    assert all("<mfrac>" in q and "<msup>" in q and q.endswith(" and $5.") and r"\frac" not in q for q in asked)


def episode(*turns, answer="42"):
    e = runs.episode("e", "maths", "How many?", answer=answer)
    return Sample("why", "synthesize", e.model_copy(update={"turns": turns}), None, None)


def turn(text, action="exec", tool=None):
    return Turn(stage="check", action=action, start=0, end=1, text=text, tool=tool)


def test_a_call_is_shown_as_what_it_asks_for_and_not_as_json():
    code = 'x = "a\\tb"\nif x < 3:\n    print("<b>")'
    exec_ = turn(
        f"## Check\nLet $x^2$ be.\n{call('exec', {'code': code})}",
        tool=ToolResult(tool="exec", status="ok", content="7"),
    )
    edit = turn(call("edit", {"drop": ["sum_up"], "add": ["gcd"]}), "edit")
    submit = turn(
        call("submit", {"question": r"Is $\sqrt{4}$ two?", "answer": r"\frac{4}{2}", "answer_kind": "math"}), "submit"
    )
    html = trajectories.render(episode(exec_, edit, submit), opened=True)
    page = Page(html)
    assert "tool_call" not in html and '"arguments"' not in html and "\\n" not in html
    assert "x = &quot;a\\tb&quot;\nif x &lt; 3:\n    print(&quot;&lt;b&gt;&quot;)</pre>" in html
    assert "drop: sum_up" in page.text and "add: gcd" in page.text and "answer_kind: math" in page.text
    assert html.count("<msqrt>") == 1 and html.count("<mfrac>") == 1 and "<msup>" in html
    assert "exec → ok 7" in page.text


@pytest.mark.parametrize("broken", ['<tool_call>\n{"name": "exec", ', "<tool_call>nonsense</tool_call>", "plain words"])
def test_what_is_no_call_is_shown_as_written(broken):
    page = Page(trajectories.render(episode(turn(broken, "think")), opened=True))
    assert " ".join(broken.split()) in page.text


HOSTILE_TEXT = HOSTILE + r" $\text{</math><script>alert(1)</script>}$ \(\href{javascript:alert(1)}{x}\) </style>"


def test_hostile_text_of_every_field_stays_text(tmp_path):
    bad = HOSTILE_TEXT.replace("\x00", "").replace("\x1b", "")
    skill = runs.skill("maths", 0).model_copy(update={"id": bad, "intent": bad})
    turns = (
        turn(bad, "think"),
        turn(call("exec", {"code": bad}), tool=ToolResult(tool="exec", status="error", content=bad)),
        turn(call("submit", {"question": bad, "answer": bad}), "submit"),
        turn(f"<tool_call>{bad}", "think"),
    )
    e = Episode(
        id=bad, attempt=1, task=Task(id=bad, group_id=bad, category=bad, skills=(skill,), seed=1), turns=turns,
        active=(bad + "2",), submitted=Problem.make(bad, bad), outcome=Outcome(kind="model_error", reason=bad),
        policy_versions=(1,), prompt_tokens=1, sampled_tokens=1, wall_s=1.0,
    )  # fmt: skip
    judged = runs.verdict(e, "rejected", bad)
    vote = judged.votes[0].model_copy(
        update={"verifier": bad, "answer": bad, "rationale": bad, "flags": ("leaks_answer",)}
    )
    judged = judged.model_copy(update={"votes": (vote,), "audit": bad})
    probe = runs.probe(e, 3).model_copy(update={"prober": bad})
    run = runs.upto(tmp_path / "run", "acquire")
    facts = gather(run)
    run.close()
    sort = sort_of(bad, "math", judged, probe)
    facts.browsed = Browsed("synthesize", Counter([sort, sort._replace(category="b")]), [
        (sort, Sample(bad, "synthesize", e, judged, probe)),
        (sort._replace(category="b"), Sample("", "synthesize", e, judged, probe)),
    ])  # fmt: skip
    page = Page(browser.render(facts))
    assert not {"script", "img", "style", "iframe", "svg"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "style")]
    assert {value for _, name, value in page.attributes if name == "href"} == {"steps/synthesize/"}
    assert page.text.count("<script>alert(1)</script>") > 20, "shown as it is"


def test_models_on_the_benchmark_are_told_with_what_was_cut_off(tmp_path):
    run = runs.upto(tmp_path / "run", "nothing")
    of = {"mean": 0.5, "interval": [0.4, 0.6], "measures": {
        "mean@4": {"value": 0.5}, "best@4": {"value": 0.75}, "maj@4": {"value": 0.25}, "samples": 40, "truncated": 7,
        "no_answer": 3, "unknown": 1}}  # fmt: skip
    pair = {"verdict": "<b>B</b> is better", "better": 5, "worse": 2, "interval": [0.1, 0.2]}
    run.finish(
        "evaluate", {"models": {"A": of, "<b>B</b>": of | {"measures": {}}}, "pairs": {"A ~ <b>B</b>": pair}}, 1.0
    )
    page = Page(report.write(run).read_text())
    run.close()
    assert "A 50.0 % 40.0 to 60.0 % 75.0 % 25.0 % 40 7 3 1" in page.text
    assert "<b>B</b> 50.0 % 40.0 to 60.0 % – – – – – –" in page.text
    assert "Measured: A 50.0 %, <b>B</b> 50.0 %; 1 of 1 pairs differ." in page.text
    assert "A ~ <b>B</b>: <b>B</b> is better; 5 problems better, 2 worse" in page.text
