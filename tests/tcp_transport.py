"""A weight transport that needs no GPU: vLLM's two halves over plain TCP, one connection a worker.

It stands where nccl stands: the trainer listens, each worker says which rank it is, whole tensors are sent in the order
of the source's metadata, and the trainer broadcasts while its client's `update_weights` is under way.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.weight_receiver import pulling

PATIENCE_S = 60


@dataclass
class InitInfo(WeightTransferInitInfo):
    port: int
    rank_offset: int


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    shapes: list[list[int]]


@dataclass
class TrainerInfo(TrainerInitInfo):
    backend: ClassVar[str] = "tcp"
    world_size: int
    hang: str


class Trainer(TrainerWeightTransferEngine[TrainerInfo]):
    init_info_cls = TrainerInfo

    @classmethod
    def trainer_init(cls, init_info: TrainerInfo, *, client: Any, source: Any = None) -> Trainer:
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        engine.hang, engine.workers = Path(init_info.hang), []
        if engine.is_sender:
            with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as side:
                server.settimeout(PATIENCE_S)
                told = {"port": server.getsockname()[1], "rank_offset": 1}
                ready = side.submit(client.init_weight_transfer_engine, told)
                engine.workers = [server.accept()[0] for _ in range(1, init_info.world_size)]
                ready.result()
            ranks = sorted(worker.recv(1)[0] for worker in engine.workers)
            assert ranks == list(range(1, init_info.world_size)), ranks
        return engine

    def send_weights(self) -> None:
        if not self.is_sender:
            for _ in self.source:
                pass
            return
        meta = self.source.metadata()
        self.client.start_weight_update()
        with ThreadPoolExecutor(1) as side:
            info = {"names": [m.name for m in meta], "shapes": [list(m.shape) for m in meta]}
            received = side.submit(self.client.update_weights, info)
            for i, ((name, tensor), m) in enumerate(zip(self.source, meta, strict=True)):
                assert (name, tensor.dtype, tuple(tensor.shape)) == (m.name, m.dtype, m.shape)
                for worker in self.workers:
                    worker.sendall(tensor.contiguous().view(torch.uint8).numpy().tobytes())
                while i == 2 and self.hang.exists():
                    time.sleep(0.1)
            received.result()
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        for worker in self.workers:
            worker.close()


class Worker(WeightTransferEngine[InitInfo, UpdateInfo]):
    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    trainer: socket.socket | None = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.trainer = socket.create_connection(("127.0.0.1", init_info.port), PATIENCE_S)
        self.trainer.sendall(bytes([init_info.rank_offset + self.parallel_config.rank]))

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        for name, shape in zip(update_info.names, update_info.shapes, strict=True):
            raw = bytearray(2 * torch.Size(shape).numel())
            view = memoryview(raw)
            while view:
                got = self.trainer.recv_into(view)
                assert got, "the trainer is gone"
                view = view[got:]
            self.model.load_weights([(name, torch.frombuffer(raw, dtype=torch.bfloat16).reshape(shape))])

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        if self.trainer:
            self.trainer.close()
            self.trainer = None


PullingWorker = pulling(Worker)


def register_trainer(hang: str) -> None:
    """In a process that trains; again is a no-op. While the file `hang` is there, the trainer sends three tensors and
    then no more."""
    from trainers.push import INIT

    if "tcp" not in INIT:
        INIT["tcp"] = lambda meeting: TrainerInfo(1 + sum(meeting.roster.values()), hang, rank=meeting.rank)
        WeightTransferTrainerFactory.register_engine("tcp", Trainer)
