"""The curriculum as a state machine: probabilities, reach, held-out sets, and going on where it stopped."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config as configs
from pipeline.records import Failure, Skill
from pipeline.skills.curriculum import Curriculum


def skill(category, name):
    return Skill(
        id=name, category=category, intent="", method="", difficulty="", tool_hint="", score=1.0, source="test"
    )


def library(sizes):
    return [skill(c, f"{c}_{i}") for c, n in sizes.items() for i in range(n)]


SIZES = {"maths": 6, "code": 4, "science": 3}
SKILLS = library(SIZES)
CONFIG = configs.CurriculumConfig(min_skills=2, max_skills=4)
CATEGORIES = sorted(SIZES)

groups = st.lists(
    st.tuples(st.sampled_from(CATEGORIES), st.integers(0, 8), st.integers(0, 8)).map(
        lambda t: (t[0], min(t[1:]), max(t[1:]))
    ),
    max_size=30,
)


def feed(curriculum, history):
    for category, successes, total in history:
        ids = [s.id for s in SKILLS if s.category == category][:2]
        curriculum.update(category, dict.fromkeys(ids, (successes, total - successes)), successes, total)


@given(groups)
def test_probabilities_sum_to_one_and_all_are_reachable(history):
    curriculum = Curriculum(SKILLS, CONFIG)
    feed(curriculum, history)
    p = curriculum.probabilities()
    assert set(p) == set(CATEGORIES)
    assert sum(p.values()) == pytest.approx(1)
    # m lies in [0, 1], so no category can fall below epsilon / (1 + epsilon) of another.
    assert min(p.values()) >= max(p.values()) * CONFIG.epsilon / (1 + CONFIG.epsilon) * (1 - 1e-9)


@given(groups)
def test_the_weaker_category_gets_more(history):
    curriculum = Curriculum(SKILLS, CONFIG)
    feed(curriculum, history)
    p, m = curriculum.probabilities(), curriculum.proficiency
    for a in CATEGORIES:
        for b in CATEGORIES:
            if m[a] < m[b] - 1e-9:
                assert p[a] > p[b]


def test_the_average_and_the_probabilities_by_hand():
    curriculum = Curriculum(library({"a": 2, "b": 2}), configs.CurriculumConfig(alpha=0.5, epsilon=0.25))
    curriculum.update("a", {"a_0": (4, 4)}, 4, 8)  # m_a = 0.5 * 0 + 0.5 * 0.5 = 0.25
    curriculum.update("a", {"a_0": (8, 0)}, 8, 8)  # m_a = 0.5 * 0.25 + 0.5 * 1 = 0.625
    assert curriculum.proficiency == {"a": 0.625, "b": 0.0}
    weights = {"a": 1 / 0.875, "b": 1 / 0.25}
    assert curriculum.probabilities() == pytest.approx({c: w / sum(weights.values()) for c, w in weights.items()})


@given(groups, st.integers(0, 2**32))
def test_a_task_is_distinct_skills_of_one_category_within_the_sizes(history, seed):
    curriculum = Curriculum(SKILLS, CONFIG)
    feed(curriculum, history)
    category, chosen = curriculum.sample(random.Random(seed))
    assert {s.category for s in chosen} == {category}
    assert len({s.id for s in chosen}) == len(chosen)
    assert CONFIG.min_skills <= len(chosen) <= min(CONFIG.max_skills, SIZES[category])


@settings(max_examples=25)
@given(groups, groups, st.integers(0, 2**32))
def test_a_resumed_curriculum_goes_on_as_if_never_stopped(before, after, seed):
    whole, first = Curriculum(SKILLS, CONFIG), Curriculum(SKILLS, CONFIG)
    feed(whole, before)
    feed(first, before)
    saved = json.loads(json.dumps(first.state()))
    second = Curriculum(SKILLS, CONFIG)
    second.restore(saved)
    feed(whole, after)
    feed(second, after)
    assert second.state() == whole.state()
    assert [second.sample(random.Random(f"{seed}/{i}")) for i in range(5)] == [
        whole.sample(random.Random(f"{seed}/{i}")) for i in range(5)
    ]


def test_every_category_size_and_skill_turns_up():
    curriculum = Curriculum(SKILLS, CONFIG)
    rng = random.Random(1)
    tasks = [curriculum.sample(rng)[1] for _ in range(600)]
    assert {s.id for t in tasks for s in t} == {s.id for s in SKILLS}
    assert {(t[0].category, len(t)) for t in tasks} == {
        (c, n) for c, size in SIZES.items() for n in range(2, min(4, size) + 1)
    }


def test_draws_follow_the_probabilities():
    curriculum = Curriculum(SKILLS, CONFIG)
    for _ in range(40):
        curriculum.update("maths", {"maths_0": (8, 0)}, 8, 8)
        curriculum.update("code", {"code_0": (2, 6)}, 2, 8)
    rng = random.Random(2)
    drawn = Counter(curriculum.sample(rng)[0] for _ in range(4000))
    for category, p in curriculum.probabilities().items():
        assert drawn[category] / 4000 == pytest.approx(p, abs=0.03)


def test_the_bandit_prefers_skills_of_mixed_outcome_and_forgets_none():
    skills = library({"maths": 9})
    curriculum = Curriculum(skills, configs.CurriculumConfig(min_skills=2, max_skills=2))
    for _ in range(60):
        for i in range(9):
            curriculum.update("maths", {f"maths_{i}": ((0, 4, 8)[i % 3], 8 - (0, 4, 8)[i % 3])}, (0, 4, 8)[i % 3], 8)
    rng = random.Random(3)
    drawn = Counter(s.id for _ in range(2000) for s in curriculum.sample(rng)[1])
    hopeless, mixed, mastered = (sum(drawn[f"maths_{i}"] for i in range(k, 9, 3)) for k in range(3))
    assert mixed > 2 * hopeless and mixed > 2 * mastered
    assert len(drawn) == 9 and min(drawn.values()) > 50


def test_the_bandit_follows_a_policy_that_changes():
    """A skill mastered long ago and failing half of the time now is worth training on again."""
    skills = library({"maths": 3})
    curriculum = Curriculum(skills, configs.CurriculumConfig(min_skills=2, max_skills=2))
    for _ in range(5000):
        for i in range(3):
            curriculum.update("maths", {f"maths_{i}": (8, 0)}, 8, 8)
    for _ in range(20):
        curriculum.update("maths", {"maths_0": (4, 4)}, 4, 8)
    rng = random.Random(4)
    drawn = Counter(s.id for _ in range(1000) for s in curriculum.sample(rng)[1])
    assert drawn["maths_0"] > 1.3 * max(drawn["maths_1"], drawn["maths_2"])


@given(st.integers(0, 2**32))
def test_held_out_sets_are_never_offered(seed):
    def held_out(ids):
        return {"maths_0", "maths_1"} <= ids or len(ids) == 3

    curriculum = Curriculum(SKILLS, CONFIG, held_out)
    rng = random.Random(seed)
    for _ in range(20):
        assert not held_out(frozenset(s.id for s in curriculum.sample(rng)[1]))


def test_a_category_that_is_wholly_held_out_is_named():
    def of_maths(ids):
        return any(id.startswith("maths") for id in ids)

    curriculum = Curriculum(library({"maths": 3, "code": 3}), CONFIG, of_maths)
    assert curriculum.held_out == ("maths",) and set(curriculum.probabilities()) == {"code"}
    assert Curriculum(SKILLS, CONFIG).held_out == ()
    with pytest.raises(Failure, match="of maths every set of skills is held out"):
        Curriculum(library({"maths": 3}), CONFIG, of_maths)


def test_a_category_of_one_set_that_is_not_held_out_is_offered():
    only = frozenset({"maths_0", "maths_2"})
    curriculum = Curriculum(library({"maths": 3}), CONFIG, lambda ids: ids != only)
    assert curriculum.held_out == () and frozenset(s.id for s in curriculum.sample(random.Random(0))[1]) == only


def test_small_categories_are_set_aside_and_told():
    curriculum = Curriculum(library({"maths": 3, "code": 1}), CONFIG)
    assert curriculum.too_small == ("code",)
    assert set(curriculum.probabilities()) == {"maths"}
    with pytest.raises(Failure, match="min_skills"):
        Curriculum(library({"code": 1}), CONFIG)


def test_a_group_nobody_could_judge_changes_nothing():
    curriculum = Curriculum(SKILLS, CONFIG)
    before = curriculum.state()
    curriculum.update("maths", {"maths_0": (0, 0)}, 0, 0)
    assert curriculum.state() == before


def test_the_state_of_another_library_is_refused():
    saved = Curriculum(library({"maths": 4}), CONFIG).state()
    with pytest.raises(Failure, match="maths_3"):
        Curriculum(library({"maths": 3}), CONFIG).restore(saved)


def test_a_skill_has_its_own_outcome_beside_the_groups():
    curriculum = Curriculum(library({"maths": 3}), configs.CurriculumConfig(alpha=0.5))
    curriculum.update("maths", {"maths_0": (6, 2), "maths_1": (0, 2)}, 6, 8)
    state = curriculum.state()
    assert state["proficiency"] == {"maths": 0.375}
    assert state["skills"] == {"maths_0": [6.0, 2.0], "maths_1": [0.0, 2.0], "maths_2": [0.0, 0.0]}


# ---------------------------------------------------------------- combinations

TOGETHER = configs.CurriculumConfig(min_skills=2, max_skills=3, combinations=True)
CLASH = [{"maths_0", "maths_1"}, {"maths_2", "maths_3"}, {"maths_4", "maths_5"}, {"maths_0", "maths_5"}]


def clashing(ids):
    return any(pair <= set(ids) for pair in CLASH)


def learned(config, seed, prunes):
    """After 150 groups of a learner: skills that clash never make a problem; one that prunes makes it of the rest."""
    curriculum, rng = Curriculum(library({"maths": 6}), config), random.Random(seed)
    for _ in range(150):
        category, chosen = curriculum.sample(rng)
        ids = [s.id for s in chosen]
        rate = 0.7 if prunes or not clashing(ids) else 0.0
        kept = [id for id in ids if not clashing(ids) or not any(id in pair and pair <= set(ids) for pair in CLASH)]
        used = [kept if rng.random() < rate else [] for _ in range(8)]
        wins = sum(bool(u) or (prunes and clashing(ids)) for u in used)
        credit = {id: (float(sum(id in u for u in used)), float(8 - wins)) for id in ids}
        curriculum.update(category, credit, wins, 8, used)
    return curriculum


@pytest.mark.parametrize("prunes", [False, True])
def test_combinations_that_never_work_are_hardly_drawn_and_the_others_all_are(prunes):
    """Ten seeds together; the skills' bandit alone goes on to draw them."""
    share = {}
    for config in (TOGETHER, TOGETHER.model_copy(update={"combinations": False})):
        drawn = Counter()
        for seed in range(10):
            curriculum, rng = learned(config, seed, prunes), random.Random(f"draw {seed}")
            drawn.update(tuple(sorted(s.id for s in curriculum.sample(rng)[1])) for _ in range(100))
        share[config.combinations] = sum(n for ids, n in drawn.items() if clashing(ids)) / drawn.total()
        pairs = {ids for ids in drawn if len(ids) == 2 and not clashing(ids)}
        assert len(pairs) == 11
    assert share[True] < 0.02 < 0.2 < share[False]


def test_combinations_leave_the_sizes_of_tasks_as_they_are():
    shares = []
    for config in (TOGETHER, TOGETHER.model_copy(update={"combinations": False})):
        curriculum, rng = Curriculum(library({"maths": 6}), config), random.Random(0)
        shares.append(sum(len(curriculum.sample(rng)[1]) == 3 for _ in range(600)) / 600)
    assert abs(shares[0] - shares[1]) < 0.09  # three deviations


def test_what_was_learnt_of_combinations_survives_a_resume_and_costs_nothing_where_it_is_off():
    whole = learned(TOGETHER, 0, False)
    again = Curriculum(library({"maths": 6}), TOGETHER)
    again.restore(json.loads(json.dumps(whole.state())))
    draws = [[c.sample(random.Random(f"{n}")) for n in range(20)] for c in (whole, again)]
    assert draws[0] == draws[1] and again.state() == whole.state()
    assert set(Curriculum(SKILLS, CONFIG).state()) == {"proficiency", "skills"}
