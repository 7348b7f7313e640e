"""Task to judged episode: infrastructure is retried, what the model or the data did is not, nothing is lost."""

import asyncio
import json
import tempfile
from pathlib import Path

import pytest

from actors.passk import estimate
from pipeline import domains
from pipeline.config import Config, EndpointConfig, ModelConfig
from pipeline.config.loading import load
from pipeline.flow.stream import Stream
from pipeline.records import Episode, Failure, Lost, Outcome, Vote
from pipeline.scoring import chance
from pipeline.scoring.judged import Judged
from pipeline.store.ledger import Journal, Ledger, journal_path
from pipeline.store.rundir import RunDir
from pipeline.watch import retry
from tests.mini import MINI, changed
from tests.pipeline.judged import Remote, episode, probe, task, verdict

INFRA = Outcome(kind="infra_error", reason="replica died")


class World:
    """Pools that follow a script: what the n-th call of each does; the last entry goes on."""

    def __init__(self, proposer=("ok",), judge=("accepted",), prober=("ok",), config=None):
        self.script = {"proposer": list(proposer), "judge": list(judge), "prober": list(prober)}
        self.episode, self.judge, self.probe, self.drop = (
            Remote(f) for f in (self._episode, self._judge, self._probe, self._drop)
        )
        self.waiting = set()  # keys in the rollout buffer
        self.folder = tempfile.TemporaryDirectory()
        self.run = RunDir(Path(self.folder.name))
        self.ledger = Ledger(self.run, "mgpo")
        self.ledger.begin(1)
        self.whole = Stream(config or Config(domain="mini"), self, self, self, self)
        self.stream = self.whole.step(self.ledger)

    def _next(self, pool):
        script = self.script[pool]
        step = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def _episode(self, task, attempt):
        step = self._next("proposer")
        outcome = step if isinstance(step, Outcome) else None
        if outcome is None or outcome.kind == "model_error":
            self.waiting.add((task.id, attempt))
        return episode(task, attempt, outcome=outcome)

    async def _judge(self, problem, episode, active):
        step = self._next("judge")
        if step == "lost":
            vote = Vote(verifier="symbolic", valid=None, outcome=Outcome(kind="infra_error", reason="sandbox died"))
            return verdict(episode, "undecided").model_copy(update={"votes": (vote,)})
        return verdict(episode, step)

    async def _probe(self, problem, prober, seed, enough=1):
        self._next("prober")
        return probe(episode(), 0.25)

    async def _drop(self, keys):
        self.waiting -= set(keys)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)


def journal(world):
    return [(e["event"], e["attempt"]) for e in Journal.read(journal_path(world.run, "mgpo", 1)).events]


def judged(world, **kwargs):
    return asyncio.run(asyncio.wait_for(world.stream.judged(task(), "mini:solver", **kwargs), 20))


def test_a_task_is_played_judged_and_probed_once():
    world = World()
    j = judged(world)
    assert (j.accepted, j.failed, j.probe.pass_at_k, j.key) == (True, False, 0.25, ("g-00", 1))
    assert world.episode.calls == [(task(), 1)]
    assert world.judge.calls == [(j.episode.submitted, j.episode, j.episode.active)]
    assert world.probe.calls == [(j.episode.submitted, "mini:solver", task().seed, 1)]
    assert (world.stream.retries, world.waiting) == (0, {("g-00", 1)})


def test_what_a_prober_does_not_solve_above_chance_is_asked_of_the_next():
    """Until one solves it; what the weaker ones did is kept, and what nobody solves is marked."""
    ladder = [ModelConfig(path=name) for name in ("small", "middle", "large")]
    config = Config(domain="mini").model_copy(update={"prober": changed(MINI.prober, ladder=tuple(ladder))})
    for correct, asked, solved in (((0, 1), 2, True), ((3,), 1, True), ((0, 0, 0), 3, False)):
        world, left = World(config=config), list(correct)

        async def probed(problem, prober, seed, enough, left=left):
            found = estimate(problem.id, (c := left.pop(0)), 8 - c, 2, 4, prober)
            return found.model_copy(update={"tokens": 100})

        world.probe = Remote(probed)
        world.whole.prober = world
        j = asyncio.run(asyncio.wait_for(world.stream.judged(task(), "small"), 20))
        assert [call[1] for call in world.probe.calls] == ["small", "middle", "large"][:asked]
        assert (j.probe.prober, j.probe.solved, j.solved) == (["small", "middle", "large"][asked - 1], solved, solved)
        assert [(w.prober, w.correct, w.judged, w.unknown, w.tokens) for w in j.probe.weaker] == [
            (name, 0, 8, 2, 100) for name in ("small", "middle", "large")[: asked - 1]
        ]


