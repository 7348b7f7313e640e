"""Publish a model directory as the next version of a policy, without a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from safetensors import SafetensorError, safe_open

from pipeline.records import Failure
from trainers.wire import Shipment

_TIMEOUT_S = 300.0


def publish_checkpoint(store: Any, model_dir: Path) -> int:
    """Put the tensors of a Hugging Face directory into a weight store; returns the version. Blocks.

    Raises Failure for a directory without readable weights, or a store that does not answer.
    """
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise Failure(f"model {model_dir}: holds no *.safetensors file")
    try:
        version: int = ray.get(store.latest.remote(), timeout=_TIMEOUT_S) + 1
        shipment = Shipment(store, version, _TIMEOUT_S)
        shipment.begin()
        shipment.send(_tensors(files))
        shipment.commit()
    except RayTaskError as e:
        if isinstance(e.cause, Failure):
            raise e.cause from None
        raise
    except (RayError, TimeoutError) as e:
        raise Failure(f"weight store: {e or type(e).__name__}", "infra_error") from None
    except (OSError, SafetensorError) as e:
        raise Failure(f"model {model_dir}: weights not readable ({e})") from None
    return version


def _tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safetensors is no mapping)
                yield name, tensors.get_tensor(name).to(torch.bfloat16)
