"""The receiving end of the "object_store" weight transport, inside a vLLM worker; and `pulling`, by which the workers
of a transport whose trainer pushes can take the same chunks when they missed a push.

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
        self.renew_tied_heads()

    def renew_tied_heads(self) -> None:
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


def pulling(pushed: type[WeightTransferEngine]) -> type[WeightTransferEngine]:
    """An engine of vLLM's that begins an update with a layerwise reload, made to take the weight store's chunks too.

    An update brings either chunks or what the trainer pushes. The engine's own state is of its pushes alone.
    """

    class Pulling(pushed):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            self._store = ObjectStoreEngine(*arguments)
            self._pulled = False

        def update_weights(self, update_info: dict[str, Any]) -> None:
            self._pulled = "data" in update_info
            if self._pulled:
                self._store.update_weights(update_info)
            else:
                super().update_weights(update_info)

        def finish_weight_update(self) -> None:
            if self._pulled:
                self._store.finish_weight_update()
            else:
                super().finish_weight_update()
                self._store.renew_tied_heads()

    return Pulling


def _tensor(raw: bytes, dtype: str, shape: list[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=getattr(torch, dtype)).reshape(shape)


def _address(layer: Any) -> int:
    return layer.weight.data_ptr()
