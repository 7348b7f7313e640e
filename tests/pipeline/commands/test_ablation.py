"""The ablation: a grid whose arms differ in one part, tables against figures worked out by hand, and resuming."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config as configs
from pipeline.commands.ablation import measure, runs, table
from pipeline.commands.ablation.grid import (
    ARMS,
    COMPARISONS,
    FULL,
    QUICK,
    QUICK_COMPARISONS,
    Budget,
    arms_of,
    wanted,
)
from pipeline.commands.ablation.measure import METRICS, diversity
from pipeline.commands.keys import ABLATE_KEYS
from pipeline.config import loading
from pipeline.records import Failure
from tests.pipeline.test_cli import documented, propose, refused


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- the grid


def leaves(tree, where=""):
    if not isinstance(tree, dict):
        return {where: tree}
    return {k: v for name, sub in tree.items() for k, v in leaves(sub, f"{where}.{name}".lstrip(".")).items()}


def changed(arm):
    full, other = (leaves(loading.load(None, ARMS[a].overrides).model_dump(mode="json")) for a in (FULL, arm))
    return {k for k in full.keys() | other.keys() if full.get(k) != other.get(k)}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_changes_the_objective_or_the_episode_and_nothing_else(arm):
    """What all arms must share (budgets, judges, prober, models) is out of its reach."""
    allowed = ("mgpo.objective.", "episode.limits.stages", "episode.limits.tools", "episode.show_skills")
    sources = ("synthesize.rewrite", "synthesize.filter")
    own_rate = {"mgpo.lr"} if arm == "grpo" else set()
    assert all(field.startswith((*allowed, *sources)) for field in changed(arm) - own_rate)
    assert (changed(arm) == set()) == (arm in (FULL, "sft", "base-workflow", "none"))


def test_the_sources_differ_in_who_writes_and_in_what_is_kept():
    """One difference each: the filter between the two one-shot arms, the algorithm between the two rewriting ones."""
    one, other = ARMS["one-shot-unfiltered"], ARMS["one-shot-filtered"]
    assert set(one.overrides) - set(other.overrides) == {"synthesize.filter=none"}
    assert (one.trained, one.start) == (other.trained, other.start) == ("sft", "one-shot")
    kinds = {arm: loading.load(None, ARMS[arm].overrides).synthesize.rewrite.kind for arm in ("metamath", "wizardmath")}
    assert kinds == {"metamath": "metamath", "wizardmath": "wizardmath"}
    assert {arm for arm, own in ARMS.items() if own.start is None} == {"none", *kinds}
    assert [arm for arm, own in ARMS.items() if not own.writes] == ["none"]
    assert all(own.start is None or own.start == FULL or ARMS[own.start].overrides for own in ARMS.values())


def test_the_arms_of_a_comparison_are_there_and_lead_to_the_full_method():
    assert {a for c in COMPARISONS.values() for a in c.arms} == set(ARMS)
    for c in COMPARISONS.values():
        assert c.arms[-1] == FULL and len(c.arms) == len(c.paper)
        told = [p for p in c.paper if p is not None]
        assert all(a < b for a, b in pairwise(told))
    assert COMPARISONS["rl"].orderings == (("grpo", "omega-0"), ("omega-0", FULL), ("grpo", FULL))
    assert COMPARISONS["omega"].orderings == (("omega-0", FULL), ("omega-0.25", FULL), ("omega-1", FULL))
    assert arms_of(("rl", "omega")) == (FULL, "grpo", "omega-0", "omega-0.25", "omega-1")
    assert set(QUICK_COMPARISONS) <= set(COMPARISONS)
    assert loading.load(None, QUICK).mgpo.steps < configs.Config(domain="mini").mgpo.steps


def test_omega_and_objective_are_what_the_arms_say():
    objective = {arm: loading.load(None, ARMS[arm].overrides).mgpo.objective for arm in arms_of(("rl", "omega"))}
    assert {a: o.name for a, o in objective.items()} == {
        "full": "mgpo", "grpo": "grpo", "omega-0": "mgpo_no_stage", "omega-0.25": "mgpo", "omega-1": "mgpo",
    }  # fmt: skip
    assert [objective[a].omega for a in ("omega-0.25", "full", "omega-1")] == [0.25, 0.5, 1.0]


# ---------------------------------------------------------------- the table


def test_the_interval_is_students():
    """Three seeds: t(0.975, 2) = 4.303; the standard deviation of 1, 2, 3 is 1."""
    found = table.summary([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["interval"] == pytest.approx([2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)])
    assert table.summary([5.0])["interval"] is None
    assert table.summary([]) is None


def figures(**arms):
    """Seeds' hard yields of each arm; the other metrics are not known."""
    return {
        arm: {s: dict.fromkeys(METRICS) | {"hard_yield_per_1k": v, "source": {}} for s, v in enumerate(values)}
        for arm, values in arms.items()
    }


