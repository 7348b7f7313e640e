"""What nodes see of the driver's folders. `-m slow`: of two real nodes, one has other files under the same names."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.cluster_utils import Cluster

from pipeline.config import PoolConfig
from pipeline.pools import nodes
from pipeline.pools.nodes import Shared, holds, look, shared
from pipeline.records import Failure
from tests.mini import MINI, changed

_AMOUNTS = st.dictionaries(st.sampled_from(["CPU", "GPU", "spot"]), st.integers(0, 3).map(float))


@given(_AMOUNTS, _AMOUNTS)
def test_a_node_holds_what_it_has_at_least_as_much_of(has: dict[str, float], needs: dict[str, float]) -> None:
    short = [name for name in needs if needs[name] > has.get(name, 0)]
    assert holds(has, needs) == (short == [])


def test_a_folder_is_seen_with_the_drivers_mark_and_nothing_stays_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_SYNC_S", 0.0)
    run = Shared("run directory", str(tmp_path), {}, ".seen-1")
    assert look([run]) == [f"run directory {tmp_path}: another folder than the driver's"]
    (tmp_path / ".seen-1").touch()
    assert look([run]) == []
    assert [path.name for path in tmp_path.iterdir()] == [".seen-1"]
    away = str(tmp_path / "away")
    assert look([Shared("run directory", away, {}, ".seen-1"), Shared("proposer.path", away, {})]) == [
        f"run directory {away}: no folder",
        f"proposer.path {away}: no folder",
    ]


def test_who_uses_a_folder_says_which_nodes_are_asked(tmp_path: Path) -> None:
    on_gpus = changed(MINI.proposer, path=str(tmp_path), pool=PoolConfig(num_cpus=2, num_gpus=1, resources={"big": 1}))
    config = MINI.model_copy(update={"proposer": on_gpus})
    found = shared(config, tmp_path / "run", ".seen-1", {"proposer.path": on_gpus, "prober.ladder.0.path": on_gpus})
    replica, trainer = {"CPU": 2.0, "GPU": 1.0, "big": 1.0}, {"CPU": config.trainer.num_cpus}
    needs = {what: [one.needs for one in found if one.what == what] for what in {one.what for one in found}}
    assert needs["proposer.path"] == [replica, trainer]
    assert needs["prober.ladder.0.path"] == [replica]
    assert trainer in needs["run directory"] and replica in needs["run directory"]
    assert {one.mark for one in found if one.what == "run directory"} == {".seen-1"}


NODE = """
mount -t tmpfs none "$1" && exec "$2" -c 'from ray.scripts.scripts import main; main()' start --address="$3" \
    --node-ip-address=127.0.0.2 --num-cpus=2 --object-store-memory=100000000 --block
"""


@pytest.mark.slow
@pytest.mark.engine
def test_a_node_that_has_its_own_files_there_is_named(tmp_path: Path) -> None:
    shared_by_all, own = tmp_path / "all", tmp_path / "own"
    for folder in (shared_by_all / "run", own / "run", own / "model"):
        folder.mkdir(parents=True)
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(own)]).returncode:
        pytest.skip("needs a mount of its own")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    node = subprocess.Popen(["unshare", "-m", "sh", "-c", NODE, "sh", str(own), sys.executable, cluster.address])
    try:
        ray.init(address=cluster.address, log_to_driver=False)

        async def wait() -> None:
            async with asyncio.timeout(60):
                while len([n for n in ray.nodes() if n["Alive"]]) < 2:
                    await asyncio.sleep(0.2)

        asyncio.run(wait())
        base = {"proposer.path": MINI.proposer}
        asyncio.run(nodes.check(MINI, shared_by_all / "run", base))
        with pytest.raises(Failure) as told:
            elsewhere = {"proposer.path": changed(MINI.proposer, path=str(own / "model"))}
            asyncio.run(nodes.check(MINI, own / "run", elsewhere))
        first, second = str(told.value).splitlines()[1:]
        assert first.strip().startswith(f"node 127.0.0.2: run directory {own / 'run'}: no folder; expected")
        assert second.strip().startswith(f"node 127.0.0.2: proposer.path {own / 'model'}: no folder; expected")
        assert told.value.kind == "data_error"
        assert list((shared_by_all / "run").iterdir()) == list((own / "run").iterdir()) == []
        many = changed(MINI.proposer, path=str(own / "model"), pool=PoolConfig(num_cpus=3))  # no node is large enough
        config = MINI.model_copy(update={"trainer": changed(MINI.trainer, num_cpus=3)})
        asyncio.run(nodes.check(config, shared_by_all / "run", {"evaluate.model.path": many}))
    finally:
        ray.shutdown()
        node.terminate()
        node.wait(30)
        cluster.shutdown()