def test_a_prober_is_told_how_many_right_samples_are_more_than_a_guess(monkeypatch):
    """By hand, at a chance of 3/4: 0.75 ** 8 = 0.10 and 0.75 ** 11 = 0.04."""
    monkeypatch.setattr(chance, "baseline", lambda *_: 0.75)
    for first, enough in ((8, 9), (11, 11)):
        prober = changed(MINI.prober, n=32, first=first, k=4)
        world = World(config=Config(domain="mini").model_copy(update={"prober": prober}))
        judged(world)
        assert [call[3] for call in world.probe.calls] == [enough]


def test_a_rejected_problem_is_not_probed():
    world = World(judge=["rejected"])
    j = judged(world)
    assert (j.accepted, j.failed, j.probe, world.probe.calls) == (False, False, None, [])


def test_an_episode_without_a_problem_is_not_judged():
    world = World(proposer=[Outcome(kind="model_error", reason="turn limit")])
    j = judged(world)
    assert (j.verdict, j.failed, j.episode.outcome.reason) == (None, False, "turn limit")
    assert world.judge.calls == [] and world.stream.retries == 0
    assert world.waiting == {("g-00", 1)}  # there is something to learn from


@pytest.mark.parametrize(
    "world",
    [
        {"proposer": [Failure("no answer", "infra_error"), "ok"]},
        {"proposer": [INFRA, "ok"]},
    ],
    ids=["proposer", "episode"],
)
def test_an_episode_that_infrastructure_failed_is_played_again_under_a_new_number_and_leaves_no_rollout_behind(world):
    world = World(**world)
    j = judged(world)
    assert (j.accepted, j.key) == (True, ("g-00", 2))
    assert [attempt for _, attempt in world.episode.calls] == [1, 2]
    assert world.stream.retries == 1
    assert world.waiting == {("g-00", 2)}
    assert journal(world) == [("issue", 1), ("fail", 1), ("issue", 2), ("judged", 2)]


def test_an_attempt_is_in_the_ledger_before_it_is_sent():
    world = World()
    seen = []
    play = world.episode._function
    world.episode._function = lambda *args: seen.append(journal(world)) or play(*args)
    judged(world)
    assert seen == [[("issue", 1)]]


@pytest.mark.parametrize("pool", ["judge", "prober"])
def test_a_verdict_or_probe_that_was_lost_is_asked_for_again_and_the_episode_stays(pool):
    world = World(**{pool: [Failure("no answer", "infra_error"), "accepted"]})
    j = judged(world)
    assert (j.accepted, j.failed, j.key, j.probe.pass_at_k) == (True, False, ("g-00", 1), 0.25)
    calls = {"judge": len(world.judge.calls), "prober": len(world.probe.calls)}
    assert calls == {"judge": 1, "prober": 1} | {pool: 2} and len(world.episode.calls) == 1
    assert (world.stream.retries, world.waiting) == (1, {("g-00", 1)})


@pytest.mark.parametrize("pool", ["judge", "prober"])
def test_a_problem_under_which_a_judge_or_prober_dies_twice_is_put_aside(pool):
    world = World(**{pool: [Lost("its replica is gone"), Failure("no answer", "infra_error"), Lost("gone again")]})
    j = judged(world)
    assert j.failed and (j.episode.outcome.kind, j.episode.outcome.reason) == ("infra_error", "gone again")
    saved = json.loads(world.run.path("quarantine", "mgpo", "g-00.json").read_text())
    assert saved["deaths"] == ["its replica is gone", "gone again"] and world.stream.quarantined == 1
    assert Episode.model_validate(saved["episode"]).submitted == episode(task()).submitted


def test_one_death_is_no_quarantine():
    world = World(judge=[Lost("gone"), Failure("no answer", "infra_error")])
    assert judged(world).failed and world.stream.quarantined == 0
    assert not world.run.path("quarantine").exists()


def test_what_deaths_of_replicas_cost_is_told_by_pool_and_what_merely_failed_is_no_such_cost():
    world = World(judge=[Lost("gone"), Failure("no answer", "infra_error")], proposer=[INFRA, "ok"])
    judged(world)
    lost = world.whole.now()
    assert lost["lost_s/committee"] > 0 and lost["lost_s/proposer"] == lost["lost_s/prober"] == 0


