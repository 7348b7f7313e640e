"""The trainer's half of vLLM's transports, as far as it goes without a GPU: what vLLM's own classes are given."""

from __future__ import annotations

import copy
import os
import threading
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import ray
import torch
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError
from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory, WeightTransferTrainerFactory

from actors.engine import _environment
from pipeline.records import Failure
from tests.mini import MINI, changed
from tests.trainers.worlds import tiny_qwen3
from trainers.push import INIT, Meeting, Push, Replicas, Source
from trainers.ranks import Ranks

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


class Pool:
    """Replicas behind a Serve handle: name -> workers. Remembers what they were told."""

    def __init__(self, **workers: int):
        self.workers = workers
        self.told: list[tuple[str, Any]] = []
        self.absent: set[str] = set()
        """Fail what they are asked."""
        self.strangers: set[str] = set()
        """Take no part."""

    def broadcast(self, method: str, step: str, argument: Any = None) -> Any:
        assert method == "transport"
        self.told.append((step, copy.deepcopy(argument)))

        def results(timeout_s: float, return_exceptions: bool) -> list[Any]:
            assert return_exceptions
            answers: list[Any] = []
            for name, workers in reversed(self.workers.items()):
                if name in self.absent:
                    answers.append(ray.exceptions.ActorDiedError())
                elif step == "join":
                    answers.append((name, workers))
                else:
                    answers.append(None if name in self.strangers else name)
            return answers

        return SimpleNamespace(results=results)


class Engine:
    """vLLM's trainer engine, without a wire."""

    made: ClassVar[list[Engine]] = []
    on_send: Any = None

    @classmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any = None) -> Engine:
        engine = cls()
        engine.client, engine.source, engine.ended = client, source, False
        client.init_weight_transfer_engine({"rank_offset": 1})
        cls.made.append(engine)
        return engine

    def send_weights(self) -> None:
        self.client.start_weight_update()
        if Engine.on_send:
            Engine.on_send()
        self.client.update_weights({"names": [name for name, _ in self.source]})
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def wireless(monkeypatch):
    monkeypatch.setitem(INIT, "none", lambda meeting: SimpleNamespace(backend="none"))
    monkeypatch.setitem(WeightTransferTrainerFactory._registry, "none", lambda: Engine)
    monkeypatch.setattr(Engine, "made", [])
    monkeypatch.setattr(Engine, "on_send", None)


@pytest.mark.parametrize("transport", ["ipc", "nccl", "sharded_rdt"])
def test_vllms_trainer_and_worker_take_our_init_info(transport, monkeypatch):
    """Two replicas of two workers each, four trainer ranks; this is rank 2."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(namespace="ours"))
    meeting = Meeting(rank=2, roster={"a": 2, "b": 2}, timeout_s=77)
    info = INIT[transport](meeting)
    trainer = WeightTransferTrainerFactory._registry[transport]()
    assert type(info) is trainer.init_info_cls and info.backend == transport
    assert info.rank == 2 and not info.is_sender and INIT[transport](Meeting(0, {"a": 1}, 1)).is_sender

    pool = Pool(a=2, b=2)
    replicas = Replicas(pool, 5)
    assert isinstance(replicas, VLLMWeightSyncClient)
    replicas.roster = replicas.ask()
    worker = WeightTransferEngineFactory._registry[transport]()
    # What vLLM's own trainer engine tells its workers.
    if transport == "ipc":
        assert info.packed
        told: dict[str, Any] = {"packed": info.packed}
        places = [{}, {}]
    elif transport == "nccl":
        from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo, worker_init_payload

        assert (info.master_address, info.world_size) == ("10.0.0.1", 5) and 0 < info.master_port < 65536
        told = worker_init_payload(
            NCCLWeightTransferInitInfo(
                master_address=info.master_address,
                master_port=info.master_port,
                rank_offset=1,
                world_size=5,
                packed=True,
            )
        )
        places = [{"rank_offset": 1}, {"rank_offset": 3}]
    else:
        assert (info.num_consumers, info.workers_per_replica) == (4, 2)
        assert (info.trainer_actor_namespace, info.stall_timeout_s) == ("ours", 77)
        model = tiny_qwen3()
        engine = trainer(client=replicas, source=Source(model, torch.bfloat16), init_info=info)
        engine._meta = engine.source.metadata()
        engine._groups = engine.source.groups()
        assert [n for g in engine._groups for n in g] == [m.name for m in engine._meta]  # vLLM asks for this order
        told = asdict(engine._build_worker_init_info(["server"]))
        places = [{"replica_rank": 0, "num_replicas": 2}, {"replica_rank": 1, "num_replicas": 2}]
    replicas.init_weight_transfer_engine(told)
    step, given = pool.told[-1]
    assert step == "init" and list(given) == ["a", "b"]
    for name, place in zip("ab", places, strict=True):
        parsed = worker.parse_init_info(SimpleNamespace(init_info_cls=worker.init_info_cls), given[name])
        assert asdict(parsed) == asdict(worker.init_info_cls(**told | place))


def test_memory_handles_reach_the_worker_as_they_left(monkeypatch):
    """What vLLM's ipc trainer sends for a packed chunk, over the message format between a replica and its engine."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    with monkeypatch.context() as scratch:
        scratch.setattr(os, "environ", {})
        _environment(changed(MINI.proposer.engine, weight_transport="ipc"))
        settings = dict(os.environ)
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", settings["VLLM_ALLOW_INSECURE_SERIALIZATION"])
    handle = (torch.Tensor, (8,), (1,), 0, torch.UntypedStorage, torch.uint8, 0, b"memory", 8, 0, b"ref", 0, b"e", True)
    sent = IPCWeightTransferUpdateInfo(
        names=["a"], dtype_names=["bfloat16"], shapes=[[2, 2]], ipc_handles={"GPU-1": handle}, tensor_sizes=[8]
    )
    pool = Pool(a=1)
    replicas = Replicas(pool, 5)
    replicas.roster = replicas.ask()
    replicas.update_weights(asdict(sent))
    arrived = MsgpackDecoder().decode(MsgpackEncoder().encode(pool.told[-1][1]))
    worker = WeightTransferEngineFactory._registry["ipc"]()
    parsed = worker.parse_update_info(SimpleNamespace(update_info_cls=worker.update_info_cls), arrived)
    assert parsed == sent


