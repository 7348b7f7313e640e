"""The grid of the ablation: arms that differ in one part, comparisons whose pairs differ in one thing."""

from itertools import pairwise

import pytest

from pipeline import config as configs
from pipeline.commands.ablation import rounds
from pipeline.commands.ablation.grid import (
    ARMS,
    COMPARISONS,
    DECIDING,
    FULL,
    QUICK,
    QUICK_COMPARISONS,
    STATED,
    SWEEP,
    TUNING_SEED,
    Budget,
    arms_of,
    counts,
    wanted,
)
from pipeline.commands.ablation.measure import METRICS
from pipeline.config import loading


def leaves(tree, where=""):
    if not isinstance(tree, dict):
        return {where: tree}
    return {k: v for name, sub in tree.items() for k, v in leaves(sub, f"{where}.{name}".lstrip(".")).items()}


def settings_of(arm):
    return leaves(loading.load(None, ARMS[arm].overrides).model_dump(mode="json"))


def changed(arm, other=FULL):
    one, two = settings_of(other), settings_of(arm)
    return {k for k in one.keys() | two.keys() if one.get(k) != two.get(k)}


OBJECTIVE = {"mgpo.mini_batches"}
ALLOWED = {
    "grpo": OBJECTIVE, "mgpo-0": OBJECTIVE, "mgpo-0.5": OBJECTIVE, "pass-at-k": {"reward.rho"},
    "own-answer": {"committee.verifiers", "committee.quorum", "committee.required"},
}  # fmt: skip
"""What these may change beside the objective and the episode."""


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_changes_its_part_and_nothing_else(arm):
    """What all arms must share (budgets, prober, models, learning rate) is out of its reach."""
    allowed = ("mgpo.objective.", "episode.limits.stages", "episode.limits.tools", "episode.show_skills")
    sources = ("synthesize.rewrite", "synthesize.filter")
    assert all(field.startswith((*allowed, *sources)) for field in changed(arm) - ALLOWED.get(arm, set()))
    unchanged = (FULL, "sft", "base-workflow", "none", "generator", "committee")
    assert (changed(arm) == set()) == (arm in unchanged)


PAIRS = [(name, *pair) for name in (*DECIDING, "rounds", "start", "omega") for pair in COMPARISONS[name].orderings]


@pytest.mark.parametrize(("comparison", "lower", "higher"), PAIRS)
def test_the_arms_of_a_pair_differ_in_one_thing(comparison, lower, higher):
    """In the settings that the comparison names, or in how they begin and where their data comes from, never both."""
    one, other = ARMS[lower], ARMS[higher]
    differ = changed(lower, higher)
    allowed = {
        "objective": "mgpo.objective.", "rho": "reward.rho", "pruning": "episode.limits.tools",
        "omega": "mgpo.objective.",
        "rounds": "committee.", "start": "-", "sources": "-",
    }[comparison]  # fmt: skip
    if comparison == "sources":  # a solver is trained by the same settings, whatever its problems are
        assert not any(field.startswith(("solve.", "evaluate.", "prober.")) for field in differ)
        return
    assert all(field.startswith(allowed) for field in differ)
    assert (one.sweep, one.gate, one.data) == (other.sweep, other.gate, other.data)
    assert (differ == set()) == (one.trained != other.trained)
    if comparison == "objective" and "grpo" not in (lower, higher):
        assert differ == {"mgpo.objective.omega"}


def test_grpo_is_pulled_to_its_reference_by_as_much_as_mgpo():
    grpo, mgpo = (loading.load(None, ARMS[a].overrides).mgpo for a in ("grpo", "mgpo-0"))
    assert grpo.objective.kl == mgpo.objective.beta and grpo.objective.importance_cap == mgpo.objective.importance_cap
    assert grpo.mini_batches == mgpo.mini_batches == 4  # else neither clip nor gate acts
    assert ARMS["grpo"].sweep and ARMS["mgpo-0"].sweep and ARMS["mgpo-0.5"].sweep
    assert len(SWEEP) > 2 and counts(None, None, None, None, False).seeds <= TUNING_SEED