def verdict_of(**arms):
    made = table.make(figures(**arms), ("rl",), {})
    (found,) = [o for o in made["orderings"] if o["metric"] == "hard_yield_per_1k"]
    return found


def test_differences_are_paired_by_seed():
    """The seeds differ by far more than the arms do, and yet every seed says the same."""
    found = verdict_of(grpo=[1.0, 5.0, 9.0], full=[1.5, 5.6, 9.4])
    assert found["difference"]["mean"] == pytest.approx(0.5)
    assert found["verdict"] == "holds"
    assert verdict_of(full=[1.0, 5.0, 9.0], grpo=[1.5, 5.6, 9.4])["verdict"] == "reversed"
    assert verdict_of(grpo=[1.0, 5.0, 9.0], full=[2.0, 4.0, 9.0])["verdict"] == "open"
    assert verdict_of(grpo=[1.0], full=[2.0, 4.0])["verdict"] == "one seed"


def test_what_is_not_measured_is_null_and_said_to_be():
    made = table.make(figures(grpo=[1.0], full=[2.0]), ("rl",), {"mgpo_steps": 3})
    assert made["arms"]["grpo"]["solver"] is None
    assert {o["verdict"] for o in made["orderings"] if o["metric"] == "solver"} == {"not measured"}
    text = table.markdown(made)
    (row,) = [line for line in text.splitlines() if line.startswith("| grpo |")]
    assert row == "| grpo | 1 | – | – | 1.00 | – | – | – |"
    assert made["sources"] == {} and "data source" not in text


def test_solvers_stand_by_what_they_learned_from_the_best_first():
    def of(solver, **source):
        return dict.fromkeys(METRICS) | {"solver": solver, "source": source}

    told = {"episodes": 40, "tokens": 900, "problems": 30, "validity": 0.75}
    known = {
        "none": {0: of(0.2), 1: of(0.3)},
        "metamath": {0: of(0.4, **told), 1: of(0.5, **told)},
        "one-shot-filtered": {0: of(None, **(told | {"problems": 0, "validity": 0.0}))},
        "sft": {0: of(None)},
    }
    made = table.make(known, ("sources",), {})
    assert list(made["sources"]) == ["none", "metamath", "one-shot-filtered"]
    text = table.markdown(made).splitlines()
    first = text.index("| data source | episodes | tokens | problems | validity | solver |")
    assert text[first + 2] == "| metamath | 40 | 900 | 30 | 75.0 | 45.0 [-18.5, 108.5] |"
    assert text[first + 3] == "| none | – | – | – | – | 25.0 [-38.5, 88.5] |"
    assert text[first + 4] == "| one-shot-filtered | 40 | 900 | 0 | 0.0 | – |"
    page = table.page(made, {})
    assert page.index("<td>metamath</td><td class=n>40</td>") < page.index("<td>none</td><td class=n>–</td>")


def test_a_source_without_a_proposer_is_held_against_others_by_its_solver_alone():
    one = {0: dict.fromkeys(METRICS) | {"source": {}}}
    made = table.make({"metamath": one, "one-shot-filtered": one, "full": one}, ("sources",), {})
    by_arm = {arm: {o["metric"] for o in made["orderings"] if o["lower"] == arm} for arm in made["arms"]}
    assert by_arm["metamath"] == {"solver"} and by_arm["one-shot-filtered"] > {"solver", "verified_rate"}


def test_the_page_is_whole_with_and_without_intervals():
    one, two = {"grpo": [1.0], "full": [2.0]}, {"grpo": [1.0, 2.0], "omega-0": [0.0, 0.0], "full": [2.0, 4.0]}
    for arms, plots in ((one, 1), (two, 2)):  # omega-0 is in two comparisons
        curves = {"full": [[{"step": 1, "hard_yield_per_1k": 0.5}, {"step": 2, "hard_yield_per_1k": 0.7}]]}
        page = table.page(table.make(figures(**arms), ("rl",), {}), curves)
        assert page.count("<figure>") == page.count("</figure>") == plots + 1
        assert "nan" not in page.lower() and page.endswith("</html>\n")


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


