"""What a vLLM process of ours knows after it has started."""

from __future__ import annotations

import pytest
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

from actors import weight_transfer


@pytest.mark.parametrize("transport", weight_transfer.PUSHED)
def test_workers_of_every_transport_can_pull(transport, monkeypatch):
    weight_transfer.register()
    weight_transfer.register()  # as vLLM may do
    ours = Factory._registry[transport]()
    theirs = ours.__mro__[1]
    assert theirs.__module__.startswith("vllm."), "the second call wraps what the first has wrapped"

    did = []
    worker = object.__new__(ours)
    worker._store = type("Store", (), {name: lambda *_, n=name: did.append(n) for name in _METHODS})()
    for name in _METHODS[:2]:
        monkeypatch.setattr(theirs, name, lambda *_, n=name: did.append(f"theirs: {n}"))
    worker.update_weights({"data": [], "names": []})
    worker.finish_weight_update()
    worker.update_weights({"names": []})
    worker.finish_weight_update()
    assert did == [
        "update_weights", "finish_weight_update",
        "theirs: update_weights", "theirs: finish_weight_update", "renew_tied_heads",
    ]  # fmt: skip


_METHODS = ("update_weights", "finish_weight_update", "renew_tied_heads")
