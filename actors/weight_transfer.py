"""What every vLLM process of ours does as it starts: our entry point of `vllm.general_plugins`.

It makes the weight transport "object_store" known to vLLM, lets the workers of the other transports take its chunks
too, and ties an engine process to the process that uses it: a replica that is killed must not leave an engine behind
that holds memory and answers nobody.

vLLM calls `register` in each of its processes, so this module imports nothing heavy: the receiving class is named by
its path, and a worker imports it when it is asked for. It finds the entry point in the metadata of the installed
project; where that is not installed, as in what a Ray job brings along, in those of `plugin/` (`announce`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

BACKEND = "object_store"
PUSHED = ("ipc", "nccl", "sharded_rdt")
"""Transports of vLLM's own, whose trainer pushes."""


_PLUGIN = str(Path(__file__).parent / "plugin")
"""Holds nothing but metadata with our entry point."""


def announce() -> None:
    """Let vLLM find `register`, in this process and in those that it spawns, which take its `sys.path` over."""
    if _PLUGIN not in sys.path:
        sys.path.append(_PLUGIN)


def register() -> None:
    """vLLM may load plugins twice in a process; the second time is a no-op."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    if BACKEND in Factory._registry:
        return
    Factory.register_engine(BACKEND, "actors.weight_receiver", "ObjectStoreEngine")
    for name in PUSHED:
        # Under their own names, which vLLM looks at elsewhere too.
        Factory._registry[name] = partial(_pulling, Factory._registry[name])
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _pulling(engine: Callable[[], Any]) -> Any:
    from actors.weight_receiver import pulling

    return pulling(engine())


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Waits for the parent process, for as long as this one lives; unblocked by the parent's death."""
    parent.join()
    os._exit(1)
