"""Tasks depend on the config and the curriculum's state alone, and never touch the benchmark's combinations."""

import io
from types import SimpleNamespace

import pytest

from pipeline.config.loading import load
from pipeline.domains.mini.combinations import heldout_pairs, is_heldout
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.flow.tasks import make_curriculum, make_heldout, make_tasks
from pipeline.records import Skill
from pipeline.skills.extraction import SkillLibrary
from pipeline.watch.progress import Progress


def context(root, *overrides):
    run = SimpleNamespace(path=lambda *parts: root.joinpath(*parts))
    return Context(load(None, list(overrides)), run, None, None, Progress(io.StringIO()))


def library(root, skills):
    SkillLibrary(
        Skill(
            id=s.id, category=s.category, intent=f"intent of {s.id}", method="structure\n\naction", difficulty="d",
            tool_hint="t", score=0.9, source="s",
        )
        for s in skills
    ).save(root / "skills")  # fmt: skip
    return root


@pytest.fixture
def root(tmp_path):
    return library(tmp_path, SKILLS)


def tasks(root, stage="mgpo", step=1, groups=5, size=4, overrides=(), learned=()):
    c = context(root, *overrides)
    curriculum = make_curriculum(c)
    for update in learned:
        curriculum.update(*update)
    return make_tasks(c, curriculum, stage, step, groups, size)


def test_the_same_step_is_the_same_work_on_every_run(root):
    assert tasks(root) == tasks(root)
    for other in (dict(stage="synthesize"), dict(step=2), dict(overrides=["seed=1"])):  # noqa: C408
        changed = tasks(root, **other)
        assert [t.seed for t in changed] != [t.seed for t in tasks(root)]
        assert [t.skills for t in changed] != [t.skills for t in tasks(root)]


def test_ids_are_distinct_and_a_group_differs_in_id_and_seed_only(root):
    many = [t for step in (1, 2) for t in tasks(root, step=step)]
    assert len({t.id for t in many}) == len({t.seed for t in many}) == len(many) == 40
    groups = {t.group_id: [m for m in many if m.group_id == t.group_id] for t in many}
    assert [len(g) for g in groups.values()] == [4] * 10
    for members in groups.values():
        assert len({t.model_copy(update={"id": "", "seed": 0}) for t in members}) == 1


def test_what_was_learned_changes_what_is_asked(root):
    categories = sorted({s.category for s in SKILLS})
    strong = [(categories[0], {}, 100, 100)] * 60
    few = sum(t.category == categories[0] for t in tasks(root, groups=200, size=1, learned=strong))
    assert few < sum(t.category == categories[0] for t in tasks(root, groups=200, size=1)) / 2


def test_held_out_combinations_are_never_offered(root):
    assert heldout_pairs()
    offered = {frozenset(s.id for s in t.skills) for t in tasks(root, groups=2000, size=1)}
    assert len(offered) > 100
    assert not any(is_heldout(ids) for ids in offered)
    assert not any(pair <= ids for pair in heldout_pairs() for ids in offered)


def test_what_is_measured_with_is_held_out(root):
    c = context(root)
    measured = make_tasks(c, make_heldout(c), "measure", 1, groups=200, size=1)
    assert all(is_heldout([s.id for s in t.skills]) for t in measured)
    assert len({frozenset(s.id for s in t.skills) for t in measured}) > 20


def test_skills_can_be_kept_from_the_agent(root):
    shown, hidden = tasks(root), tasks(root, overrides=["episode.show_skills=false"])
    assert [t.category for t in hidden] == [t.category for t in shown]
    assert {t.skills for t in hidden} == {()}


def test_a_category_too_small_to_be_offered_is_named(tmp_path):
    few = [s for s in SKILLS if s.category != "code"] + [s for s in SKILLS if s.category == "code"][:1]
    c = context(library(tmp_path, few))
    make_curriculum(c)
    assert c.progress._stream.getvalue() == (
        "curriculum · never offered, fewer skills than mgpo.curriculum.min_skills (2): code\n"
    )
    c = context(library(tmp_path / "all", SKILLS))
    make_curriculum(c)
    assert c.progress._stream.getvalue() == ""
