"""Running the ablation: who shares what, resuming, what is refused; the command."""

import json
from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline.commands.ablation import measure, rounds, runs
from pipeline.commands.ablation.grid import (
    ARMS,
    DECIDING,
    FULL,
    STATED,
    Arm,
    Budget,
    Counts,
    arms_of,
    counts,
    wanted,
)
from pipeline.commands.ablation.measure import METRICS
from pipeline.commands.keys import ABLATE_KEYS
from pipeline.config import loading
from pipeline.records import Failure
from pipeline.store import metrics
from tests.pipeline.test_cli import documented, propose, refused


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
            if name == "mgpo":
                for step in (1, 2):
                    context.run.path("steps", "mgpo", f"{step:06d}").mkdir(parents=True)
                    context.run.path("checkpoints", "mgpo", f"step-{step:06d}").mkdir(parents=True)
                    # The full method samples twice what others do.
                    tokens = 200 if where.parts[1] == FULL else 100
                    context.metrics.log("mgpo", step, {"sampled_tokens": tokens, "hard_yield_per_1k": 0.5})
            context.run.finish(name, {"checkpoint": f"{where}/{name}"}, 60.0)
        return context.run.result(name)["result"]

    async def solving(context, proposer, budget):
        calls.append(f"solver {'/'.join(context.run.root.parts[-2:])} of {proposer} with {budget.episodes}")
        return {"score": 0.25, "problems": 7}

    async def untrained(context):
        calls.append(f"solver {'/'.join(context.run.root.parts[-2:])} as it is")
        return {"score": 0.2}

    async def of_generator(context, count):
        calls.append(f"solver {'/'.join(context.run.root.parts[-2:])} of {count} of the generator")
        return {"score": 0.3, "problems": count}

    async def measuring(context, proposer, episodes, name="measure", heldout=True):
        where = context.run.root.relative_to(tmp_path / "a")
        assert context.config.reward.rho == "rate"  # whatever an arm was trained by
        own = str(proposer).removeprefix(f"{tmp_path / 'a'}/")
        calls.append(f"{name} {where} of {own} with {episodes}{'' if heldout else ', not held out'}")
        if calls[-1].startswith(f"measure arms/{stop_at[0]} "):
            raise Failure("interrupted here", "infra_error")
        written = [name for name in METRICS if name != "solver"]
        figure = 1 / abs(context.config.mgpo.lr - (2e-4 if "grpo" in str(where) else 4e-4) + 1e-6)
        return dict.fromkeys(written, 0.5) | {"hard_yield_per_1k": 1.0, "solved_yield_per_1k": figure}

    async def play(context, budget):
        where = context.run.root.relative_to(tmp_path / "a")
        config = context.config
        began = (context.result_of("sft")["checkpoint"], config.prober.ladder[0].path, config.solve.base.path)
        calls.append(f"{where} under {config.committee.verifiers[0].kind} with {budget.episodes}: {began}")
        if str(where) == stop_at[0]:
            raise Failure("interrupted here", "infra_error")
        number = int(where.name.removeprefix("round-"))
        told = dict.fromkeys(rounds.ROUND, 0.5) | {"label_accuracy": 1 - 0.1 * number, "before": 0.1, "tokens": 5}
        return told | {"validity": 0.5, "proposer": f"{where}/proposer", "solver": f"{where}/solver"}

    async def renewed(self, config):
        self.config = config

    async def restarted(self, whole):
        calls.append("restart" if whole else "renew")

    stop_at = [""]
    monkeypatch.setattr("pipeline.stages.run", stage)
    monkeypatch.setattr(measure, "run", measuring)
    monkeypatch.setattr(measure, "solver", solving)
    monkeypatch.setattr(measure, "untrained", untrained)
    monkeypatch.setattr(measure, "of_generator", of_generator)
    monkeypatch.setattr(rounds, "play", play)
    monkeypatch.setattr("pipeline.pools.cluster.Cluster.renew", renewed)
    monkeypatch.setattr("pipeline.pools.cluster.Cluster.restart", restarted)
    return calls, stop_at


