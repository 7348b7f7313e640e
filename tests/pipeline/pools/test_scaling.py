"""When a pool grows and shrinks, and who gets the GPUs that a run may hold: the policy as Serve's controller runs it,
with its delays and bounds, on a clock of the tests' own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from pipeline.config import PoolConfig
from pipeline.config.loading import load
from pipeline.pools import gpus, scaling


@dataclass
class Pool:
    """What Serve's controller does with a pool, a replica being there at once."""

    config: PoolConfig
    name: str = "p"
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    limit: int | None = None
    beside: tuple[dict[str, float], ...] = ()

    def __post_init__(self) -> None:
        self.told: AutoscalingConfig = scaling.autoscaling(self.config, self.name, self.run, self.limit, self.beside)
        self.policy = _apply_autoscaling_config(_resolve_policy_callable(self.told.policy))
        self.state: dict[str, object] = {}
        self.replicas, self.now = self.config.min_replicas, 1000.0

    def tick(self, ongoing: float, queued: float = 0.0, seconds: float = 1.0) -> int:
        ctx = AutoscalingContext(
            None, self.name, None, self.replicas, self.replicas, [], ongoing + queued, queued, None, None,
            self.told.min_replicas, self.told.max_replicas, self.state, None, None, self.now, self.told,
        )  # fmt: skip
        decided, self.state = self.policy(ctx)
        self.replicas = max(self.told.min_replicas, min(self.told.max_replicas, decided))
        self.now += seconds
        return self.replicas


WAITS = PoolConfig(max_replicas=8, max_ongoing=10, max_wait_s=20, downscale_delay_s=0)


def test_a_pool_grows_once_calls_have_waited_so_long_by_as_many_as_all_calls_fill():
    pool = Pool(WAITS)
    assert {pool.tick(10, 0) for _ in range(100)} == {1}, "however busy it is"
    assert [pool.tick(10, 25) for _ in range(21)] == [1] * 20 + [4]
    assert pool.tick(35, 0) == 4


def test_a_queue_that_was_empty_for_a_moment_is_young_again():
    pool = Pool(WAITS)
    assert {pool.tick(10, 5) for _ in range(19)} == {1}
    assert pool.tick(10, 0) == 1
    assert {pool.tick(10, 5) for _ in range(19)} == {1}
    assert [pool.tick(10, 5) for _ in range(2)] == [1, 2]


def test_it_shrinks_to_what_all_calls_need_after_its_delay_and_to_nothing_where_it_may():
    pool = Pool(PoolConfig(min_replicas=0, max_replicas=8, max_ongoing=10, max_wait_s=20, downscale_delay_s=0))
    assert pool.tick(0, 7) == 1, "the first replica of an empty pool waits for nothing"
    pool.replicas = 6
    assert pool.tick(31) == 4 and pool.tick(1) == 1 and pool.tick(0) == 0


def test_without_a_wait_or_a_limit_serves_own_policy_decides():
    load_alone = Pool(PoolConfig(max_replicas=4, num_gpus=1))
    assert load_alone.told.policy.is_default_policy_function()
    assert not Pool(PoolConfig(max_replicas=4, num_gpus=1), limit=4).told.policy.is_default_policy_function()
    on_cpus = Pool(PoolConfig(max_replicas=4), limit=4)
    assert on_cpus.told.policy.is_default_policy_function(), "the limit is on GPUs"


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 10))
def test_by_load_a_limit_that_is_wide_changes_nothing(calls: int, most: int, replicas: int):
    config = PoolConfig(max_replicas=10, max_ongoing=most, num_gpus=1, upscale_delay_s=0, downscale_delay_s=0)
    own, limited = Pool(config), Pool(config, limit=10_000)
    own.replicas = limited.replicas = replicas
    assert own.tick(calls) == limited.tick(calls)


GPU = {"num_gpus": 1.0, "max_ongoing": 1, "target_ongoing": 1.0, "upscale_delay_s": 0, "downscale_delay_s": 0}


def test_pools_share_the_gpus_of_a_run_and_what_one_gives_back_another_gets():
    run = uuid.uuid4().hex
    writes = Pool(PoolConfig(max_replicas=8, **GPU), "proposer", run, 8, ({"solver-0": 2.0, "trainer": 2.0},))
    probes = Pool(PoolConfig(max_replicas=4, **GPU | {"num_gpus": 2.0}), "solver-0", run, 8,
                  ({"proposer": 1.0, "trainer": 2.0},))  # fmt: skip
    wanted = [(8, 0), (8, 9), (2, 9), (8, 9), (8, 1)]
    got = [(4, 1), (4, 1), (2, 2), (2, 2), (4, 1)]  # of 8 less the trainer's 2; the prober's one replica has its 2 kept
    for (first, second), expected in zip(wanted, got, strict=True):
        for _ in range(3):
            now = writes.tick(first), probes.tick(second)
            assert writes.replicas + 2 * probes.replicas + 2 <= 8
        assert now == expected, (first, second)


def test_a_pool_that_is_gone_leaves_what_it_held():
    run = uuid.uuid4().hex
    first, second = (Pool(PoolConfig(max_replicas=8, **GPU), name, run, 8, ({},)) for name in ("proposer", "student"))
    assert first.tick(8) == 8 and second.tick(8) == 1, "one it has, whatever the limit"
    second.now += 60
    assert second.tick(8) == 8


def test_runs_do_not_share_a_limit():
    pools = [Pool(PoolConfig(max_replicas=8, **GPU), limit=8) for _ in range(2)]
    assert [pool.tick(8) for pool in pools] == [8, 8]


@given(st.data())
def test_never_more_than_the_limit_is_held_whatever_comes(data: st.DataObject):
    names, limit, run = ["a", "b", "c"], data.draw(st.integers(6, 12)), uuid.uuid4().hex
    each = {name: float(data.draw(st.sampled_from([0.5, 1, 2]))) for name in names}
    floors = dict(each)
    pools = [
        Pool(PoolConfig(max_replicas=9, **GPU | {"num_gpus": each[name]}), name, run, limit,
             ({other: floors[other] for other in names if other != name},))
        for name in names
    ]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 12))):
        for pool in pools:
            pool.tick(data.draw(st.integers(0, 12)))
            assert sum(each[p.name] * p.replicas for p in pools) <= limit


def test_what_others_have_at_the_very_least_is_told_for_each_stage():
    config = load(None, [
        "proposer.pool={num_gpus: 1, max_replicas: 3}", "prober.ladder=[{path: m, pool: {num_gpus: 2}}, {path: n}]",
        "trainer.use_gpu=true", "trainer.workers=4", "solve.base.pool={num_gpus: 1}",
    ])  # fmt: skip
    assert gpus.beside(config, "proposer") == [{"trainer": 4.0, "solver-0": 2.0}, {"solver-0": 2.0}]
    assert gpus.beside(config, "solver-0") == [
        {"trainer": 4.0},  # sft
        {"trainer": 4.0, "proposer": 1.0},
        {"proposer": 1.0},  # synthesize
    ]
    assert gpus.beside(config, "student") == [{"trainer": 4.0}, {}]


@pytest.mark.parametrize("field", ["target_ongoing", "max_wait_s"])
def test_how_a_pool_grows_is_said_once(field: str):
    PoolConfig(**{field: 3})
    with pytest.raises(ValueError, match=r"target_ongoing \(3\) and max_wait_s \(3\).*expected one of the two"):
        PoolConfig(target_ongoing=3, max_wait_s=3)
