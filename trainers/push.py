"""The trainer's half of vLLM's weight transports: after a step the weights go straight to the replicas that live.

Consumes the model, on every rank in lock-step (under ZeRO-3 gathering a parameter is a collective); produces one
version in every replica of the pool that answered when the push began. It waits for the replicas and for the other
ranks, all together at most `timeout_s`; a push that takes longer, or that a replica fails or leaves, raises Failure,
an infra_error: Ray Train then takes the workers down, and with them whatever still hangs in the transport.

Replicas are asked anew before each push, and the rendezvous is made anew when they are not those of the last one.
Whoever misses a push, because it joined, restarted, or died in it, pulls from the weight store.

Run so far with TCP in place of ipc, nccl and sharded_rdt, which need GPUs (tests/tcp_transport.py).

vLLM's trainer engines know one inference deployment, whose workers count on; here each replica is one of its own.
`_placed` gives each its place.
"""

from __future__ import annotations

import base64
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.serve.exceptions import RayServeException
from torch import Tensor, nn
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerInitInfo, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from pipeline.records import Failure
from trainers import adapters
from trainers.ranks import Ranks

JOIN_S = 30.0
"""How long a replica may take to say that it is there."""

Roster = dict[str, int]
"""Replica -> its number of vLLM workers, in the order of their places."""


@dataclass(frozen=True)
class Meeting:
    """What the ranks and the replicas must agree on to meet."""

    rank: int
    roster: Roster
    timeout_s: float


def _ipc(meeting: Meeting) -> TrainerInitInfo:
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    return IPCTrainerInitInfo(packed=True, rank=meeting.rank)  # unpacked, it would hold the whole model once more


def _nccl(meeting: Meeting) -> TrainerInitInfo:
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    with socket.socket() as free:  # of the first rank, which alone opens it; the others' goes unused
        free.bind(("", 0))
        port = free.getsockname()[1]
    workers = sum(meeting.roster.values())
    return NCCLTrainerInitInfo(ray.util.get_node_ip_address(), port, 1 + workers, rank=meeting.rank)


def _sharded_rdt(meeting: Meeting) -> TrainerInitInfo:
    from vllm.distributed.weight_transfer.sharded_rdt_trainer import ShardedRDTTrainerInitInfo

    return ShardedRDTTrainerInitInfo(
        num_consumers=sum(meeting.roster.values()),
        workers_per_replica=max(meeting.roster.values()),
        trainer_actor_namespace=ray.get_runtime_context().namespace,
        stall_timeout_s=meeting.timeout_s,
        rank=meeting.rank,
    )


INIT: dict[str, Callable[[Meeting], TrainerInitInfo]] = {"ipc": _ipc, "nccl": _nccl, "sharded_rdt": _sharded_rdt}
"""Transport -> what vLLM's trainer engine is made of."""


class Source(WeightSource):
    """The policy under its Hugging Face names, in `dtype`, whole on every rank, a parameter at a time."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self._model, self._dtype = model, dtype

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(part.name, self._dtype, part.shape) for part in adapters.parts(self._model)]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for part in adapters.parts(self._model):
            with part.gathered():
                whole = part.whole(self._dtype)  # the gathered one is gone after this block
            yield part.name, whole


class Replicas:
    """vLLM's `VLLMWeightSyncClient` for all replicas of a pool. Each call waits for all that take part."""

    def __init__(self, pool: Any, timeout_s: float):
        self._pool, self._timeout_s = pool, timeout_s
        self.roster: Roster = {}
        self.pushed: tuple[int, int] = (0, 0)
        """Version and serial of the weights on their way."""

    def ask(self) -> Roster:
        """Who answers now. One that does not is starting or dying: it, or its successor, pulls."""
        try:
            answers = self._pool.broadcast("transport", "join").results(timeout_s=JOIN_S, return_exceptions=True)
        except (RayServeException, TimeoutError):
            return {}  # no replica
        return dict(sorted(answer for answer in answers if not isinstance(answer, BaseException)))

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._call("init", _placed(init_info, self.roster))

    def start_weight_update(self) -> None:
        self._call("start", None)

    def update_weights(self, update_info: Any) -> None:
        if "ipc_handles" in update_info:  # memory handles, which reach a vLLM worker as text only
            text = base64.b64encode(pickle.dumps(update_info["ipc_handles"])).decode()
            update_info = update_info | {"ipc_handles": None, "ipc_handles_pickled": text}
        self._call("update", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish", self.pushed)

    def _call(self, step: str, argument: Any) -> None:
        response = self._pool.broadcast("transport", step, argument)
        answers = response.results(timeout_s=self._timeout_s, return_exceptions=True)
        # Only where a replica that takes part is missing: an error of any other does not matter to this update.
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if missing := self.roster.keys() - {answer for answer in answers if isinstance(answer, str)}:
            if errors:
                raise errors[0]
            raise Failure(f"{step}: {len(missing)} of {len(self.roster)} replicas are gone", "infra_error")


def _placed(init_info: dict[str, Any], roster: Roster) -> dict[str, dict[str, Any]]:
    """The worker's init info, for each replica with its place among all."""
    places: dict[str, dict[str, Any]] = {}
    before = 0
    for index, (replica, workers) in enumerate(roster.items()):
        place: dict[str, Any] = {}
        if "rank_offset" in init_info:  # nccl: of its first worker
            place = {"rank_offset": init_info["rank_offset"] + before}
        elif "num_consumers" in init_info:  # sharded_rdt
            place = {"replica_rank": index, "num_replicas": len(roster)}
        places[replica] = init_info | place
        before += workers
    return places


class Push:
    """Make it on every rank; call it on every rank, with the same version. One that has raised is of no more use."""

    def __init__(self, transport: str, model: nn.Module, ranks: Ranks, dtype: torch.dtype, pool: Any, timeout_s: float):
        self._transport, self._ranks, self._timeout_s = transport, ranks, timeout_s
        self._source = Source(model, dtype)
        self._replicas = Replicas(pool, timeout_s)
        self._engine: Any = None

    def __call__(self, version: int, serial: int) -> None:
        """Send the weights as version `version`, of serial `serial` in the weight store (see `actors.weights`)."""
        ended: list[BaseException | None] = []

        def run() -> None:
            try:
                self._send(version, serial)
            except BaseException as e:
                ended.append(e)
            else:
                ended.append(None)

        # In a thread of its own: a collective whose other end is gone cannot be interrupted, only left behind.
        thread = threading.Thread(target=run, name=f"push-{version}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not ended:
            raise Failure(
                f"weights version {version}: {self._transport} did not bring it to the replicas "
                f"within {self._timeout_s:g} s",
                "infra_error",
            )
        if (e := ended[0]) is not None:
            cause = getattr(e, "cause", e)  # Ray wraps what a replica raised
            line = next((part.strip() for part in str(cause).splitlines() if part.strip()), type(cause).__name__)
            raise Failure(f"weights version {version}: {self._transport} failed: {line}", "infra_error") from e

    def _send(self, version: int, serial: int) -> None:
        if self._ranks.device.type == "cuda":
            torch.cuda.set_device(self._ranks.device)  # each thread has its own
        roster = self._ranks.first(self._replicas.ask)
        if not roster:
            return
        self._replicas.pushed = (version, serial)
        if roster != self._replicas.roster:
            if self._engine is not None:
                self._engine.shutdown()
            self._replicas.roster = roster
            self._engine = WeightTransferTrainerFactory.trainer_init(
                INIT[self._transport](Meeting(self._ranks.rank, roster, self._timeout_s)),
                client=self._replicas,
                source=self._source,
            )
        self._engine.send_weights()