def ablate(
    root, seeds=1, comparisons=("start", "pruning"), episodes=4, sets=(), downstream=0, tokens=0, rates=(2e-4, 4e-4)
):
    def configure(more):
        return loading.load(None, [*STATED, *sets, *more])

    every = bool(downstream or tokens)
    return runs.ablate(configure, root, comparisons, Counts(seeds, episodes, Budget(downstream, tokens), every, rates))


def told(calls):
    """Without the second measurement, which has a test of its own."""
    return [call for call in calls if not call.startswith("measure-")]


def test_arms_share_the_sft_of_their_seed_and_are_trained_as_far_as_they_go(tmp_path, stubs):
    calls, _ = stubs
    ablate(tmp_path / "a", comparisons=("start", "rho"))
    assert told(calls) == [
        "start/full/0: acquire", "start/full/0: sft",
        "arms/full/0: mgpo", "measure arms/full/0 of arms/full/0/mgpo with 4",
        "measure arms/sft/0 of start/full/0/sft with 4",
        "arms/pass-at-k/0: mgpo", "measure arms/pass-at-k/0 of arms/pass-at-k/0/mgpo with 4",
    ]  # fmt: skip
    made = loading.load(tmp_path / "a" / "arms" / "pass-at-k" / "0" / "config.yaml")
    assert (made.reward.rho, made.seed) == ("pass_at_k", 0)
    arm = tmp_path / "a" / "arms" / "pass-at-k" / "0"
    assert (arm / "skills" / "one").is_dir() and (arm / "steps" / "sft" / "000001").is_dir()


def test_an_arm_without_a_part_has_a_teacher_without_it(tmp_path, stubs):
    calls, _ = stubs
    ablate(tmp_path / "a", comparisons=("pruning",))
    assert told(calls) == [
        "start/full/0: acquire", "start/full/0: sft",
        "arms/full/0: mgpo", "measure arms/full/0 of arms/full/0/mgpo with 4",
        "start/no-pruning/0: acquire", "start/no-pruning/0: sft",
        "arms/no-pruning/0: mgpo", "measure arms/no-pruning/0 of arms/no-pruning/0/mgpo with 4",
    ]  # fmt: skip
    for kind in ("start", "arms"):
        made = loading.load(tmp_path / "a" / kind / "no-pruning" / "0" / "config.yaml")
        assert made.episode.limits.tools == ("exec", "skill")


def test_an_interrupted_grid_goes_on_where_it_was_and_can_grow(tmp_path, stubs):
    calls, stop_at = stubs
    stop_at[0] = "no-pruning/0"
    with pytest.raises(Failure, match="interrupted here"):
        ablate(tmp_path / "a")
    stop_at[0], calls[:] = "", []
    ablate(tmp_path / "a")
    assert told(calls) == ["measure arms/no-pruning/0 of arms/no-pruning/0/mgpo with 4"]
    first = (tmp_path / "a" / "rows.jsonl").read_text()
    calls[:] = []
    found = ablate(tmp_path / "a", seeds=2)
    assert calls[:2] == ["start/full/1: acquire", "start/full/1: sft"] and all("/1" in call for call in calls)
    assert {arm: row["seeds"] for arm, row in found["arms"].items()} == {
        a: [0, 1] for a in arms_of(("start", "pruning"))
    }
    lines = (tmp_path / "a" / "rows.jsonl").read_text()
    assert lines.startswith(first) and [json.loads(line)["seed"] for line in lines.splitlines()] == [0, 0, 0, 1, 1, 1]
    calls[:] = []
    assert ablate(tmp_path / "a", seeds=2) == found == json.loads((tmp_path / "a" / "table.json").read_text())
    assert calls == []
    assert {p.name for p in (tmp_path / "a").glob("table.*")} == {"table.json", "table.md", "table.html"}


def test_arms_that_sampled_more_are_measured_where_they_had_sampled_as_much(tmp_path, stubs):
    calls, _ = stubs
    found = ablate(tmp_path / "a", comparisons=("rho",))
    again = [call for call in calls if call.startswith("measure-")]
    assert again == ["measure-rho arms/full/0 of arms/full/0/checkpoints/mgpo/step-000001 with 4"]
    full, other = (json.loads(line) for line in (tmp_path / "a" / "rows.jsonl").read_text().splitlines())
    assert (full["training_tokens"], other["training_tokens"], full["minutes"]) == (400, 200, 1.0)
    assert [(r["equal_tokens"]["rho"]["step"], r["equal_tokens"]["rho"]["tokens"]) for r in (full, other)] == [
        (1, 200), (2, 200),
    ]  # fmt: skip
    assert {o["at"] for o in found["orderings"]} == {"equal steps", "equal tokens"}
    assert found["arms"]["full"]["training_tokens"]["mean"] == 400


