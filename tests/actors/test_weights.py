"""The weight store as an actor, with real references."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from actors.weights import KEEP, WeightStore
from pipeline.records import Failure

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def store(cluster):
    handle = ray.remote(WeightStore).options(num_cpus=0, max_concurrency=1000).remote()
    yield handle
    ray.kill(handle)


def tensors(value: int, *names: str) -> dict:
    return {name: ("bfloat16", (4, 50_000), np.full((4, 50_000), value, np.uint16)) for name in names}


def publish(store, version: int, value: int) -> int:
    ray.get(store.begin.remote(version))
    ray.get(store.put_chunk.remote(version, tensors(value, "a", "b")))
    ray.get(store.put_chunk.remote(version, tensors(value + 1, "c")))
    return ray.get(store.commit.remote(version))


def content(store, version: int = 0) -> dict[str, int]:
    published = ray.get(store.fetch.remote(version))
    return {name: int(raw[0, 0]) for chunk in ray.get(list(published.chunks)) for name, (_, _, raw) in chunk.items()}


def test_a_version_is_seen_whole_or_not_at_all(store):
    assert ray.get(store.latest.remote()) == 0 and ray.get(store.fetch.remote()) is None
    ray.get(store.begin.remote(1))
    ray.get(store.put_chunk.remote(1, tensors(5, "a")))
    assert ray.get(store.latest.remote()) == 0 and ray.get(store.fetch.remote()) is None
    ray.get(store.put_chunk.remote(1, tensors(6, "b")))
    serial = ray.get(store.commit.remote(1))
    published = ray.get(store.fetch.remote())
    assert (published.version, published.serial, published.names) == (1, serial, {"a", "b"})
    assert published.bytes == 2 * 4 * 50_000 * 2
    assert content(store) == {"a": 5, "b": 6}


def test_an_open_publication_does_not_hide_the_last(store):
    publish(store, 1, 10)
    ray.get(store.begin.remote(2))
    ray.get(store.put_chunk.remote(2, tensors(20, "a")))
    assert ray.get(store.latest.remote()) == 1 and content(store) == {"a": 10, "b": 10, "c": 11}
    ray.get(store.begin.remote(2))  # its trainer died and starts over: nothing of the first try is left
    ray.get(store.put_chunk.remote(2, tensors(30, "a")))
    ray.get(store.commit.remote(2))
    assert content(store) == {"a": 30}


def test_the_last_versions_are_kept_and_pulled_ones_outlive_the_store(store):
    for version in (1, 2, 3):
        publish(store, version, version * 10)
        if version == 1:
            pulled = ray.get(store.fetch.remote(1))
    assert KEEP == 2 and content(store, 2)["a"] == 20 and content(store, 3)["a"] == content(store)["a"] == 30
    with pytest.raises(Failure, match="version 1: not in the store; kept versions: 2, 3"):
        ray.get(store.fetch.remote(1))
    (first, _) = ray.get(list(pulled.chunks))
    assert int(first["a"][2][0, 0]) == 10


def test_a_trainer_that_goes_back_withdraws_what_came_after(store):
    for version in (4, 5):
        publish(store, version, version * 10)
    serial = ray.get(store.serial.remote())
    assert publish(store, 4, 77) == serial + 1  # the same number, other weights
    assert ray.get(store.latest.remote()) == 4 and content(store)["a"] == 77
    with pytest.raises(Failure, match="version 5: not in the store"):
        ray.get(store.fetch.remote(5))


@pytest.mark.parametrize("wrong", ["not begun", "another version", "twice", "empty", "zero"])
def test_misuse_is_refused(store, wrong):
    chunk = tensors(1, "a")
    *before, last = {
        "not begun": [(store.put_chunk, 1, chunk)],
        "another version": [(store.begin, 1), (store.commit, 2)],
        "twice": [(store.begin, 1), (store.put_chunk, 1, chunk), (store.put_chunk, 1, chunk)],
        "empty": [(store.begin, 1), (store.commit, 1)],
        "zero": [(store.begin, 0)],
    }[wrong]
    for method, *arguments in before:
        ray.get(method.remote(*arguments))
    with pytest.raises(Failure, match="weights") as caught:
        ray.get(last[0].remote(*last[1:]))
    assert isinstance(caught.value, RayTaskError)
    assert ray.get(store.latest.remote()) == 0


def test_the_publishers_death_takes_nothing_along(store):
    @ray.remote(num_cpus=0)
    class Trainer:
        def publish(self, store) -> None:
            big = {"a": ("bfloat16", (1000, 1000), np.full((1000, 1000), 9, np.uint16))}
            ray.get(store.begin.remote(1))
            ray.get(store.put_chunk.remote(1, big))
            ray.get(store.commit.remote(1))

    trainer = Trainer.remote()
    ray.get(trainer.publish.remote(store))
    ray.kill(trainer)

    async def pull():
        return await asyncio.wait_for(asyncio.gather(*ray.get(store.fetch.remote()).chunks), 30)

    (chunk,) = asyncio.run(pull())
    assert (chunk["a"][2] == 9).all()


def test_a_store_that_came_back_empty_does_not_repeat_what_replicas_have_seen(store):
    """Else one that pulled the old version 1 would take the new one for it."""
    before = publish(store, 1, 10)
    ray.kill(store, no_restart=True)
    again = ray.remote(WeightStore).options(num_cpus=0).remote()
    assert ray.get(again.serial.remote()) == 0
    assert publish(again, 1, 11) > before
