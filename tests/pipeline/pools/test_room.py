"""Whether a cluster has room, could get it, or never will; on a clock of our own."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RpcError

from pipeline.pools.room import Asked, NodeType, Offer, is_there, matches, wait
from pipeline.records import Failure

HEAD = {"CPU": 8.0, "memory": 1e9, "node:10.0.0.1": 1.0}
GPUS = {"CPU": 32.0, "GPU": 8.0}
ENGINES = Asked("pool proposer", 2, {"CPU": 0.1, "GPU": 4.0})


class Scene:
    """A cluster whose nodes come by and by; seconds pass only in `sleep`."""

    def __init__(self, *joining: tuple[float, dict[str, float]], types=None, infeasible_after=math.inf):
        self.now, self.joining, self.types, self.infeasible_after = 0.0, joining, types, infeasible_after
        self.said: list[str] = []

    def look(self) -> Offer:
        nodes = [HEAD, *(node for at, node in self.joining if at <= self.now)]
        return Offer(nodes, self.types, [ENGINES.each] if self.now >= self.infeasible_after else [])

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, asked: Asked, patience_s: float = 3600) -> float:
        """When there was room."""
        asyncio.run(wait(asked, patience_s, self.said.append, self.look, lambda: self.now, self.sleep))
        return self.now


def gpu_nodes(most: float) -> list[NodeType]:
    return [NodeType("head", HEAD, 1), NodeType("gpus", GPUS, most)]


@pytest.mark.parametrize("types", [None, gpu_nodes(2), gpu_nodes(math.inf)])
def test_nodes_that_join_after_400_seconds_are_waited_for_and_what_is_waited_for_is_said(types):
    scene = Scene((400, GPUS), types=types)
    assert 400 <= scene.wait(ENGINES) < 410
    assert len(scene.said) == 7  # once a minute
    assert "pool proposer asks for 2 x {CPU 0.1, GPU 4}: waits for nodes; nodes there: {CPU 8}" in scene.said[0]
    assert ("gpus {CPU 32, GPU 8}" in scene.said[0]) == (types is not None)


def test_a_head_that_starts_again_is_looked_at_again_within_the_patience():
    scene = Scene((0, GPUS))
    seen = scene.look

    def look():
        if scene.now < 30:
            raise RpcError("GCS is away")
        return seen()

    scene.look = look
    assert 30 <= scene.wait(ENGINES) < 40 and "Ray's head does not answer" in scene.said[0]
    scene.now = 0.0
    with pytest.raises(Failure, match=r"no room after 10 s .*Ray's head does not answer"):
        scene.wait(ENGINES, 10)


def test_room_that_is_there_is_not_waited_for():
    scene = Scene((0, GPUS), types=())
    assert scene.wait(ENGINES) == 0 and scene.said == []


def test_replicas_that_are_spread_need_so_many_nodes():
    spread, large = Asked("pool p", 3, {"CPU": 1.0}, per_node=2), {"CPU": 64.0}
    assert str(spread) == "pool p asks for 3 x {CPU 1, 2 a node}"
    assert not is_there(spread, Offer([large], None))
    assert is_there(spread, Offer([large, large], None))
    with pytest.raises(Failure, match=r"pool p asks for 3 x .* which this cluster can never offer"):
        is_there(spread, Offer([large], types=()))
    assert not is_there(spread, Offer([large], types=[NodeType("cpu", large, 1)]))


def test_one_of_two_nodes_is_not_enough():
    half = {"CPU": 32.0, "GPU": 4.0}
    assert Scene((100, half), (300, half), types=[NodeType("half", half, 2)]).wait(ENGINES) >= 300


@pytest.mark.parametrize(
    ("asked", "types", "names"),
    [
        (ENGINES, (), "GPU 4 on one node, where the most is 0"),  # a private Ray on a machine without one
        (Asked("pool judge", 1, {"GPU": 16.0}), gpu_nodes(4), "GPU 16 on one node, where the most is 8"),
        (Asked("pool judge", 1, {"GPU": 16.0}), gpu_nodes(math.inf), "GPU 16 on one node, where the most is 8"),
        (Asked("pool judge", 1, {"spot": 0.01}), gpu_nodes(4), "spot 0.01 on one node, where the most is 0"),
        (Asked("pool judge", 1, {"CPU": 64.0, "GPU": 1.0}), gpu_nodes(4), "CPU 64 on one node, where the most is 32"),
        (ENGINES, gpu_nodes(0), "GPU 4 on one node, where the most is 0"),
        (Asked("training mgpo", 9, {"GPU": 1.0}), gpu_nodes(1), "GPU 1 so often"),
        (
            Asked("pool judge", 1, {"GPU": 8.0, "big": 1.0}),
            [NodeType("a", GPUS, 1), NodeType("b", {"big": 1.0}, 1)],
            "GPU 8, big 1 on one node",
        ),
    ],
)
def test_what_no_node_could_ever_offer_fails_at_once_and_names_the_resource(asked, types, names):
    scene = Scene(types=types)
    with pytest.raises(Failure, match="can never offer") as failed:
        scene.wait(asked)
    assert scene.now == 0 and names in str(failed.value) and asked.who in str(failed.value)
    assert failed.value.kind == "data_error"  # no retry mends it


LABELS = [{}, {"market": "spot", "gpu": "H100"}, {"market": "demand", "gpu": "A100"}]


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({}, [True, True, True]),
        ({"market": "spot"}, [False, True, False]),
        ({"market": "!spot"}, [True, False, True]),  # nothing is not spot
        ({"gpu": "in(H100, H200)"}, [False, True, False]),
        ({"gpu": "!in(H100,A100)"}, [True, False, False]),
        ({"gpu": "in(H100, A100)", "market": "!spot"}, [False, False, True]),
        ({"gpu": "in"}, [False, False, False]),
    ],
)
def test_a_selector_means_the_nodes_that_ray_takes_for_it(selector, fits):
    assert [matches(selector, labels) for labels in LABELS] == fits
    asked = Asked("training mgpo", sum(fits), {"GPU": 8.0}, selector)
    there = Offer([GPUS] * 3, None, labels=LABELS)
    assert is_there(asked, there)
    assert not is_there(Asked("training mgpo", sum(fits) + 1, {"GPU": 8.0}, selector), there)


def test_labels_that_no_node_of_a_private_ray_has_are_told_at_once():
    asked = Asked("pool proposer", 1, {"GPU": 1.0}, {"market": "spot"})
    with pytest.raises(Failure, match=r"GPU 1, market spot.*labels of no node"):
        is_there(asked, Offer([GPUS], types=(), labels=[{}]))
    assert not is_there(asked, Offer([GPUS], types=gpu_nodes(2), labels=[{}]))  # a node that comes may have them


def test_nodes_of_no_type_that_could_come_count_beside_those_that_could():
    """A head with GPUs of its own, of which there may be no other."""
    asked = Asked("pool judge", 2, {"GPU": 8.0})
    types = [NodeType("head", GPUS, 0), NodeType("gpus", GPUS, 1)]
    assert 100 <= Scene((0, GPUS), (100, GPUS), types=types).wait(asked) < 110


def test_what_the_autoscaler_gives_up_fails_once_it_says_so():
    scene = Scene(infeasible_after=6)
    with pytest.raises(Failure, match=r"pool proposer asks for 2 .*infeasible: GPU 4"):
        scene.wait(ENGINES)
    assert scene.now <= 10
    assert Scene((400, {"CPU": 1, "spot": 1.0}), infeasible_after=6).wait(Asked("pool x", 1, {"spot": 1})) >= 400


def test_patience_ends_and_that_is_worth_a_retry():
    scene = Scene(types=gpu_nodes(1))
    with pytest.raises(Failure, match=r"no room after 600 s \(ray.nodes_timeout_s\).*could come: .*gpus") as failed:
        scene.wait(ENGINES, 600)
    assert 600 <= scene.now <= 610 and failed.value.kind == "infra_error"


shapes = st.dictionaries(st.sampled_from(["CPU", "GPU", "x"]), st.floats(0.01, 8), max_size=3)
nodes = st.lists(st.dictionaries(st.sampled_from(["CPU", "GPU", "x"]), st.floats(0, 16), max_size=3), max_size=4)


@given(nodes, shapes, st.integers(1, 6))
def test_there_is_room_exactly_if_all_can_be_placed_one_by_one(nodes, each, count):
    left, placed = [dict(node) for node in nodes], 0
    for node in left:
        while placed < count and all(node.get(name, 0) >= amount - 1e-5 * amount for name, amount in each.items()):
            placed += 1
            for name, amount in each.items():
                node[name] -= amount
    try:
        room = is_there(Asked("x", count, each), Offer(nodes, types=()))
    except Failure:
        room = False
    if each or not nodes:
        assert room == (placed == count)