def test_tokens_are_equal_to_a_tenth_or_not_at_all():
    cumulative = [100, 210, 330, 440]
    assert runs.nearest(cumulative, [2, 4], 205) == 2 and runs.nearest(cumulative, [2, 4], 400) == 4
    assert runs.nearest(cumulative, [2, 4], 330) is None and runs.nearest(cumulative, [], 100) is None


def test_an_arm_whose_training_tokens_are_lost_is_not_compared_at_equal_ones(tmp_path, stubs):
    """Lines of metrics may be damaged: figures are not worth a run."""
    calls, stop_at = stubs
    stop_at[0] = "pass-at-k/0"
    with pytest.raises(Failure, match="interrupted here"):
        ablate(tmp_path / "a", comparisons=("rho",))
    stop_at[0] = ""
    (tmp_path / "a/arms/full/0" / metrics.FILE).write_bytes(b"")
    found = ablate(tmp_path / "a", comparisons=("rho",))
    assert not any(call.startswith("measure-") for call in calls)
    assert {o["verdict"] for o in found["orderings"] if o["at"] == "equal tokens"} == {"not measured"}
    assert found["arms"]["full"]["training_tokens"] is None


def test_arms_with_other_objectives_are_trained_at_the_best_rate_of_one_sweep(tmp_path, stubs):
    """GRPO does best at 2e-4 here, MGPO at 4e-4; found at another seed, on combinations that are not held out."""
    calls, _ = stubs
    found = ablate(tmp_path / "a", comparisons=("objective",))
    tried = [call for call in calls if call.startswith("measure sweep")]
    assert tried == [
        f"measure sweep/{arm}/{rate}/900 of sweep/{arm}/{rate}/900/mgpo with 4, not held out"
        for arm in ("grpo", "mgpo-0", "mgpo-0.5") for rate in ("0.0002", "0.0004")
    ]  # fmt: skip
    rate = {arm: row["lr"]["mean"] for arm, row in found["arms"].items()}
    assert rate == {"grpo": 2e-4, "mgpo-0": 4e-4, "mgpo-0.5": 4e-4}
    assert set(found["sweep"]) == set(rate) and list(found["sweep"]["grpo"]) == ["0.0002", "0.0004"]
    calls[:] = []
    ablate(tmp_path / "a", seeds=2, comparisons=("objective",))
    assert not any("sweep" in call for call in calls)  # once for all seeds


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
    assert [without["arms"][arm]["solver"] is None for arm in ("sft", "no-pruning")] == [False, True]
    with pytest.raises(Failure, match=r"downstream_episodes was 9, is now 5; take another --run-dir"):
        ablate(tmp_path / "a", downstream=5)
    with pytest.raises(Failure, match=r"downstream_episodes was 9, is now 0; take another --run-dir"):
        ablate(tmp_path / "a", tokens=500)


def test_a_budget_for_solvers_binds_where_one_is_trained(tmp_path, stubs):
    """As `--only rho` has it, which trains none, and then `--only sources --tokens`."""

    def configure(more):
        return loading.load(None, [*STATED, *more])

    def run(names, budget):
        return runs.ablate(configure, tmp_path / "a", names, Counts(1, 4, budget))["budget"]["downstream_tokens"]

    assert run(("rho",), Budget(episodes=1000)) == 0
    assert run(("sources",), Budget(tokens=500)) == 500
    assert run(("rho",), Budget(episodes=1000)) == 500
    with pytest.raises(Failure, match=r"downstream_episodes was 0, is now 1000"):
        run(("rounds",), Budget(episodes=1000))


