"""Replicas as Serve runs them: proposer and solver beside a weight store, a rollout sink and the real sandbox pool."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray import serve

from actors.chat import ChatFormat
from actors.episode import run_episode
from actors.policies import TextPolicy
from actors.proposer import Proposer
from actors.replica import PolicyReplica
from actors.sandbox_pool import SandboxPool
from actors.solver import Solver
from actors.tools import SandboxTools
from actors.weights import WeightStore
from pipeline import config
from pipeline.records import ANSWER_KINDS, Failure, Rollout, Skill, Task
from tests.actors.test_engine import assert_close, logprobs
from tests.actors.tiny_model import make_model, wire
from tests.mini import MINI, changed

pytestmark = pytest.mark.engine

ENGINE = changed(MINI.proposer.engine, max_model_len=1024, dtype="float32", kv_cache_gb=0.25)
LIMITS = changed(MINI.episode.limits, max_turns=3, max_tokens=1000, max_turn_tokens=40, wall_s=60)


def skill(name: str, script: str) -> Skill:
    return Skill(
        id=name, category="maths", intent=f"about {name}", method="", difficulty="", tool_hint="", script=script,
        score=1.0, source="test",
    )  # fmt: skip


SKILLS = (
    skill("add", "def add(x, a):\n    return x + a"),
    skill("half", "def half(x):\n    if x % 2:\n        raise ValueError('half: odd')\n    return x // 2"),
)


def task(name: str, seed: int) -> Task:
    return Task(id=name, group_id="g", category="maths", skills=SKILLS, seed=seed)


class World:
    """Everything deployed. The store holds version 1 before a replica starts, so model directory and weights differ."""

    def __init__(self, folder):
        self.folder = folder / "model"
        make_model(self.folder)
        self.models = {v: make_model(folder / f"v{v}", seed=v) for v in (1, 2)}
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        serve.start(proxy_location="Disabled")
        self.store = ray.remote(WeightStore).options(num_cpus=0, max_concurrency=1000).remote()
        self.sink = _sink()
        self.publish(1)
        self.sandbox = self._deploy("sandbox", SandboxPool, slots=1, minimum="unsafe")
        common = {"model_dir": str(self.folder), "engine": ENGINE, "seed": 0, "weights": self.store, "sink": self.sink}
        episode = config.EpisodeConfig(limits=LIMITS, sampling=config.SamplingConfig())
        serve.run_many(
            [
                self._target(
                    "proposer",
                    Proposer,
                    **common,
                    sandbox=self.sandbox,
                    episode=episode,
                    system_prompt="You write.",
                    kind_of=_maths,
                ),
                self._target("solver", Solver, **common, prompts=dict.fromkeys(ANSWER_KINDS, "Solve.")),
            ]
        )
        self.proposer = serve.get_deployment_handle("proposer", app_name="proposer")
        self.solver = serve.get_deployment_handle("solver", app_name="solver")

    def _target(self, name: str, cls: type, **arguments):
        actor = {"num_cpus": 0.1, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
        deployment = serve.deployment(cls, name=name).options(max_ongoing_requests=64, ray_actor_options=actor)
        return serve.RunTarget(target=deployment.bind(**arguments), name=name, route_prefix=None)

    def _deploy(self, name: str, cls: type, **arguments):
        serve.run_many([self._target(name, cls, **arguments)])
        return serve.get_deployment_handle(name, app_name=name)

    def publish(self, version: int) -> None:
        ray.get(self.store.begin.remote(version))
        for chunk in wire(self.models[version]):
            ray.get(self.store.put_chunk.remote(version, chunk))
        ray.get(self.store.commit.remote(version))

    def rollout(self, episode_id: str, attempt: int) -> Rollout | None:
        batch = ray.get(self.sink.get.remote(episode_id, attempt))
        return None if batch is None else Rollout.from_arrow(batch)[0]

    def play(self, tasks: list[Task], attempt: int = 1):
        async def play():
            return await asyncio.wait_for(
                asyncio.gather(*(self.proposer.episode.remote(t, attempt) for t in tasks)), 90
            )

        return asyncio.run(play())


def _sink():
    class Sink:
        def __init__(self) -> None:
            self.batches: dict = {}

        def put(self, episode_id, attempt, batch) -> None:
            self.batches[episode_id, attempt] = batch

        def get(self, episode_id, attempt):
            return self.batches.get((episode_id, attempt))

    return ray.remote(Sink).options(num_cpus=0).remote()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    yield World(tmp_path_factory.mktemp("world"))
    serve.shutdown()
    ray.shutdown()


def check_tokens(world: World, rollout: Rollout, version: int) -> None:
    """The recorded log-probabilities are those of that version's model, computed by transformers."""
    mask = np.array(rollout.loss_mask, bool)
    assert mask.any() and set(np.array(rollout.versions)[mask]) == {version}
    by_model = logprobs(world.models[version], list(rollout.token_ids[:1]), list(rollout.token_ids[1:]))
    assert_close(np.array(rollout.logprobs)[mask], by_model[mask[1:]])


