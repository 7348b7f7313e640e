"""How new weights reach a running vLLM worker: makes the backend "object_store" known to vLLM.

`register` is called in every vLLM process (entry point `vllm.general_plugins`), so this module imports nothing heavy:
the receiving class is named by its path, and a worker imports it when it is asked for.
"""

from __future__ import annotations

BACKEND = "object_store"


def register() -> None:
    """Tell vLLM's factory about the backend. vLLM may load plugins twice in a process; the second time is a no-op."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    if BACKEND not in Factory._registry:
        Factory.register_engine(BACKEND, "actors.weight_receiver", "ObjectStoreEngine")