@pytest.mark.parametrize("name", ["sources", "rounds"])
def test_a_domain_without_known_answers_is_refused_before_anything_is_trained(tmp_path, stubs, name):
    def configure(more):
        return loading.load(Path(configs.__file__).with_name("starts") / "text.yaml", more)

    line = rf"^{name}: it needs problems .* this domain knows none; expected domain mini, or --only without it$"
    with pytest.raises(Failure, match=line):
        runs.ablate(configure, tmp_path / "a", ("start", name), Counts(1, 4, Budget(episodes=9)))
    assert stubs[0] == [] and not (tmp_path / "a").exists()


def test_an_arm_that_an_earlier_grid_trained_otherwise_is_refused_in_a_line(tmp_path, stubs, monkeypatch):
    earlier = Arm("GRPO at lr 2e-4", ("mgpo.objective={name: grpo}", "mgpo.lr=2e-4"))
    with monkeypatch.context() as before:
        before.setitem(ARMS, "grpo", earlier)
        ablate(tmp_path / "a", comparisons=("objective",))
    stubs[0].clear()
    line = r"a/arms/grpo/0: made with another config: mgpo\.\S+ was .*; use that config, or another --run-dir$"
    with pytest.raises(Failure, match=line):
        ablate(tmp_path / "a", comparisons=("objective",))
    assert stubs[0] == []
    ablate(tmp_path / "a", comparisons=("start",))  # what has the same meaning goes on


def test_data_sources_share_what_they_begin_with_and_some_begin_with_nothing(tmp_path, stubs):
    calls, _ = stubs
    names = ("sources", "baselines")
    found = ablate(tmp_path / "a", comparisons=names, downstream=9)
    starts = [call for call in calls if call.startswith("start")]
    assert starts == [f"start/{arm}/0: {stage}" for arm in ("full", "one-shot") for stage in ("acquire", "sft")]
    alone = [call for call in calls if call.startswith("solver") and "/mgpo" not in call and "/sft" not in call]
    assert "solver none/0 as it is" in alone and "solver generator/0 of 7 of the generator" in alone
    assert {f"solver {arm}/0 of None with 9" for arm in ("metamath", "wizardmath")} <= set(alone)
    assert "solver one-shot-unfiltered/0 of start/one-shot/0/sft with 9" in calls
    assert set(found["sources"]) == set(arms_of(names))
    assert found["sources"]["metamath"]["problems"]["mean"] == 7 and found["sources"]["none"]["problems"] is None
    calls[:] = []
    assert ablate(tmp_path / "a", comparisons=names, downstream=9) == found and calls == []


def test_a_proposer_is_measured_where_that_decides(tmp_path, stubs):
    calls, _ = stubs
    ablate(tmp_path / "a", comparisons=("sources",), downstream=9)
    assert not any(call.startswith("measure") for call in calls)
    calls.clear()
    found = ablate(tmp_path / "a", comparisons=("sources", "start"), downstream=9)  # and can be, later
    assert calls == [f"measure arms/{arm}/0 of {of} with 4" for arm, of in (
        (FULL, "arms/full/0/mgpo"), ("sft", "start/full/0/sft"))]  # fmt: skip
    assert found["arms"]["sft"]["verified_rate"]["mean"] == 0.5 and found["arms"]["none"]["verified_rate"] is None


def test_the_solver_of_a_round_probes_the_next_and_both_gates_begin_alike(tmp_path, stubs):
    calls, stop_at = stubs
    stop_at[0] = "arms/own-answer/0/round-2"
    with pytest.raises(Failure, match="interrupted here"):
        ablate(tmp_path / "a", comparisons=("rounds",), downstream=9)
    assert not (tmp_path / "a" / "rows.jsonl").read_text() if (tmp_path / "a" / "rows.jsonl").exists() else True
    stop_at[0] = ""
    calls.clear()
    found = ablate(tmp_path / "a", comparisons=("rounds",), downstream=9)
    played = [call for call in calls if " under " in call]
    first = "('start/full/0/sft', 'mini:solver', 'mini:solver')"

    def after(gate, number):
        before = f"arms/{gate}/0/round-{number}"
        return f"('{before}/proposer', '{before}/solver', '{before}/solver')"

    assert played == [
        *(f"arms/own-answer/0/round-{n} under author with 9: {after('own-answer', n - 1)}" for n in (2, 3)),
        f"arms/committee/0/round-1 under symbolic with 9: {first}",
        *(f"arms/committee/0/round-{n} under symbolic with 9: {after('committee', n - 1)}" for n in (2, 3)),
    ]
    # Judges are never taken over from another gate, nor from a round with another prober.
    for i, call in enumerate(calls):
        if call in played[1:]:
            assert calls[i - 1] == "restart"
    gate = found["rounds"]["own-answer"]
    assert [round_["label_accuracy"]["mean"] for round_ in gate] == pytest.approx([0.9, 0.8, 0.7])
    (row, _) = (json.loads(line) for line in (tmp_path / "a" / "rows.jsonl").read_text().splitlines())
    assert row["figures"]["label_change"] == pytest.approx(-0.2) and row["figures"]["solver"] == 0.5
    calls.clear()
    assert ablate(tmp_path / "a", comparisons=("rounds",), downstream=9) == found and calls == []