def test_the_source_is_what_its_metadata_say_and_a_copy():
    model = tiny_qwen3()
    source = Source(model, torch.bfloat16)
    metadata, first = source.metadata(), dict(source)
    assert [(m.name, m.dtype, m.shape) for m in metadata] == [(n, t.dtype, tuple(t.shape)) for n, t in first.items()]
    assert first.keys() == dict(model.named_parameters()).keys()  # tied tensors once
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(first[name], (parameter - 1).to(torch.bfloat16), rtol=0.02, atol=0.02)
    assert all((dict(source)[n] != first[n]).any() for n in first)  # a fresh pass each time


def test_a_rendezvous_holds_as_long_as_the_replicas_are_the_same(wireless):
    pool = Pool(a=1, b=2)
    push = Push("none", tiny_qwen3(), ONE_RANK, torch.bfloat16, pool, 10)
    push(1, 11)
    push(2, 12)
    steps = ["start", "update", "finish"]
    assert [step for step, _ in pool.told] == ["join", "init", *steps, "join", *steps]
    assert pool.told[1][1] == {"a": {"rank_offset": 1}, "b": {"rank_offset": 2}}
    assert [given for step, given in pool.told if step == "finish"] == [(1, 11), (2, 12)]

    pool.workers["c"] = 1  # joins
    pool.absent = {"a"}  # has died, and Serve has not seen it yet
    pool.told.clear()
    push(3, 13)
    assert pool.told[1] == ("init", {"b": {"rank_offset": 1}, "c": {"rank_offset": 3}})
    assert [engine.ended for engine in Engine.made] == [True, False]


def test_without_a_replica_nothing_is_pushed(wireless):
    pool = Pool(a=1)
    pool.absent = {"a"}
    Push("none", tiny_qwen3(), ONE_RANK, torch.bfloat16, pool, 10)(1, 11)

    def none_left(*_: Any) -> Any:
        raise DeploymentUnavailableError(DeploymentID("proposer"))

    pool.broadcast = none_left  # type: ignore[method-assign]
    Push("none", tiny_qwen3(), ONE_RANK, torch.bfloat16, pool, 10)(2, 12)
    assert pool.told == [("join", None)] and not Engine.made


def test_a_push_that_fails_or_hangs_is_one_line(wireless, monkeypatch):
    pool = Pool(a=1, b=1)
    push = Push("none", tiny_qwen3(), ONE_RANK, torch.bfloat16, pool, 0.5)
    push(1, 11)

    def leave() -> None:
        pool.strangers = {"b"}  # its successor, say, which this trainer never met

    monkeypatch.setattr(Engine, "on_send", staticmethod(leave))
    with pytest.raises(Failure, match=r"^weights version 2: none failed: update: 1 of 2 replicas are gone$") as caught:
        push(2, 12)
    assert caught.value.kind == "infra_error"
    assert pool.told[-1][0] == "update"  # not finished: no replica serves it

    pool.strangers = set()
    forever = threading.Event()
    monkeypatch.setattr(Engine, "on_send", staticmethod(forever.wait))
    with pytest.raises(Failure, match=r"^weights version 3: none did not bring it to the replicas within 0.5 s$"):
        push(3, 13)
    pool.workers.clear()
    forever.set()
