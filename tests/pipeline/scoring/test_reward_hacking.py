"""What an agent could try for the reward's sake, on whole traces and whole steps: calling tools for show, and handing
in what was verified before. `test_rewards.py` holds the rules of a single turn; here is what they add up to."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, MGPOConfig, RewardConfig
from pipeline.config.loading import load
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.flow.stream import Stream
from pipeline.records import ACTIONS, COGNITIVE_STAGES, Episode, Failure, Probe, Rollout, Skill, Verdict
from pipeline.scoring.rewards import process
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages.mgpo import Producer
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_keyed, write_records
from pipeline.watch.progress import Progress
from tests.pipeline.judged import Remote, episode, probe, verdict
from tests.pipeline.scoring.test_rewards import BAD, SUBMIT, check, edit, fails, rewards, think
from trainers.batches import StepBatch
from trainers.objectives.mgpo import advantages

# ---------------------------------------------------------------- tool calls for show

honest = st.sampled_from(
    [
        (think("draft"), check()),
        (check(),),
        (fails(), think(), check()),
        (fails(), edit("share", ["add", "lcm"]), check()),
        (fails(), think(), fails("print(share(9, 2))"), think(), check()),
    ]
)
shows = st.sampled_from(
    [
        lambda i: check(f"print(add({i + 20}, 1))", content=str(i + 21)),  # runs, and computes something else
        lambda i: check(),  # the same again
        lambda i: check(f"print({i})", content=str(i)),
        lambda i: fails(f"print(share({i}, 2))"),
        lambda i: BAD,
    ]
)


@given(honest, st.lists(st.tuples(st.integers(0, 6), shows), min_size=1, max_size=8))
def test_tool_calls_put_into_an_honest_trace_never_raise_its_reward(trace, calls):
    """Wherever they stand, whether they run or not. r_T does not see them: it is a function of verdict and probe."""
    padded = list(trace)
    for i, (place, make) in enumerate(calls):
        padded.insert(min(place, len(padded)), make(i))
    assert sum(rewards(*padded, SUBMIT, answer="7")) <= sum(rewards(*trace, SUBMIT, answer="7")) + 1e-9


@given(st.lists(shows, min_size=2, max_size=6))
def test_a_spammer_is_worth_no_more_than_who_checks_once(calls):
    """In one group, same terminal reward: the spammer's advantages add up to no more than those of the honest one."""
    spam = (think("draft"), check(), *(make(i) for i, make in enumerate(calls)), SUBMIT)
    plain = (think("draft"), check(), SUBMIT)
    advantage = [a.sum() for a in advantages_of([spam, plain, plain, plain])]
    assert advantage[0] <= advantage[1] + 1e-5


@given(st.integers(1, 7), st.integers(1, 3))
def test_failing_on_purpose_makes_failing_less_likely(honest_ones, failures):
    """Stage advantages are z-scores, so a sum over turns says nothing; what the optimizer sees is each turn's own. The
    repair is made more likely, the failure that it needs less."""
    failing = [fails(f"print(share({9 + 2 * i}, 2))") for i in range(failures)]
    hacker = (think("draft"), *failing, think("refine"), check(), SUBMIT)
    plain = (think("draft"), think("refine"), check(), SUBMIT)
    advantage = advantages_of([hacker, *(plain,) * honest_ones])[0]
    assert all(a < -0.1 for a in advantage[1 : 1 + failures])
    assert advantage[1 + failures] > 0


def advantages_of(traces):
    """A(i,t) of each trajectory of a group whose terminal rewards are equal."""
    rollouts = [as_rollout(str(i), turns) for i, turns in enumerate(traces)]
    batch = StepBatch.from_arrow([Rollout.to_arrow(rollouts)])
    return torch.split(advantages(MGPOConfig(), batch.tokens), [len(t) for t in traces])


def as_rollout(name, turns):
    played = episode(answer="7").model_copy(update={"turns": turns})
    n = len(turns)
    return Rollout(
        episode_id=name, attempt=1, group_id="g", token_ids=(1,) * (n + 1), loss_mask=(0, *(1,) * n),
        logprobs=(0.0,) * (n + 1), versions=(-1, *(0,) * n), action_index=(-1, *range(n)),
        action_stage=tuple(COGNITIVE_STAGES.index(t.stage) for t in turns),
        action_kind=tuple(ACTIONS.index(t.action) for t in turns),
        process_rewards=process(played, RewardConfig()), terminal_reward=1.0,
    )  # fmt: skip


# ---------------------------------------------------------------- problems that were verified before


class Pools:
    """Hands in the next of `questions`, accepts all of them, and keeps the rewards that are written."""

    def __init__(self, questions):
        self._left = iter(questions)
        self.rewards: list[float] = []
        self.process: list[tuple[float, ...]] = []
        self.episode, self.judge, self.judge_many, self.probe, self.drop, self.write = (
            Remote(f) for f in (self._episode, self._judge, self._judge_many, self._probe, self._none, self._write)
        )

    def buffer(self):
        return self

    async def _episode(self, task, attempt):
        return episode(task, attempt, question=next(self._left), active=[s.id for s in task.skills])

    async def _judge(self, problem, played, active):
        return verdict(played)

    async def _judge_many(self, cases):
        return [verdict(SimpleNamespace(submitted=p), "rejected") for p, _, _ in cases]

    async def _probe(self, problem, prober, seed, enough=1):
        return probe(SimpleNamespace(submitted=problem), pass_at_k=0.25)

    async def _none(self, keys):
        return None

    async def _write(self, folder, rows):
        self.rewards += [terminal for _, _, terminal in rows]
        self.process += [process for _, process, _ in rows]
        return len(rows)


