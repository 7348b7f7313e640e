"""The table of the ablation, against figures worked out by hand; what is told before it is run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.ablation import plan, rounds, table
from pipeline.commands.ablation.grid import COMPARISONS
from pipeline.commands.ablation.inference import ALPHA, Paired, smallest_difference
from pipeline.commands.ablation.measure import METRICS, diversity


def rows(metric="solved_yield_per_1k", **arms):
    """Seeds' figures of each arm by one metric; the others are not known. `a__b` is the arm a-b."""
    return [
        {"seed": s, "arm": arm.replace("__", "-"), "source": {}, "minutes": 1.0,
         "figures": dict.fromkeys(METRICS) | {metric: v}}
        for arm, values in arms.items() for s, v in enumerate(values)
    ]  # fmt: skip


def made(found, comparisons, budget=None):
    return table.make(found, comparisons, budget or {}, {}, {})


def verdict_of(metric="verified_rate", **arms):
    (found,) = [o for o in made(rows(metric, **arms), ("pruning",))["orderings"] if o["at"] == "equal steps"]
    return found


def test_the_interval_is_students():
    """Three seeds: t(0.975, 2) = 4.303; the standard deviation of 1, 2, 3 is 1."""
    found = table.summary([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    half = 4.302653 / math.sqrt(3)
    assert found["interval"] == pytest.approx([2 - half, 2 + half], rel=1e-6)
    assert table.summary([5.0])["interval"] is None
    assert table.summary([]) is None


def test_differences_are_paired_by_seed():
    """The seeds differ by far more than the arms do, and yet every seed says the same."""
    found = verdict_of(no__pruning=[0.1, 0.5, 0.8], full=[0.25, 0.66, 0.94])
    assert found["difference"]["mean"] == pytest.approx(0.15)
    assert found["verdict"] == "holds"
    assert verdict_of(full=[0.1, 0.5, 0.8], no__pruning=[0.25, 0.66, 0.94])["verdict"] == "refuted"
    assert verdict_of(no__pruning=[0.1, 0.5, 0.9], full=[0.2, 0.4, 0.9])["verdict"] == "open"
    assert verdict_of(no__pruning=[0.1, 0.5, 0.9], full=[0.101, 0.499, 0.9])["verdict"] == "no difference"
    assert verdict_of(no__pruning=[0.1], full=[0.2, 0.4])["verdict"] == "one seed"


def test_a_pair_is_corrected_for_all_that_its_comparison_is_decided_by():
    """Objective: three pairs at two budgets, so the smallest p counts six times, measured or not."""
    found = rows(grpo=[1.0, 2.0, 3.0, 4.0], mgpo__0=[1.2, 2.3, 3.1, 4.2])
    (pair,) = [o for o in made(found, ("objective",))["orderings"] if o["at"] == "equal steps"]
    assert pair["p"] == pytest.approx(6 * Paired(tuple(pair["difference"]["values"])).p)
    assert pair["bound"] == pytest.approx(0.1 * 2.5)  # a tenth of the lower arm's mean


def test_equal_tokens_are_a_comparison_of_their_own():
    found = rows("verified_rate", no__pruning=[0.1, 0.2, 0.3], full=[0.3, 0.4, 0.5])
    for row in found:
        row["equal_tokens"] = {"pruning": {"verified_rate": 0.2}, "rho": {"verified_rate": 0.9}}
    steps, tokens = made(found, ("pruning",))["orderings"][:2]
    assert (steps["at"], tokens["at"]) == ("equal steps", "equal tokens")
    assert tokens["difference"]["values"] == [0, 0, 0] and tokens["verdict"] == "open"  # three seeds are few
    del found[0]["equal_tokens"]  # an arm that had sampled too much to be measured so
    assert len(made(found, ("pruning",))["orderings"][1]["difference"]["values"]) == 2


def test_what_is_not_measured_is_null_and_said_to_be():
    found = made(rows("verified_rate", no__pruning=[1.0], full=[1.0]), ("pruning", "sources"), {"mgpo_steps": 3})
    assert found["arms"]["no-pruning"]["solver"] is None
    assert {o["verdict"] for o in found["orderings"] if o["at"] == "equal tokens"} == {"not measured"}
    text = table.markdown(found)
    (row,) = [line for line in text.splitlines() if line.startswith("| no-pruning |")]
    assert row == "| no-pruning | 1 | 100.0 | – | – | – | – | – |"
    assert found["sources"] == {} and "data source" not in text


def test_solvers_stand_by_what_they_learned_from_the_best_first():
    def of(arm, seed, solver, **source):
        figures = dict.fromkeys(METRICS) | {"solver": solver}
        return {"seed": seed, "arm": arm, "figures": figures, "source": source, "minutes": 1.0}

    told = {"episodes": 40, "tokens": 900, "problems": 30, "validity": 0.75}
    known = [
        of("none", 0, 0.2), of("none", 1, 0.3), of("metamath", 0, 0.4, **told), of("metamath", 1, 0.5, **told),
        of("one-shot-filtered", 0, None, **(told | {"problems": 0, "validity": 0.0})), of("sft", 0, None),
    ]  # fmt: skip
    found = made(known, ("baselines",))
    assert set(found["sources"]) == {"none", "metamath", "one-shot-filtered"}
    text = table.markdown(found).splitlines()
    first = text.index("| data source | episodes | tokens | problems | validity | solver |")
    assert text[first + 2] == "| metamath | 40 | 900 | 30 | 75.0 | 45.0 [-18.5, 108.5] |"
    assert text[first + 3] == "| none | – | – | – | – | 25.0 [-38.5, 88.5] |"
    assert text[first + 4] == "| one-shot-filtered | 40 | 900 | 0 | 0.0 | – |"
    page = table.page(found, {})
    assert page.index("<td>metamath</td><td class=n>40</td>") < page.index("<td>none</td><td class=n>–</td>")


def gate_rows(**gates):
    """Label accuracy by round, of each seed of a gate."""
    found = []
    for gate, seeds in gates.items():
        for seed, accuracies in enumerate(seeds):
            of = [dict.fromkeys(rounds.ROUND, 0.5) | {"label_accuracy": a} for a in accuracies]
            figures = dict.fromkeys(METRICS) | rounds.summary(of)
            found.append({"seed": seed, "arm": gate.replace("__", "-"), "figures": figures, "source": {},
                          "rounds": of, "minutes": 1.0})  # fmt: skip
    return found


def test_gates_are_told_apart_by_their_labels_and_how_these_change():
    gates = gate_rows(
        own__answer=[(0.79, 0.69, 0.63), (0.80, 0.70, 0.62), (0.78, 0.70, 0.64)], committee=[(1.0, 1.0, 1.0)] * 3
    )
    found = made(gates, ("rounds",))
    verdicts = {o["metric"]: o["verdict"] for o in found["orderings"]}
    assert (verdicts["label_accuracy"], verdicts["label_change"], verdicts["solver"]) == (
        "holds", "holds", "open",
    )  # fmt: skip
    assert found["rounds"]["own-answer"][2]["label_accuracy"]["mean"] == pytest.approx(0.63)
    text = table.markdown(found)
    *_, last = (line for line in text.splitlines() if line.startswith("| own-answer | 3 | "))
    assert " | 63.0 [60.5, 65.5] | " in last
    assert "Rounds" in table.page(found, {})


def test_the_page_is_whole_with_and_without_intervals():
    one, two = {"pass__at__k": [1.0], "full": [2.0]}, {"pass__at__k": [1.0, 2.0], "full": [2.0, 4.0]}
    for arms in (one, two):
        curves = {"full": [[{"step": 1, "hard_yield_per_1k": 0.5}, {"step": 2, "hard_yield_per_1k": 0.7}]]}
        page = table.page(made(rows(**arms), ("rho",)), curves)
        assert page.count("<figure>") == page.count("</figure>") == 2
        assert "nan" not in page.lower() and page.endswith("</html>\n")


# ---------------------------------------------------------------- what is told beforehand


def test_the_power_is_told_from_what_was_measured_else_from_an_assumption():
    (assumed, _) = plan.lines([], ("rho",), 8)
    told = smallest_difference(plan.ASSUMED["solved_yield_per_1k"], 8, ALPHA / 4)
    assert f"8 seeds tell a difference of {told:.3f} with 80%" in assumed and assumed.endswith("0.040, assumed")
    known = rows(pass__at__k=[1.0, 1.0, 1.0], full=[1.1, 1.3, 1.5])  # differences with a deviation of 0.2
    (measured, _) = plan.lines(known, ("rho",), 8)
    assert f"{smallest_difference(0.2, 8, ALPHA / 4):.3f} with 80%" in measured
    assert measured.endswith("0.200, measured on 3 seeds")
    assert next(plan.lines(known[:2], ("rho",), 8)).endswith("assumed")
    assert next(plan.lines([], ("rho",), 1)).endswith("one seed decides nothing")


def test_every_test_has_a_bound_and_an_assumed_spread():
    for name in COMPARISONS:
        for test in plan.tests(name):
            (row,) = rows(test.metric, **{test.lower.replace("-", "__"): [0.5]})
            assert test.bound([row | {"equal_tokens": {name: row["figures"]}}]) > 0
            assert plan.ASSUMED[test.metric] > 0


# ---------------------------------------------------------------- diversity


def test_diversity_puts_numbers_and_names_aside():
    assert diversity(["Mia has 3 apples. How many?", "Tom has 17 apples. How many?"]) == 0
    assert diversity(["Mia has 3 apples.", "A list holds 2 and 4."]) == 1
    assert diversity(["one"]) is None


@given(st.lists(st.text(alphabet="ab cd1", min_size=3), min_size=2, max_size=6))
def test_diversity_is_a_share(questions):
    found = diversity(questions)
    assert 0 <= found <= 1
    assert diversity(questions[::-1]) == pytest.approx(found)
