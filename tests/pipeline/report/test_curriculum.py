"""The curriculum's section: what is offered how often, by the run's own state, and what never is."""

import re

import pytest

from pipeline.report.facts import gather
from pipeline.report.sections import cloning, curriculum
from tests.pipeline import runs


def rows(html):
    """The cells of each row of its tables."""
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    run = runs.upto(tmp_path_factory.mktemp("curriculum") / "run", "mgpo", hostile="<b>&", mgpo_steps=2)
    yield gather(run)
    run.close()


def test_the_weaker_a_category_the_oftener_it_is_offered(facts):
    cells = rows(curriculum(facts))
    at = cells.index(["category", "proficiency m_c", "offered next, p(c)"])
    offered = {c: float(p.rstrip(" %")) for c, _, p in cells[at + 1 : at + 4]}
    weights = {c: 1 / (m + 0.1) for c, m in {"code": 0.1, "maths": 0.4, "science": 0.9}.items()}
    expected = {c: 100 * w / sum(weights.values()) for c, w in weights.items()}
    assert offered == pytest.approx(expected, abs=0.1)


def test_skills_and_combinations_by_their_rate_the_best_and_the_worst(facts):
    html = curriculum(facts)
    cells = rows(html)
    at, pairs = cells.index(["skill", "won", "lost", "rate"]), cells.index(["combination", "won", "lost", "rate"])
    listed = [float(rate.rstrip(" %")) for *_, rate in cells[at + 1 : pairs]]
    assert len(listed) == 24 and listed == sorted(listed, reverse=True) and "24 of 30" in html
    assert cells[at + 1][1:] == ["29.0", "0.0", "96.8 %"] and cells[pairs - 1][1:] == ["0.0", "29.0", "3.2 %"]
    assert cells[pairs + 2][0] == "code_skill_0 code_skill_3"


def test_what_is_never_offered_is_named_and_text_of_the_run_is_escaped(facts):
    html = curriculum(facts) + cloning(facts)
    assert "Never offered: law&lt;b&gt;&amp;, 1 skills." in html and "<b>&" not in html


def test_styles_teachers_and_reasons_of_the_trajectories(facts):
    cells = rows(cloning(facts))
    assert ["at once", "24", "14", "12"] in cells and ["turn limit", "4"] in cells
    assert ["big&lt;b&gt;&amp;", "24", "14", "12"] in cells


def test_before_the_first_step_only_what_is_never_offered_is_told(tmp_path):
    run = runs.upto(tmp_path / "run", "acquire")
    assert rows(curriculum(gather(run))) == [] and "law" in curriculum(gather(run))
    run.close()
