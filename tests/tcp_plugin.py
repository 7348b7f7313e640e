"""Makes the transport of tests/tcp_transport.py known to a vLLM process, as an entry point of `vllm.general_plugins`.

vLLM starts its engine in a fresh process, which knows of nothing else. The entry point is in a distribution that is
made by `install`, and found by processes that have its folder in PYTHONPATH.
"""

from __future__ import annotations

from pathlib import Path


def install(folder: Path) -> Path:
    info = folder / "tcp_transport-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tcp-transport\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\ntcp_transport = tests.tcp_plugin:register\n")
    return folder


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    if "tcp" not in Factory._registry:
        Factory.register_engine("tcp", "tests.tcp_transport", "PullingWorker")
