"""A transport whose trainer pushes, through the real train loop, Serve, replicas and engines; what carries the bytes is
TCP, as there is no GPU (see tests/tcp_transport.py)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import serve

from actors.engine import Update
from actors.sample import Sample
from actors.solver import Solver
from actors.weights import WeightStore
from pipeline import config
from pipeline.records import Failure
from tests.actors.test_engine import MEAN, logprobs
from tests.actors.tiny_model import make_model
from tests.mini import MINI, changed
from tests.tcp_plugin import install
from tests.trainers.test_loop import MemoryLoader, mgpo_steps, spec_of
from trainers.launch import Launcher

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROMPTS = [[i, i + 1, i + 2] for i in range(8)]
GREEDY = config.SamplingConfig(temperature=0, max_tokens=30)
START_S = 180


class Replica(Solver):
    async def sampled(self) -> tuple[str, list[Sample], list[Update]]:
        await self._catch_up()
        samples = [(await self._engine.generate(prompt, GREEDY, seed=0))[0] for prompt in PROMPTS]
        return self._id, samples, self._engine.updates()


class Pool:
    """The pool's handle; the process that it reaches knows the transport."""

    def __init__(self, handle: Any, hang: str):
        self.handle, self.hang = handle, hang

    def __setstate__(self, state: dict[str, Any]) -> None:
        from tests.tcp_transport import register_trainer

        self.__dict__ = state
        register_trainer(self.hang)

    def broadcast(self, *arguments: Any) -> Any:
        return self.handle.broadcast(*arguments)


def ask(handle: Any, replicas: int = 2, other_than: Any = ()) -> dict[str, tuple[list[Sample], list[Update]]]:
    """What each replica samples, once there are so many that are not of those before."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            told = {name: rest for name, *rest in handle.broadcast("sampled").results(timeout_s=60)}
        except Exception:  # one is being replaced
            told = {}
        if len(told) == replicas and not told.keys() & set(other_than):
            return told
        time.sleep(1)
    raise AssertionError(f"no {replicas} new replicas within {START_S} s")


def apart(checkpoint: Path, samples: list[Sample]) -> float:
    """Nats a token, in the mean, between the engine's log-probabilities and those of `checkpoint` in transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(torch.bfloat16).float().eval()
    theirs = [logprobs(model, p, s.token_ids) for p, s in zip(PROMPTS, samples, strict=True)]
    return float(np.abs(np.concatenate(theirs) - np.concatenate([s.logprobs for s in samples])).mean())


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    plugin = str(install(tmp_path / "plugin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((plugin, os.getcwd(), os.environ.get("PYTHONPATH", ""))))
    ray.init(address="local", include_dashboard=False, num_cpus=4, object_store_memory=200 << 20, log_to_driver=False)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.mark.timeout(900)
def test_a_push_is_what_a_pull_would_be_and_one_that_breaks_off_never_serves(cluster, tmp_path):
    base, hang = tmp_path / "base", tmp_path / "hang"
    make_model(base)
    store = ray.remote(WeightStore).options(num_cpus=0, max_concurrency=1000).remote()
    engine = changed(MINI.proposer.engine, max_model_len=256, dtype="float32", kv_cache_gb=0.1)
    deployment = serve.deployment(Replica).options(
        num_replicas=2, health_check_period_s=2, ray_actor_options={"num_cpus": 0.1}
    )
    arguments = (str(base), engine.model_copy(update={"weight_transport": "tcp"}), 0, "Solve.", store)
    handle = serve.run(deployment.bind(*arguments), name="push", route_prefix=None)
    pool = Pool(handle, str(hang))
    spec = spec_of(
        base, tmp_path, "run", lr=1e-2, workers=2, zero_stage=3, checkpoint_every=1, publish_dtype="bfloat16",
        transport="tcp", keep_checkpoints=9,
    )  # fmt: skip

    Launcher().train(spec, MemoryLoader.remote(mgpo_steps(2)), store, pool)
    handle.broadcast("sync", 2).results(timeout_s=60)
    pushed = ask(handle)
    for samples, updates in pushed.values():
        assert {v for s in samples for v in s.versions} == {2}
        assert [(u.version, u.bytes) for u in updates] == [(1, 0), (2, 0)]  # pushed; nothing was pulled
        assert apart(tmp_path / "run" / "step-000002", samples) < MEAN
        assert apart(base, samples) > 4 * MEAN

    hang.touch()
    with pytest.raises(
        Failure, match=r"weights version 3: tcp did not bring it to the replicas within 20 s$"
    ) as caught:
        patient = spec.model_copy(update={"step_timeout_s": 20, "max_failures": 0})
        Launcher().train(patient, MemoryLoader.remote(mgpo_steps(3)), store, pool)
    assert caught.value.kind == "infra_error" and "\n" not in str(caught.value)
    assert ray.get(store.latest.remote()) == 2
    hang.unlink()
    half = handle.broadcast("sampled").results
    with pytest.raises((TimeoutError, Failure)):  # generation is held, or has ended with the update that broke off
        half(timeout_s=5)
    handle.broadcast("transport", "join").results(timeout_s=60, return_exceptions=True)  # as the next trainer does

    pulled = ask(handle, other_than=pushed)
    for samples, updates in pulled.values():
        assert [u.version for u in updates] == [2] and updates[0].bytes > 0
        for same, _ in pushed.values():
            for s, t in zip(samples, same, strict=True):
                assert s.token_ids == t.token_ids
                np.testing.assert_allclose(s.logprobs, t.logprobs, atol=1e-5)

    Launcher().train(spec, MemoryLoader.remote(mgpo_steps(4)), store, pool)
    for samples, updates in ask(handle).values():
        assert [(u.version, bool(u.bytes)) for u in updates] == [(2, True), (3, False), (4, False)]
        assert apart(tmp_path / "run" / "step-000004", samples) < MEAN
        assert apart(tmp_path / "run" / "step-000002", samples) > 2 * MEAN
