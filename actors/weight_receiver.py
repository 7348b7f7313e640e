"""The receiving end of the "object_store" weight transport, inside a vLLM worker.

Consumes chunks of whole tensors under their Hugging Face names, as raw bytes (`PolicyEngine.load` sends them);
produces a model with the new weights. Invariant: between `start_weight_update` and `finish_weight_update` the model
must not run (layers lie on the meta device until all their weights are there), which is why the caller pauses
generation first and never resumes an engine whose update failed.

A CPU worker packs linear layers and fuses q, k and v, so weights cannot be copied in place: vLLM's layerwise reload
collects what belongs to a layer and then builds it anew. It does not know of tied output layers; `_tied_heads` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class InitInfo(WeightTransferInitInfo):
    """No rendezvous: every chunk comes with the call that loads it."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    dtypes: list[str]
    """Torch names, for example bfloat16."""
    shapes: list[list[int]]
    data: list[bytes]


class ObjectStoreEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        load: Any = self.model.load_weights
        load(
            (name, _tensor(raw, dtype, shape).to(self.device))
            for name, dtype, shape, raw in zip(
                update_info.names, update_info.dtypes, update_info.shapes, update_info.data, strict=True
            )
        )

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        for head in self._tied_heads():
            head.quant_method.process_weights_after_loading(head)

    def _tied_heads(self) -> list[Any]:
        """Output layers that share the input embedding's weight. No checkpoint tensor bears their name, so the reload
        passes them over; but a CPU worker keeps a packed copy of the weight in each, which would stay the old one."""
        layers = list(self.model.modules())
        embedded = {_address(m) for m in layers if type(m) is VocabParallelEmbedding}
        return [m for m in layers if isinstance(m, ParallelLMHead) and _address(m) in embedded]

    def shutdown(self) -> None:
        pass


def _tensor(raw: bytes, dtype: str, shape: list[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=getattr(torch, dtype)).reshape(shape)


def _address(layer: Any) -> int:
    return layer.weight.data_ptr()
