"""LoRA: an adapter of low rank beside the weights of a model, which stay as they are. The adapter's layers are peft's.

Invariant: whoever reads the model's tensors through `parts` sees a plain model under its Hugging Face names: a weight
with what its adapter adds to it, summed in float32 and rounded once. Only the adapter's tensors carry gradients. It
begins with the seed, alike on every rank, and adds nothing then. Switched off, the model is the one it was put on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import LoRAConfig
from pipeline.records import Failure
from trainers.architectures import unadaptable

FOLDER = "adapter"
"""Of a checkpoint: the adapter alone, as peft stores it."""
_NAME = "default"


def add(lm: Any, lora: LoRAConfig, dtype: torch.dtype, seed: int) -> None:
    """Put an adapter on the model's linear layers. Raises Failure where it has no such layers."""
    from peft import inject_adapter_in_model  # takes a second, which runs without an adapter save

    layers = {name.rpartition(".")[2] for name, m in lm.base_model.named_modules() if type(m) is nn.Linear}
    if (why := unadaptable(lm.config.to_dict(), layers, lora.targets)) is not None:
        raise Failure(f"trainer.lora: {why}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_settings(lora, sorted(lora.targets or layers)), lm, _NAME)
    for parameter in _own(lm).values():
        parameter.data = parameter.data.to(dtype)  # peft has made it float32


def _settings(lora: LoRAConfig, targets: list[str], base: Path | None = None) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=None if base is None else str(base),
    )


def _layers(lm: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in lm.named_modules() if hasattr(module, "lora_A")}


def _own(lm: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in lm.named_parameters() if ".lora_A." in name or ".lora_B." in name}


@contextmanager
def off(lm: nn.Module) -> Iterator[None]:
    """The model without its adapter."""
    layers = _layers(lm).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


# ---------------------------------------------------------------- the plain model


@dataclass(frozen=True)
class Part:
    """A tensor of the plain model."""

    name: str
    own: nn.Parameter
    pair: tuple[nn.Parameter, ...] = ()
    """A and B of its adapter, if it has one: B A is added."""
    scale: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(getattr(self.own, "ds_shape", self.own.shape))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Whole on every rank; under ZeRO-3 a collective."""
        with deepspeed.zero.GatheredParameters([self.own, *self.pair], enabled=hasattr(self.own, "ds_id")):
            yield

    def whole(self, dtype: torch.dtype | None, device: Any = None) -> Tensor:
        """A new tensor. None: the dtype, the device of the model's."""
        tensor = self.own.detach()
        if self.pair:
            a_RI, b_OR = (p.detach().float() for p in self.pair)
            tensor = torch.addmm(tensor.float(), b_OR, a_RI, alpha=self.scale)
        return tensor.to(device or tensor.device, dtype or self.own.dtype, copy=not self.pair)


def parts(lm: nn.Module) -> Iterator[Part]:
    """The tensors of the plain model, in the model's order. Tied ones appear once."""
    layers, adapters = _layers(lm), _own(lm)
    for name, parameter in lm.named_parameters():
        of, adapted, last = name.rpartition(".base_layer.")
        if adapted and last == "weight":
            pair = tuple(adapters[f"{of}.lora_{matrix}.{_NAME}.weight"] for matrix in "AB")
            yield Part(f"{of}.{last}", parameter, pair, layers[of].scaling[_NAME])
        elif name not in adapters:
            yield Part(f"{of}.{last}" if adapted else name, parameter)


# ---------------------------------------------------------------- the adapter alone


def save(lm: nn.Module, lora: LoRAConfig, base: Path, rank: int, root: Path) -> None:
    """Store the adapter, as `peft.PeftModel.from_pretrained(model, root)` loads it. All ranks call it; the first one
    writes."""
    found: dict[str, Tensor] = {}
    for name, parameter in _own(lm).items():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if rank == 0:
                named = f"base_model.model.{name.replace(f'.{_NAME}.', '.')}"
                found[named] = parameter.detach().to("cpu", copy=True)
    if rank == 0:
        root.mkdir()
        save_file(found, root / "adapter_model.safetensors", metadata={"format": "pt"})
        _settings(lora, sorted({name.rpartition(".")[2] for name in _layers(lm)}), base).save_pretrained(root)


def without_frozen(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Hook of a module's state: leaves the adapter in it. The rest is in the model that it was put on."""
    for name in [name for name in state if ".lora_A." not in name and ".lora_B." not in name]:
        del state[name]