def test_a_writer_that_never_answers_comes_back_failed_with_the_last_cause():
    config = load(None, ["episode.attempts=3"])
    world = World(proposer=[Failure(f"proposer: gone {i}", "infra_error") for i in (1, 2, 3)], config=config)
    j = judged(world)
    assert (j.failed, j.accepted, j.key) == (True, False, ("g-00", 3))
    assert j.episode.outcome == Outcome(kind="infra_error", reason="proposer: gone 3")
    assert (len(world.episode.calls), world.stream.retries) == (3, 2)


def test_a_committee_that_never_answers_comes_back_failed_with_the_last_cause():
    config = load(None, ["episode.attempts=3"])
    world = World(judge=[Failure(f"committee: gone {i}", "infra_error") for i in (1, 2, 3)], config=config)
    j = judged(world)
    assert (j.failed, j.accepted, j.key) == (True, False, ("g-00", 1))
    assert j.episode.outcome == Outcome(kind="infra_error", reason="committee: gone 3")
    assert (len(world.episode.calls), len(world.judge.calls), world.stream.retries) == (1, 3, 2)
    asyncio.run(world.stream.drop([j]))  # as a caller does with what it does not train on
    assert world.waiting == set()


def test_votes_lost_to_infrastructure_are_asked_for_again_and_the_episode_is_kept():
    """As when the sandbox dies under the verifiers: they abstain, and nothing is wrong with the problem."""
    world = World(judge=["lost", "accepted"])
    j = judged(world)
    assert (j.accepted, j.key, world.stream.retries) == (True, ("g-00", 1), 1)
    assert (len(world.episode.calls), len(world.judge.calls)) == (1, 2)


def test_a_committee_that_cannot_decide_by_itself_is_not_asked_again():
    world = World(judge=["undecided", "accepted"])
    assert judged(world).failed and len(world.judge.calls) == 1
    world = World(judge=["lost"], config=load(None, ["episode.attempts=3"]))
    assert judged(world).failed and len(world.judge.calls) == 3


@pytest.mark.parametrize("pool", ["proposer", "judge"])
def test_the_same_input_is_not_tried_again(pool):
    world = World(**{pool: [Failure("chat format: no such token", "data_error"), "accepted"]})
    j = judged(world)
    assert (j.failed, j.episode.outcome.kind, j.episode.outcome.reason) == (
        True, "data_error", "chat format: no such token",
    )  # fmt: skip
    assert len(world.episode.calls) == 1


def test_what_is_under_way_and_the_accounts_of_it():
    """The first attempt is lost, the second waits for its verdict."""
    world = World(proposer=[INFRA, "ok"])
    before = {"issued": 7, "trained": 4, "filtered": 2, "failed": 1}
    world.whole = Stream(Config(domain="mini"), world, world, world, world, before)
    world.stream = world.whole.step(world.ledger)

    async def scene():
        decided = asyncio.Event()
        judge = world.judge._function

        async def slow(*args):
            await decided.wait()
            return await judge(*args)

        world.judge = Remote(slow)
        judging = asyncio.create_task(world.stream.judged(task(), "mini:solver"))
        while not world.judge.calls:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        now = world.whole.now()
        decided.set()
        return now, await judging

    now, _ = asyncio.run(asyncio.wait_for(scene(), 20))
    assert [now[f"depth/{pool}"] for pool in ("proposer", "committee", "prober")] == [0, 1, 0]
    assert now["oldest_s"] >= 0.02
    accounts = {"issued": 9, "trained": 4, "filtered": 2, "failed": 2, "live": 1}
    assert {name: now[name] for name in accounts} == accounts
    after = world.whole.now()
    assert (after["depth/committee"], after["live"]) == (0, 1)  # judged, its step is not committed
    account = {"issued": 1, "trained": 1, "filtered": 0, "failed": 0}
    on_disk(world, 1)
    world.ledger.commit(account)
    world.whole.committed(world.stream, account)
    assert world.whole.accounts() == {"issued": 9, "trained": 5, "filtered": 2, "failed": 2, "live": 0}
    assert 0.02 <= world.stream.waited_s["committee"] < 10 and set(world.stream.waited_s) >= {"proposer", "prober"}


def on_disk(world, step):
    """The step's directory, which the commit line of its journal names."""
    with world.run.new_step("mgpo", step):
        pass