def test_another_budget_is_refused(tmp_path, stubs):
    ablate(tmp_path / "a")
    with pytest.raises(Failure, match=r"measured_episodes was 4, is now 8; take another --run-dir"):
        ablate(tmp_path / "a", episodes=8)
    with pytest.raises(Failure, match=r"mgpo.steps was 12, is now 3"):
        ablate(tmp_path / "a", sets=["mgpo.steps=3"])


def test_another_solver_or_benchmark_under_the_same_name_is_refused(tmp_path, stubs):
    """One line, which says which; also where it changes between two seeds of one call."""
    calls, _ = stubs
    base, benchmark = tmp_path / "base", tmp_path / "b.jsonl"
    base.mkdir()
    (base / "config.json").write_text("{}")
    benchmark.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    sets = [f"solve.base.path={base}", f"evaluate.benchmark={benchmark}"]
    found = ablate(tmp_path / "a", sets=sets)
    assert set(found["fixed"]) == {"solve.base", "evaluate.benchmark"}
    calls.clear()
    (base / "config.json").write_text("{ }")
    with pytest.raises(Failure, match=r"solve.base: the solver's base was sha256 \w{12}, is now \w{12}") as refused:
        ablate(tmp_path / "a", sets=sets, seeds=2)
    assert "\n" not in str(refused.value) and calls == []
    (base / "config.json").write_text("{}")
    benchmark.write_text('{"question": "1 + 2?", "answer": "3"}\n')
    with pytest.raises(Failure, match=r"evaluate.benchmark: the benchmark was sha256"):
        ablate(tmp_path / "a", sets=sets, seeds=2)


# ---------------------------------------------------------------- the command


def test_an_unknown_comparison_is_named_with_what_there_is(capsys):
    line = refused(capsys, "ablate", "--only", "rll")
    assert "--only rll: no comparison; expected some of sources, objective, rho, pruning, rounds, start, loop" in line


@pytest.mark.parametrize("name", ["sources", "rounds", "baselines"])
def test_what_solvers_decide_wants_solvers(capsys, name):
    assert "expected --downstream" in refused(capsys, "ablate", "--only", name, "--downstream", "0")
    assert wanted(None, False, counts(None, None, 0, None, False)) == ("objective", "rho", "pruning")
    assert wanted(None, False, counts(None, None, None, None, False)) == DECIDING


def test_the_help_teaches_the_grid(capsys):
    _, out, _ = propose(capsys, "ablate", "--help")
    assert all(f"  {arm} " in out for arm in ARMS)
    assert documented(capsys, "ablate") == list(ABLATE_KEYS)


def test_the_command_prints_its_power_and_then_the_table(capsys, tmp_path, stubs):
    code, out, err = propose(capsys, "ablate", "--only", "start", "--seeds", "1", "--run-dir", "a", "--json")
    assert code == 0, err
    assert list(json.loads(out)) == list(ABLATE_KEYS)
    assert "sft, seed 0 · pi_ref, not trained further" in err
    assert err.index("power · start, verified_rate, 2 tests: one seed") < err.index("seed 0")
    assert propose(capsys, "ablate", "--only", "start", "--seeds", "1", "--run-dir", "a")[1].startswith("| arm | seeds")