def _maths(question: str) -> str:
    return "math"


def test_episodes_longer_than_the_model_s_context_are_refused_at_the_start(monkeypatch):
    """Where the config leaves the context to the model, only its engine knows it."""

    class Started(Proposer):
        async def _start(self):
            self._engine.max_model_len = 1024

    def bare(replica, *_):
        replica._engine = SimpleNamespace(stop=lambda: None)

    monkeypatch.setattr(PolicyReplica, "__init__", bare)
    episode = config.EpisodeConfig(limits=changed(MINI.episode.limits, max_tokens=2000))
    with pytest.raises(Failure, match=r"max_tokens \(2000\) exceeds the context of nowhere, 1024 tokens"):
        asyncio.run(Started.__new__(Started).__init__("nowhere", ENGINE, episode, 0, None, "", _maths))


def test_a_replica_starts_with_the_newest_weights_and_ships_what_it_sampled(world):
    tasks = [task(f"t{i}", seed=i) for i in range(8)]
    episodes = world.play(tasks)
    assert [e.id for e in episodes] == [t.id for t in tasks]
    chat = ChatFormat(world.folder)
    for episode in episodes:
        assert episode.policy_versions == (1,) and episode.turns and episode.outcome.kind in ("ok", "model_error")
        rollout = world.rollout(episode.id, 1)
        assert len(rollout.action_stage) == len(episode.turns)
        for turn in episode.turns:
            assert chat.decode(rollout.token_ids[turn.start : turn.end]) == turn.text
        check_tokens(world, rollout, 1)
    assert len({e.turns[0].text for e in episodes}) > 1


def test_a_publication_is_pulled_before_the_next_episode_without_being_told(world):
    world.publish(2)
    (episode,) = world.play([task("after", seed=1)])
    assert episode.policy_versions == (2,)
    check_tokens(world, world.rollout("after", 1), 2)
    for asked in (0, 1, 2):  # never back to an older one that the store still has
        assert world.proposer.sync.remote(asked).result(timeout_s=30) == 2
    stats = world.proposer.stats.remote().result(timeout_s=30)
    assert (stats["version"], stats["updates"], stats["running"]) == (2, 2, 0)
    assert stats["tokens_per_s"] > 0
    with pytest.raises(Failure, match="version 9: the store's newest is 2"):
        world.proposer.sync.remote(9).result(timeout_s=30)


def test_the_solver_answers_and_its_samples_are_rollouts(world):
    sampling = config.SamplingConfig(max_tokens=30)
    ask = {"question": "1+1?", "n": 3, "sampling": sampling, "seed": 5}
    texts = world.solver.answers.remote(**ask).result(timeout_s=60)
    samples = world.solver.sample.remote(group_id="q1", **ask).result(timeout_s=60)
    assert len(set(texts)) == 3 and [s.episode_id for s in samples] == ["q1/0", "q1/1", "q1/2"]
    assert [s.text for s in samples] == texts  # the same seed
    for s in samples:
        rollout = world.rollout(s.episode_id, s.attempt)
        assert (rollout.group_id, sum(rollout.loss_mask), len(rollout.action_kind)) == ("q1", s.tokens, 1)
        check_tokens(world, rollout, ray.get(world.store.latest.remote()))
    many = world.solver.answers_many.remote(["1+1?", "2+2?"], 2, sampling, 0).result(timeout_s=60)
    assert [len(m) for m in many] == [2, 2] and len({t for m in many for t in m}) == 4


def test_an_episode_in_the_real_sandbox(world):
    """Scripts of active skills are there, variables stay, a dropped skill's script is gone, a failure is shown."""

    def run(code: str) -> str:
        return "## Check\n<tool_call>\n" + json.dumps({"name": "exec", "arguments": {"code": code}}) + "\n</tool_call>"

    edit = '## Refine\n<tool_call>\n{"name": "edit", "arguments": {"drop": ["half"]}}\n</tool_call>'
    submit = '<tool_call>\n{"name": "submit", "arguments": {"question": "Q?", "answer": "3"}}\n</tool_call>'
    turns = [
        run("x = add(1, 4)\nprint(x)"),
        run("print(half(x))"),
        edit,
        run("print(add(x, 1))"),
        run("half(4)"),
        submit,
    ]

    async def complete(_messages):
        return turns.pop(0)

    async def play():
        chat = ChatFormat(world.folder)
        limits = changed(MINI.episode.limits, max_tokens=4000, max_turn_tokens=500)
        tools = SandboxTools(world.sandbox)
        return await run_episode(task("s", 0), 1, TextPolicy(complete, chat), tools, chat, "", limits, time.monotonic)

    episode, _ = asyncio.run(play())
    assert episode.outcome.kind == "ok" and episode.active == ("add",)
    results = [(t.tool.status, t.tool.content) for t in episode.turns if t.action == "exec"]
    assert results[0] == ("ok", "5")
    assert results[1][0] == "error" and "half: odd" in results[1][1]
    assert results[2] == ("ok", "6")
    assert results[3][0] == "error" and "half" in results[3][1] and "NameError" in results[3][1]
