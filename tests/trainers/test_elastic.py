"""An elastic trainer on nodes that go: told beforehand, it stores each step, and goes on with the worker that is left
from the step at which its node went, to weights that two workers would have made; when the node is back, so are two
workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from safetensors.torch import load_file

from pipeline.records import Rollout
from tests.trainers.test_loop import mgpo_steps, spec_of
from tests.trainers.worlds import save_tiny_qwen3
from trainers.launch import Launcher
from trainers.loader import StepWork

pytestmark = [pytest.mark.engine, pytest.mark.slow]

STEPS = 7
GONE, BACK = 3, 5
"""Steps that wait until the second node is about to go, and until it is back."""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head, and two nodes that trainers may be on."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, resources={"trainer": 1}, object_store_memory=100 << 20)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@ray.remote(num_cpus=0, max_concurrency=20)
class Gate:
    """A loader that keeps whoever asks for some steps, until they are let go."""

    def __init__(self, steps: dict[int, list[Rollout]], kept: set[int]):
        self.steps, self.kept = steps, kept
        self.asked: set[tuple[int, int]] = set()
        """Steps, and the number of workers that asked for them."""
        self.done: list[tuple[int, dict[str, float]]] = []

    def next_batch(self, rank: int, world: int, step: int) -> StepWork | None:
        self.asked.add((step, world))
        while step in self.kept:
            time.sleep(0.05)
        if step not in self.steps:
            return None
        groups = sorted({r.group_id for r in self.steps[step]})
        mine = [r for r in self.steps[step] if groups.index(r.group_id) % world == rank]
        return StepWork(step=step, batches=[ray.put(Rollout.to_arrow(mine))] if mine else [])

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        self.done.append((step, metrics))

    def let_go(self, step: int) -> None:
        self.kept.discard(step)

    def seen(self) -> tuple[set[tuple[int, int]], list[tuple[int, dict[str, float]]]]:
        return self.asked, self.done


def on_head(nodes: Cluster, kept: set[int]) -> Any:
    """What belongs to the driver stays with it."""
    head = NodeAffinitySchedulingStrategy(nodes.head_node.node_id, soft=False)
    return Gate.options(scheduling_strategy=head).remote(mgpo_steps(STEPS), kept)


def drain(node_id: str, seconds: float) -> None:
    """What the agent of a spot node tells Ray's head."""
    client: Any = ray._private.worker.global_worker.gcs_client
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node_id, reason, "spot", int((time.time() + seconds) * 1000))
    assert accepted, why


def until(condition: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "has not come"
        time.sleep(0.2)


def test_training_goes_on_with_fewer_workers_and_with_all_again(nodes: Cluster, tmp_path: Path) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    gate = on_head(nodes, {GONE, BACK})
    spec = spec_of(
        base, tmp_path / "runs", "elastic", workers=2, min_workers=1, zero_stage=2, resources={"trainer": 1},
        cpus_per_worker=1.0, checkpoint_every=100, publish_every=None, resize_s=1.0, max_failures=0,
    )  # fmt: skip
    summaries: list[Any] = []
    thread = threading.Thread(target=lambda: summaries.append(Launcher().train(spec, gate)), daemon=True)
    thread.start()
    until(lambda: (GONE, 2) in ray.get(gate.seen.remote())[0])
    head = nodes.head_node.node_id
    going = max((n for n in nodes.list_all_nodes() if n.node_id != head), key=lambda n: n.node_id)
    drain(going.node_id, 20)
    time.sleep(7)  # Ray Train looks twice a second, a worker every five
    ray.get(gate.let_go.remote(GONE))
    until(lambda: any(step == GONE for step, _ in ray.get(gate.seen.remote())[1]))
    nodes.remove_node(going, allow_graceful=False)
    until(lambda: any(s == GONE + 1 and m["workers"] == 1 for s, m in ray.get(gate.seen.remote())[1]))
    nodes.add_node(num_cpus=1, resources={"trainer": 1}, object_store_memory=100 << 20)
    until(lambda: (BACK, 2) in ray.get(gate.seen.remote())[0])
    ray.get(gate.let_go.remote(BACK))
    thread.join(240)
    assert summaries and summaries[0].step == STEPS
    done = ray.get(gate.seen.remote())[1]
    first = {}
    for step, metrics in done:
        first.setdefault(step, metrics)
    assert [first[step]["workers"] for step in range(1, GONE + 2)] == [2, 2, 2, 1]
    assert first[GONE]["checkpoint"] == 1 and first[GONE - 1]["checkpoint"] == 0, "stored because of the notice"
    assert [step for step, _ in done].count(GONE) == 1, "nothing was trained twice"
    assert done[-1][1]["workers"] == 2

    ray.shutdown()
    ray.init(address=nodes.address, log_to_driver=False)
    free = on_head(nodes, set())
    alone = Launcher().train(spec.model_copy(update={"name": "alone", "workers": 1, "min_workers": None}), free)
    ours, expected = (load_file(s.checkpoint / "model.safetensors") for s in (summaries[0], alone))
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=2e-3, msg=name)