def test_a_step_that_has_begun_counts_though_nothing_of_it_was_issued_when_the_next_began():
    world = World()
    ledgers = [Ledger(world.run, "mgpo") for _ in range(2)]
    for number, ledger in enumerate(ledgers):
        ledger.begin(number + 2)
    steps = [world.whole.step(ledger) for ledger in ledgers]
    for number, step in enumerate(steps):
        asyncio.run(step.judged(task(f"g-{number}"), "mini:solver"))
    assert world.whole.accounts() == {"issued": 2, "trained": 0, "filtered": 0, "failed": 0, "live": 2}
    account = {"issued": 1, "trained": 1, "filtered": 0, "failed": 0}
    for left, number, step, ledger in zip((1, 0), (2, 3), steps, ledgers, strict=True):
        on_disk(world, number)
        ledger.commit(account)
        world.whole.committed(step, account)
        assert world.whole.accounts() == {"issued": 2, "trained": 2 - left, "filtered": 0, "failed": 0, "live": left}
    assert world.whole._steps == [world.stream]  # of steps that are done nothing is kept


def test_accounts_that_do_not_add_up_show():
    """A step is committed whose account leaves out the end of an attempt; another attempt is not counted as issued."""
    world = World()
    judged(world)
    account = {"issued": 1, "trained": 0, "filtered": 0, "failed": 0}
    on_disk(world, 1)
    world.ledger.commit(account)
    world.whole.committed(world.stream, account)
    assert world.whole.accounts() == {"issued": 1, "trained": 0, "filtered": 0, "failed": 0, "live": 0}
    world.whole.step(world.ledger)
    world.ledger.issue("unseen")
    world.ledger.issue("unseen too")
    assert world.whole.accounts()["live"] == 2


def test_the_proposer_has_as_many_as_it_takes_and_does_not_wait_for_the_judges():
    """Six tasks at a proposer that takes two, before a committee that decides when all are played."""
    world = World(config=load(None, ["proposer.pool.max_ongoing=2"]))
    most = 0

    async def scene():
        nonlocal most
        decided = asyncio.Event()
        play, judge = world.episode._function, world.judge._function
        playing = 0

        async def slow(*args):
            nonlocal playing, most
            playing += 1
            most = max(most, playing)
            await asyncio.sleep(0.005)
            playing -= 1
            return await play(*args)

        async def patient(*args):
            await decided.wait()
            return await judge(*args)

        world.episode, world.judge = Remote(slow), Remote(patient)
        judging = [asyncio.create_task(world.stream.judged(task(f"g-{i:02d}"), "mini:solver")) for i in range(6)]
        while len(world.judge.calls) < 6:
            await asyncio.sleep(0.001)
        decided.set()
        return [await j for j in judging]

    assert all(j.accepted for j in asyncio.run(asyncio.wait_for(scene(), 20)))
    assert most == 2


def test_undecided_is_a_failure_and_not_a_rejection():
    e = episode()
    assert Judged(e, verdict(e, "undecided"), None).failed
    assert not Judged(e, verdict(e, "rejected"), None).failed
    assert not Judged(e, verdict(e, "accepted"), None).failed


def test_a_pool_that_never_answers_is_given_up_at_the_deadline():
    config = load(None, ["committee.timeout_s=0.05", "episode.attempts=2"])
    world = World(config=config)

    async def never(*_):
        await asyncio.sleep(60)

    world.judge = Remote(never)
    j = judged(world)
    assert j.failed and "committee: no answer within 0.05 s" in j.episode.outcome.reason


def test_a_spot_check_has_the_deadline_of_the_judges():
    config = load(None, ["committee.timeout_s=0.05", "committee.spot_checks=2"])
    world = World(config=config)

    async def never(*_):
        await asyncio.sleep(60)

    world.judge_many = Remote(never)
    e = episode()
    checked = world.stream.spot_check([Judged(e, verdict(e, "accepted"), None)], domains.of(config.domain), 0)
    assert asyncio.run(asyncio.wait_for(checked, 20)) == {"spot_checks_failed": 1.0}


def test_a_bug_is_not_taken_for_a_failure():
    with pytest.raises(KeyError):
        judged(World(judge=[KeyError("oops")]))


def test_without_prober():
    world = World(proposer=[INFRA, "ok"])
    world.stream = Stream(Config(domain="mini"), world, world, None, world).step(world.ledger)
    j = asyncio.run(world.stream.judged(task()))
    assert (j.accepted, j.probe, world.probe.calls) == (True, None, [])


def test_judges_whose_model_is_behind_an_endpoint_have_no_deadline_here():
    behind = ModelConfig(endpoint=EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m"))
    strongest = changed(MINI.prober, ladder=(*MINI.prober.ladder, behind))  # which judges where no other model is named
    assert World().whole.judging_s == MINI.committee.timeout_s
    assert World(config=changed(MINI, prober=strongest)).whole.judging_s is None
    own = changed(MINI.committee, judge=MINI.prober.ladder[0])
    assert World(config=changed(MINI, prober=strongest, committee=own)).whole.judging_s == MINI.committee.timeout_s
