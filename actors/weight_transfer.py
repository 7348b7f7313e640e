"""How new weights reach a running vLLM worker: the weight-transfer backend "object_store".

`register` is called in every vLLM process (entry point `vllm.general_plugins`), so this module imports nothing heavy:
the engine class is named by path and imported by vLLM when a worker asks for it.
"""

from __future__ import annotations


def register() -> None:
    """Tell vLLM's factory about the backend. Called more than once in a process; only the first call counts."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    if BACKEND not in Factory._registry:
        Factory.register_engine(BACKEND, "actors.weight_receiver", "ObjectStoreEngine")


BACKEND = "object_store"
