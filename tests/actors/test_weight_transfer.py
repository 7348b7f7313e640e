"""What a vLLM process of ours knows after it has started."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

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


def test_a_process_finds_the_plugin_where_the_project_is_not_installed() -> None:
    """In a process that is spawned, too; and it is the plugin that an installed project has."""
    code = (
        "import multiprocessing as m, sys\n"
        "from importlib.metadata import entry_points\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "sys.path = [p for p in sys.path if not p.endswith('site-packages')]\n"
        "def found(): return {e.name: e.value for e in entry_points(group='vllm.general_plugins')}\n"
        "def told(q): q.put(found())\n"
        "if __name__ == '__main__':\n"
        "    from actors import weight_transfer\n"
        "    before = found()\n"
        "    weight_transfer.announce(); weight_transfer.announce()\n"
        "    q = m.get_context('spawn').Queue()\n"
        "    p = m.get_context('spawn').Process(target=told, args=(q,)); p.start()\n"
        "    print(before, found(), q.get(), sep='|')\n"
    )
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "actors").symlink_to(root / "actors")  # alone: beside it may lie the metadata of the project
        Path(folder, "script.py").write_text(code)
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        told = subprocess.run(
            [sys.executable, "script.py"], env=ours, cwd=folder, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    before, here, spawned = map(ast.literal_eval, told.strip().split("|"))
    installed = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    assert before == {} and here == spawned == installed