# ---------------------------------------------------------------- running and resuming


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Stages and measuring that only leave a trace, in the order they were called. `stop_at` breaks one."""
    calls = []

    async def stage(context, name):
        where = context.run.root.relative_to(tmp_path / "a")
        if context.run.result(name) is None:
            calls.append(f"{where}: {name}")
            if name == "acquire":
                for part in (("skills", "one"), ("steps", "sft", "000001"), ("ledger", "sft")):
                    context.run.path(*part).mkdir(parents=True)
            context.run.finish(name, {"checkpoint": f"{where}/{name}"}, 1.0)
        return context.run.result(name)["result"]

    async def solving(context, proposer, budget, writes):
        calls.append(f"solver {'/'.join(context.run.root.parts[-2:])} of {proposer} with {budget.episodes}")
        return {"score": 0.25, **({"problems": 7} if writes else {})}

    async def measuring(context, proposer, episodes):
        arm, seed = context.run.root.parts[-2:]
        calls.append(f"measure {arm}/{seed} of {proposer} with {episodes}")
        if calls[-1].startswith(f"measure {stop_at[0]} "):
            raise Failure("interrupted here", "infra_error")
        written = [name for name in METRICS if name != "solver"]
        return dict.fromkeys(written, 0.5) | {"hard_yield_per_1k": len(arm) + float(seed)}

    async def renewed(self, config):
        self.config = config

    stop_at = [""]
    monkeypatch.setattr("pipeline.stages.run", stage)
    monkeypatch.setattr(measure, "run", measuring)
    monkeypatch.setattr(measure, "solver", solving)
    monkeypatch.setattr("pipeline.pools.cluster.Cluster.renew", renewed)
    return calls, stop_at


def ablate(root, seeds=1, comparisons=("start", "rl"), episodes=4, sets=(), downstream=0, tokens=0):
    def configure(more):
        return loading.load(None, [*sets, *more])

    return runs.ablate(configure, root, comparisons, seeds, episodes, Budget(downstream, tokens))


def test_arms_share_the_sft_of_their_seed_and_are_trained_as_far_as_they_go(tmp_path, stubs):
    calls, _ = stubs
    ablate(tmp_path / "a")
    assert calls == [
        "start/full/0: acquire", "start/full/0: sft",
        "arms/full/0: mgpo", "measure full/0 of arms/full/0/mgpo with 4",
        "measure sft/0 of start/full/0/sft with 4",
        "arms/grpo/0: mgpo", "measure grpo/0 of arms/grpo/0/mgpo with 4",
        "arms/omega-0/0: mgpo", "measure omega-0/0 of arms/omega-0/0/mgpo with 4",
    ]  # fmt: skip
    made = loading.load(tmp_path / "a" / "arms" / "grpo" / "0" / "config.yaml")
    assert (made.mgpo.objective.name, made.seed) == ("grpo", 0)
    arm = tmp_path / "a" / "arms" / "grpo" / "0"
    assert (arm / "skills" / "one").is_dir() and (arm / "steps" / "sft" / "000001").is_dir()


def test_an_arm_without_a_part_has_a_teacher_without_it(tmp_path, stubs):
    calls, _ = stubs
    ablate(tmp_path / "a", comparisons=("pruning",))
    assert calls == [
        "start/full/0: acquire", "start/full/0: sft", "arms/full/0: mgpo", "measure full/0 of arms/full/0/mgpo with 4",
        "start/no-pruning/0: acquire", "start/no-pruning/0: sft",
        "arms/no-pruning/0: mgpo", "measure no-pruning/0 of arms/no-pruning/0/mgpo with 4",
    ]  # fmt: skip
    for kind in ("start", "arms"):
        made = loading.load(tmp_path / "a" / kind / "no-pruning" / "0" / "config.yaml")
        assert made.episode.limits.tools == ("exec", "skill")


def test_an_interrupted_grid_goes_on_where_it_was_and_can_grow(tmp_path, stubs):
    calls, stop_at = stubs
    stop_at[0] = "grpo/0"
    with pytest.raises(Failure, match="interrupted here"):
        ablate(tmp_path / "a")
    stop_at[0], calls[:] = "", []
    ablate(tmp_path / "a")
    assert calls == [
        "measure grpo/0 of arms/grpo/0/mgpo with 4",
        "arms/omega-0/0: mgpo", "measure omega-0/0 of arms/omega-0/0/mgpo with 4",
    ]  # fmt: skip
    calls[:] = []
    found = ablate(tmp_path / "a", seeds=2)
    assert calls[:2] == ["start/full/1: acquire", "start/full/1: sft"] and all("/1" in call for call in calls)
    assert {arm: row["seeds"] for arm, row in found["arms"].items()} == {a: [0, 1] for a in arms_of(("start", "rl"))}
    calls[:] = []
    assert ablate(tmp_path / "a", seeds=2) == found == json.loads((tmp_path / "a" / "table.json").read_text())
    assert calls == []
    assert {p.name for p in (tmp_path / "a").glob("table.*")} == {"table.json", "table.md", "table.html"}


def test_solvers_can_be_trained_by_a_later_call(tmp_path, stubs):
    calls, _ = stubs
    assert ablate(tmp_path / "a")["arms"]["sft"]["solver"] is None
    calls[:] = []
    found = ablate(tmp_path / "a", comparisons=("start",), downstream=9)
    assert calls == ["solver full/0 of arms/full/0/mgpo with 9", "solver sft/0 of start/full/0/sft with 9"]
    assert found["arms"]["sft"]["solver"]["values"] == [0.25]
    calls[:] = []
    without = ablate(tmp_path / "a")  # neither trained nor forgotten, and the other arms still have none
    assert calls == [] and without["budget"]["downstream_episodes"] == 9
    assert [without["arms"][arm]["solver"] is None for arm in ("sft", "grpo")] == [False, True]
    with pytest.raises(Failure, match=r"downstream_episodes was 9, is now 5; take another --run-dir"):
        ablate(tmp_path / "a", downstream=5)
    with pytest.raises(Failure, match=r"downstream_episodes was 9, is now 0; take another --run-dir"):
        ablate(tmp_path / "a", tokens=500)


def test_data_sources_share_what_they_begin_with_and_some_begin_with_nothing(tmp_path, stubs):
    calls, _ = stubs
    found = ablate(tmp_path / "a", comparisons=("sources",), downstream=9)
    starts = [call for call in calls if call.startswith("start")]
    assert starts == [f"start/{arm}/0: {stage}" for arm in ("full", "one-shot") for stage in ("acquire", "sft")]
    alone = [call for call in calls if any(f" {arm}/0 " in call for arm in ("none", "metamath", "wizardmath"))]
    assert alone == [f"solver {arm}/0 of None with 9" for arm in ("none", "metamath", "wizardmath")]
    assert "solver one-shot-unfiltered/0 of start/one-shot/0/sft with 9" in calls
    assert set(found["sources"]) == set(COMPARISONS["sources"].arms)
    assert found["sources"]["metamath"]["problems"]["mean"] == 7 and found["sources"]["none"]["problems"] is None
    calls[:] = []
    assert ablate(tmp_path / "a", comparisons=("sources",), downstream=9) == found and calls == []


def test_another_budget_is_refused(tmp_path, stubs):
    ablate(tmp_path / "a")
    with pytest.raises(Failure, match=r"measured_episodes was 4, is now 8; take another --run-dir"):
        ablate(tmp_path / "a", episodes=8)
    with pytest.raises(Failure, match=r"mgpo.steps was 12, is now 3"):
        ablate(tmp_path / "a", sets=["mgpo.steps=3"])


# ---------------------------------------------------------------- the command


def test_an_unknown_comparison_is_named_with_what_there_is(capsys):
    assert "--only rll: no comparison; expected some of rl, start, loop" in refused(capsys, "ablate", "--only", "rll")


def test_sources_are_compared_by_their_solvers(capsys):
    assert "expected --downstream" in refused(capsys, "ablate", "--only", "sources", "--downstream", "0")
    assert wanted(None, False, False) == tuple(name for name in COMPARISONS if name != "sources")
    assert wanted(None, False, True) == tuple(COMPARISONS)


def test_the_help_teaches_the_grid(capsys):
    _, out, _ = propose(capsys, "ablate", "--help")
    assert all(f"  {arm} " in out for arm in ARMS)
    assert documented(capsys, "ablate") == list(ABLATE_KEYS)


def test_the_command_prints_the_table(capsys, tmp_path, stubs):
    code, out, err = propose(capsys, "ablate", "--only", "start", "--seeds", "1", "--run-dir", "a", "--json")
    assert code == 0, err
    assert list(json.loads(out)) == list(ABLATE_KEYS)
    assert "sft, seed 0 · pi_ref, not trained further" in err
    assert propose(capsys, "ablate", "--only", "start", "--seeds", "1", "--run-dir", "a")[1].startswith("| arm | seeds")