def test_the_sources_differ_in_who_writes_and_in_what_is_kept():
    """One difference each: the filter between the two one-shot arms, the algorithm between the two rewriting ones."""
    one, other = ARMS["one-shot-unfiltered"], ARMS["one-shot-filtered"]
    assert set(one.overrides) - set(other.overrides) == {"synthesize.filter=none"}
    assert (one.trained, one.start) == (other.trained, other.start) == ("sft", "one-shot")
    kinds = {arm: loading.load(None, ARMS[arm].overrides).synthesize.rewrite.kind for arm in ("metamath", "wizardmath")}
    assert kinds == {"metamath": "metamath", "wizardmath": "wizardmath"}
    assert {arm for arm, own in ARMS.items() if own.start is None} == {"none", "generator", *kinds}
    assert {arm: own.data for arm, own in ARMS.items() if own.data != "written"} == {
        "none": "none", "generator": "generator",
    }  # fmt: skip
    assert all(own.start is None or own.start == FULL or ARMS[own.start].overrides for own in ARMS.values())
    assert list(ARMS).index(FULL) < list(ARMS).index("generator")  # which has as many problems as it wrote


def test_the_arms_of_a_comparison_are_there():
    assert {a for c in COMPARISONS.values() for a in c.arms} == set(ARMS)
    for c in COMPARISONS.values():
        assert not c.paper or len(c.arms) == len(c.paper)
        assert all(a < b for a, b in pairwise(c.paper))
        assert {arm for pair in c.orderings for arm in pair} <= set(c.arms)
        assert set(c.tested) <= set(METRICS) | set(rounds.METRICS)
    assert COMPARISONS["objective"].orderings == (("grpo", "mgpo-0"), ("mgpo-0", "mgpo-0.5"), ("grpo", "mgpo-0.5"))
    assert COMPARISONS["omega"].orderings == (("omega-0", FULL), ("omega-0.25", FULL), ("omega-1", FULL))
    assert arms_of(("rho", "omega")) == (FULL, "pass-at-k", "omega-0", "omega-0.25", "omega-1")
    assert {*QUICK_COMPARISONS, *DECIDING} <= set(COMPARISONS)
    quick = loading.load(None, [*STATED, *QUICK])
    assert quick.mgpo.steps < configs.Config(domain="mini").mgpo.steps


def test_omega_and_objective_are_what_the_arms_say():
    arms = arms_of(("objective", "omega"))
    objective = {arm: loading.load(None, ARMS[arm].overrides).mgpo.objective for arm in arms}
    assert {a: o.name for a, o in objective.items()} == {
        "full": "mgpo", "grpo": "grpo", "mgpo-0": "mgpo", "mgpo-0.5": "mgpo", "omega-0": "mgpo_no_stage",
        "omega-0.25": "mgpo", "omega-1": "mgpo",
    }  # fmt: skip
    assert [objective[a].omega for a in ("mgpo-0", "omega-0.25", "mgpo-0.5", "full", "omega-1")] == [
        0,
        0.25,
        0.5,
        0.5,
        1,
    ]


def test_without_a_word_solvers_are_trained_where_they_decide():
    own = counts(None, None, None, None, False)
    assert (own.seeds, own.episodes, own.downstream) == (8, 1000, Budget(episodes=1000))
    names = ("sources", "rho")
    assert own.solver("sft", names) and own.solver(FULL, names) and not own.solver("pass-at-k", names)
    assert not own.solver(FULL, ("rho",)) and not own.solver("committee", ("rounds",))
    every = counts(None, None, 50, None, False)
    assert every.solver("pass-at-k", names)


def test_comparisons_are_named_each_once():
    own = counts(None, None, None, None, False)
    assert wanted("rho, sources,rho", False, own) == ("rho", "sources")
