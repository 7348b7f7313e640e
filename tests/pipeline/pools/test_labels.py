"""Who is placed by labels, on two real nodes that have some: what belongs to the driver, and a pool of Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from pipeline.config import PoolConfig
from pipeline.config.loading import load
from pipeline.pools.cluster import Cluster
from pipeline.pools.serving import PoolSpec
from pipeline.records import Failure

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a head with the label market: stable, beside a node with market: spot."""
    options: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 << 20}
    nodes = Nodes(
        initialize_head=True,
        head_node_args={**options, "labels": {"market": "stable"}, "include_dashboard": False},
    )
    try:
        nodes.add_node(**options, labels={"market": "spot"})
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


class Where:
    """Says the labels of its node."""

    def market(self) -> str:
        here = ray.get_runtime_context().get_node_id()
        return next(node["Labels"]["market"] for node in ray.nodes() if node["NodeID"] == here)


def test_what_is_placed_by_labels_is_on_the_nodes_that_have_them(address: str) -> None:
    def joined(market: str) -> Cluster:
        return Cluster(load(None, [f"ray.address={address}", f"ray.labels={{market: '{market}'}}"]), None)

    stable, spot, none = joined("!spot"), joined("spot"), joined("reserved")
    pool = PoolConfig(labels={"market": "in(spot, reserved)"}, max_per_node=1)

    async def served() -> str:
        handle = await stable._pool(PoolSpec("where", pool, Where, {}, longest_call_s=1))
        found: str = await asyncio.wait_for(handle.market.remote(), 120)
        return found

    try:
        for cluster, market in ((stable, "stable"), (spot, "spot")):
            assert ray.get(cluster.actor(Where).market.remote(), timeout=120) == market
        with pytest.raises(Failure, match=r"^ray.labels asks for 1 x {market reserved}: no such node; nodes") as told:
            none.buffer()
        assert told.value.kind == "infra_error"  # somebody may start one
        assert asyncio.run(asyncio.wait_for(served(), 240)) == "spot"
    finally:
        spot.close(shutdown=False)
        stable.close()
