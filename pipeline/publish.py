"""Publish a model directory as the next version of a policy, without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors import safe_open

_CHUNK_BYTES = 256 << 20
_TIMEOUT_S = 300.0


def publish_checkpoint(store: Any, model_dir: Path) -> int:
    """Put the tensors of a Hugging Face directory into a weight store; returns the version. Blocks."""
    version: int = ray.get(store.latest.remote(), timeout=_TIMEOUT_S) + 1
    ray.get(store.begin.remote(version), timeout=_TIMEOUT_S)
    chunk: dict[str, tuple[str, tuple[int, ...], np.ndarray]] = {}
    size = 0
    for file in sorted(model_dir.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safetensors is no mapping)
                tensor = tensors.get_tensor(name).to(torch.bfloat16)
                raw = tensor.view(torch.uint16).numpy()
                chunk[name] = ("bfloat16", tuple(tensor.shape), raw)
                size += raw.nbytes
                if size >= _CHUNK_BYTES:
                    ray.get(store.put_chunk.remote(version, chunk), timeout=_TIMEOUT_S)
                    chunk, size = {}, 0
    if chunk:
        ray.get(store.put_chunk.remote(version, chunk), timeout=_TIMEOUT_S)
    ray.get(store.commit.remote(version), timeout=_TIMEOUT_S)
    return version
