"""Committee and prober as the Serve replicas that they are in a run, with real handles between them."""

from __future__ import annotations

import os

import pytest

from actors.committee import Committee
from actors.prober import Prober
from actors.sandbox_pool import SandboxPool
from pipeline import config
from pipeline.records import Problem
from tests.actors.pools import Boxes

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
    committee = deploy("committee", Committee, config=config.Committee(), sandbox=sandbox, solver=solver)
    prober = deploy("prober", Prober, config=config.Prober(), solvers={"small": solver}, sandbox=sandbox)
    yield committee, prober
    serve.shutdown()
    ray.shutdown()


def test_the_committee_judges_through_its_pools(pools):
    committee, _ = pools
    good, bad = committee.judge_many.remote([(GOOD, None, ("add",)), (BAD, None, ("add",))]).result(timeout_s=60)
    assert good.accepted and not bad.accepted
    assert [v.valid for v in good.votes][:2] == [True, True] and [v.answer for v in bad.votes][:2] == ["51", "51"]
    one = committee.judge.remote(GOOD, None, ("gcd",)).result(timeout_s=60)
    assert one.decision == "rejected" and one.flags == ("off_task",)


def test_the_prober_probes_through_its_pools(pools):
    _, prober = pools
    plain = prober.probe.remote(GOOD, "small", 1).result(timeout_s=60)
    assert (plain.n, plain.correct, plain.unknown) == (8, 2, 0)
    formula = prober.probe.remote(ROOTED, "small", 1).result(timeout_s=60)
    assert (formula.correct, formula.unknown) == (2, 0)
