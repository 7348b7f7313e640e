"""Committee and prober as the Serve replicas that they are in a run, with real handles between them."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from actors.calls import SolverPool, within
from actors.committee import Committee
from actors.prober import Prober
from actors.sandbox_pool import SandboxPool
from pipeline.records import Failure, Problem
from tests.actors.pools import Boxes
from tests.mini import MINI

pytestmark = pytest.mark.engine

GOOD = Problem.make("Mia has 34 stones. Mia finds 17 more. How many stones does Mia have now?", "51")
BAD = Problem.make(GOOD.question, "50")
ROOTED = Problem.make("What is the square root of 8?", r"2\sqrt{2}")


@pytest.fixture(scope="module")
def pools():
    import ray
    from ray import serve

    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(proxy_location="Disabled")

    def deploy(name, cls, **arguments):
        deployment = serve.deployment(cls, name=name).options(
            ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": {"PYTHONPATH": os.getcwd()}}},
            max_ongoing_requests=64,
        )
        return serve.run(deployment.bind(**arguments), name=name, route_prefix=None)

    sandbox = deploy("sandbox", SandboxPool, slots=1)
    solver = deploy("solver", Boxes, answers=("51", r"\sqrt{8}", None, "50"))
    committee = deploy("committee", Committee, config=MINI.committee, sandbox=sandbox, solver=SolverPool(solver))
    prober = deploy("prober", Prober, config=MINI.prober, solvers={"small": SolverPool(solver)}, sandbox=sandbox)
    yield committee, prober, deploy
    serve.shutdown()
    ray.shutdown()


class Slow:
    """Work that takes for ever, and what became of it."""

    def __init__(self):
        self.told_of = []

    async def work(self):
        self.told_of.append("begun")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.told_of.append("cancelled")
            raise

    async def told(self):
        return self.told_of


def test_what_nobody_waits_for_any_more_ends_in_its_replica(pools):
    _, _, deploy = pools
    slow = deploy("slow", Slow)

    async def until(n):
        end = time.monotonic() + 20
        while len(told := await slow.told.remote()) < n and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return told

    async def scene():
        work = slow.work.remote()
        assert await until(1) == ["begun"]  # what is cancelled before it begins leaves nothing to be told of
        with pytest.raises(Failure, match=r"^slow: no answer within 0.5 s$"):
            await within(work, "slow", 0.5)
        return await until(2)

    assert asyncio.run(scene()) == ["begun", "cancelled"]


def test_the_committee_judges_through_its_pools(pools):
    committee, _, _ = pools
    good, bad = committee.judge_many.remote([(GOOD, None, ("add",)), (BAD, None, ("add",))]).result(timeout_s=60)
    assert good.accepted and not bad.accepted
    assert [v.valid for v in good.votes][:2] == [True, True] and [v.answer for v in bad.votes][:2] == ["51", "51"]
    one = committee.judge.remote(GOOD, None, ("gcd",)).result(timeout_s=60)
    assert one.decision == "rejected" and one.flags == ("off_task",)


def test_the_prober_probes_through_its_pools(pools):
    _, prober, _ = pools
    plain = prober.probe.remote(GOOD, "small", 1).result(timeout_s=60)
    assert (plain.n, plain.correct, plain.unknown) == (16, 4, 0)  # nothing shows that it is easy
    formula = prober.probe.remote(ROOTED, "small", 1).result(timeout_s=60)
    assert (formula.correct, formula.unknown) == (4, 0)