ONE = 1.0 + 2.0 * 0.5  # four of eight samples are right
"""r_T of an accepted problem with Pass@k 0.25."""


def terminal_rewards(root, steps):
    """r_T of each episode of each step, in the order of the tasks."""
    return [pools.rewards for pools in played(root, steps)]


def config_of(size, *sets) -> Config:
    return load(
        None, ["mgpo.groups=1", f"mgpo.group_size={size}", "proposer.pool.max_ongoing=1", "mgpo.max_staleness=9", *sets]
    )


def played(root, steps, *sets):
    """The pools of each step, with what was written; every step in a run that was interrupted before."""
    config = config_of(len(steps[0]), *sets)
    found = []
    for number, questions in enumerate(steps, start=1):
        directory = RunDir.open(root, config)
        try:
            with Metrics(directory) as metrics, Progress() as progress:
                pools = Pools(questions)
                context = Context(config, directory, pools, metrics, progress)
                if number == 1:
                    SkillLibrary(
                        [
                            Skill(
                                id=s.id, category=s.category, intent=s.id, method="a\n\nb", difficulty="d",
                                tool_hint="t", score=0.9, source="s",
                            )
                            for s in SKILLS
                        ]
                    ).save(directory.path("skills"))  # fmt: skip
                stream = Stream(config, pools, pools, pools, pools)
                asyncio.run(Producer(context, stream, SimpleNamespace(beat=lambda _: None)).step(number))
                found.append(pools)
        finally:
            directory.close()
    return found


def test_a_copy_of_a_verified_problem_is_worth_what_a_rejected_one_is(tmp_path):
    """In the same step, in a later one, after a restart, and with other spaces and capitals."""
    first, second = terminal_rewards(
        tmp_path / "run", [["What is 2 + 3?", "what  is 2 + 3?", "A?"], ["What is 2 + 3?", " a? ", "B?"]]
    )
    assert first == [ONE, 0.0, ONE]
    assert second == [0.0, 0.0, ONE]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from("ABC"), min_size=4, max_size=4), min_size=1, max_size=3))
def test_the_terminal_reward_of_a_run_counts_each_verified_problem_once(tmp_path_factory, letters):
    steps = [[f"Problem {x}?" for x in step] for step in letters]
    found = terminal_rewards(tmp_path_factory.mktemp("copies") / "run", steps)
    assert sum(map(sum, found)) == ONE * len({x for step in letters for x in step})


def test_the_same_problem_in_other_words_is_a_copy(tmp_path):
    """Other names, things, wordings and an order that does not matter; another number is another problem."""
    first = "Mia has 5 coins. Mia finds 3 more. Mia buys 4 more. How many coins does Mia have now?"
    again = "Tom has 5 pens. Tom finds 4 more. Tom finds 3 more. How many pens does Tom have now?"
    other = "Tom has 5 pens. Tom finds 4 more. Tom finds 2 more. How many pens does Tom have now?"
    (found,) = terminal_rewards(tmp_path / "run", [[first, again, other]])
    assert found[0] > 0 and found[1] == 0 and found[2] == found[0]


def test_many_problems_of_one_skeleton_share_a_reward(tmp_path):
    """All of a step alike, whatever their order."""
    steps = [[f"Anna sells {n} crates for 31 euros each and pays 45 for the stall. What is left?" for n in range(16)]]
    (found,) = terminal_rewards(tmp_path / "run", steps)
    assert found == [pytest.approx(found[0])] * 16
    assert found[0] == pytest.approx(0.5 * terminal_rewards(tmp_path / "few", [steps[0][:8]])[0][0])


def test_what_a_teacher_wrote_and_was_verified_is_a_copy_too(tmp_path):
    root = tmp_path / "run"
    taught = episode(question="What is 2 + 3?")
    run = RunDir.open(root, config_of(2))
    with run.new_step("sft", 1) as folder:
        write_records(folder / "episodes.parquet", [taught], Episode)
        write_keyed(folder / "verdicts.parquet", {(taught.id, taught.attempt): verdict(taught)}, Verdict)
        write_keyed(folder / "probes.parquet", {}, Probe)
    run.close()
    assert terminal_rewards(root, [["What is 2 + 3?", "Another?"]]) == [[0.0, ONE]]


def test_a_judge_that_is_away_costs_its_credit_not_the_step(tmp_path, monkeypatch):
    class Away:
        def __init__(self, section, prompt):
            pass

        async def credit(self, episode):
            if episode.submitted.question == "A?":
                raise Failure("http://x: ConnectError (4 tries)", "infra_error")
            return (0.1,) * len(episode.turns)

    monkeypatch.setattr("pipeline.stages.mgpo.ReflectionJudge", Away)
    (pools,) = played(tmp_path / "run", [["A?", "B?"]], "reward.judge={base_url: 'http://x', model: m}")
    assert pools.process == [(0.0,), (0.0,)]  # nobody's: a credit that some have for the judge's health is no signal


def test_the_judges_credit_is_added_to_what_the_rules_give(tmp_path, monkeypatch):
    class Judge:
        def __init__(self, section, prompt):
            self._weight = section.weight

        async def credit(self, episode):
            return (self._weight,) * len(episode.turns)

    monkeypatch.setattr("pipeline.stages.mgpo.ReflectionJudge", Judge)
    judge = "reward.judge={base_url: 'http://x', model: m, weight: 0.05}"
    (pools,) = played(tmp_path / "run", [["A?", "B?"]], judge)
    assert pools.process == [(0.05,), (0.05,)]
    assert played(tmp_path / "other", [["A?", "B?"]])[0].process == [(0.0,), (0.0,)]
