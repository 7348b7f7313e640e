"""Publish a model directory as the next version of a policy, without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from safetensors import SafetensorError, safe_open

from pipeline.records import Failure

_CHUNK_BYTES = 256 << 20
_TIMEOUT_S = 300.0


def publish_checkpoint(store: Any, model_dir: Path) -> int:
    """Put the tensors of a Hugging Face directory into a weight store; returns the version. Blocks.

    Raises Failure for a directory without readable weights, or a store that does not answer.
    """
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise Failure(f"model {model_dir}: holds no *.safetensors file")
    version: int = _answer(store.latest.remote()) + 1
    _answer(store.begin.remote(version))
    try:
        _put(store, version, files)
    except (OSError, SafetensorError) as e:
        raise Failure(f"model {model_dir}: weights not readable ({e})") from None
    _answer(store.commit.remote(version))
    return version


def _put(store: Any, version: int, files: list[Path]) -> None:
    chunk: dict[str, tuple[str, tuple[int, ...], np.ndarray]] = {}
    size = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safetensors is no mapping)
                tensor = tensors.get_tensor(name).to(torch.bfloat16)
                raw = tensor.view(torch.uint16).numpy()
                chunk[name] = ("bfloat16", tuple(tensor.shape), raw)
                size += raw.nbytes
                if size >= _CHUNK_BYTES:
                    _answer(store.put_chunk.remote(version, chunk))
                    chunk, size = {}, 0
    if chunk:
        _answer(store.put_chunk.remote(version, chunk))


def _answer(response: Any) -> Any:
    try:
        return ray.get(response, timeout=_TIMEOUT_S)
    except GetTimeoutError:
        raise Failure(f"weight store: no answer within {_TIMEOUT_S:g} s", "infra_error") from None
    except RayTaskError as e:
        if isinstance(e.cause, Failure):
            raise e.cause from None
        raise
    except RayError as e:
        raise Failure(f"weight store: {type(e).__name__}", "infra_error") from None
