"""What it costs to hand things over through Ray's object store: rollouts to a trainer, weights to an engine.

    python -m tests.benchmarks.bench_handover [--rollouts 512] [--tokens 2000] [--weights-mb 256]

Rollouts of a step, put by one process and read by it again, as far as the batch that training begins with:
`arrow` as the loader does, a record batch; `pickle` as a list of records. Weights of one version: `store` is the
trainer's `Shipment` into the weight store and out of it again, all tensors; `memcpy` copies the same bytes once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
import torch

from actors.weights import WeightStore
from pipeline.records import Rollout
from tests.benchmarks.sides import seconds, tell
from tests.trainers.worlds import make_rollout
from trainers.batches import StepBatch
from trainers.wire import Shipment

_WAIT_S = 120.0


def rollouts(count: int, tokens: int) -> dict[str, Callable[[], object]]:
    rng, actions = np.random.default_rng(0), [(stage, 0.0, tokens // 4) for stage in range(4)]
    made = [make_rollout(f"g{n // 8}-{n % 8}", f"g{n // 8}", actions, 1.0, rng) for n in range(count)]
    batch = Rollout.to_arrow(made)
    return {
        "arrow": lambda: StepBatch.from_arrow([ray.get(ray.put(batch), timeout=_WAIT_S)]),
        "pickle": lambda: StepBatch.from_arrow([Rollout.to_arrow(ray.get(ray.put(made), timeout=_WAIT_S))]),
    }


def weights(megabytes: int) -> dict[str, Callable[[], object]]:
    tensors = {f"layer.{n}.weight": torch.randn(1 << 20) for n in range(max(1, megabytes // 4))}
    store = ray.remote(num_cpus=0)(WeightStore).remote()
    version = [0]

    def through() -> None:
        version[0] += 1
        shipment = Shipment(store, version[0], _WAIT_S)
        shipment.begin()
        shipment.send(tensors.items())
        shipment.commit()
        published = ray.get(store.fetch.remote(version[0]), timeout=_WAIT_S)
        for chunk in published.chunks:
            for _, _, raw in ray.get(chunk, timeout=_WAIT_S).values():
                raw.sum()  # every page is read once, as an engine that loads it does

    return {"store": through, "memcpy": lambda: [tensor.clone().numpy().sum() for tensor in tensors.values()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--weights-mb", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=2 << 30)
    took = seconds(rollouts(args.rollouts, args.tokens), args.rounds)
    moved = seconds(weights(args.weights_mb), args.rounds)
    ray.shutdown()
    found = {
        "rollouts by arrow, ms a step": 1000 * took["arrow"],
        "rollouts by pickle, ms a step": 1000 * took["pickle"],
        "arrow's time of pickle's": took["arrow"] / took["pickle"],
        "weights, GB/s": args.weights_mb / 1000 / moved["store"],
        "weights' time in memcpys": moved["store"] / moved["memcpy"],
    }
    tell(found, args.json)


if __name__ == "__main__":
    main()
