"""When a replica pulls, when it takes a push, and when it had better end: without an engine, and without Ray."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors import replica as module
from actors.replica import PolicyReplica
from actors.solver import Solver
from pipeline import config
from pipeline.records import Failure
from tests.mini import MINI, changed


class Engine:
    """Does what it is told at once, and remembers."""

    def __init__(self, *_: Any):
        self.version = 0
        self.did: list[Any] = []

    async def load(self, version: int, chunks: list[Any]) -> None:
        self.did.append(("load", version))
        self.version = version

    async def init_transport(self, info: Any) -> None:
        self.did.append(("init", info))

    async def start_update(self) -> None:
        self.did.append("start")

    async def update(self, info: Any) -> None:
        self.did.append(("update", info))

    async def finish_update(self, version: int) -> None:
        self.did.append(("finish", version))
        self.version = version

    async def generate(self, *_: Any) -> None:
        raise self.failure

    async def check_health(self) -> None:
        raise self.failure

    def stop(self) -> None:
        pass


class Store:
    """A weight store of one version, without tensors."""

    def __init__(self) -> None:
        self.published: Any = None
        remote = {"fetch": lambda: self._told(self.published), "serial": lambda: self._told(self._serial())}
        for name, method in remote.items():
            setattr(self, name, SimpleNamespace(remote=method))

    async def _told(self, value: Any) -> Any:
        return value

    def _serial(self) -> int:
        return self.published.serial if self.published else 0

    def publish(self, version: int, serial: int) -> None:
        self.published = SimpleNamespace(version=version, serial=serial, chunks=())


@pytest.fixture
def ended(monkeypatch):
    """Exit codes of the replica's process."""
    codes: list[int] = []
    monkeypatch.setattr(module, "PolicyEngine", Engine)
    monkeypatch.setattr(module.os, "_exit", codes.append)
    return codes


def make(**engine: Any) -> tuple[PolicyReplica, Engine, Store]:
    store = Store()
    replica = PolicyReplica("", changed(MINI.proposer.engine, weight_transport="nccl", **engine), 0, store, None)
    return replica, replica._engine, store  # type: ignore[return-value]


async def push(replica: PolicyReplica, version: int, serial: int) -> None:
    await replica.transport("start")
    await replica.transport("update", version)
    await replica.transport("finish", (version, serial))


def play(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


@pytest.mark.parametrize(("kind", "leaves"), [("infra_error", True), ("data_error", False)])
def test_a_solver_whose_engine_died_leaves_and_one_that_was_asked_too_much_stays(ended, kind, leaves):
    async def scene():
        solver = Solver.__new__(Solver)
        PolicyReplica.__init__(solver, "", MINI.proposer.engine, 0, None, None)
        solver._engine.failure = Failure("no more", kind)
        with pytest.raises(Failure, match="no more"):
            await solver._complete([1], 1, config.SamplingConfig(), 0)

    play(scene)
    assert ended == [1] * leaves


def test_what_was_pushed_is_not_pulled_and_what_was_missed_is(ended):
    async def scene():
        replica, engine, store = make()
        name, workers = await replica.transport("join")
        assert workers == 1
        assert await replica.transport("init", {name: {"port": 1}, "another": {"port": 2}}) == name
        store.publish(1, 100)
        await replica._catch_up()  # a version from before it joined
        await push(replica, 2, 101)
        assert engine.did == [("init", {"port": 1}), ("load", 1), "start", ("update", 2), ("finish", 2)]
        engine.did.clear()
        await replica._catch_up()  # the store still has version 1
        store.publish(2, 101)
        await replica._catch_up()
        assert await replica.sync(2) == 2 and engine.did == []
        store.publish(3, 102)  # a push that this one was not in
        await replica._catch_up()
        store.publish(2, 103)  # the trainer went back: an older number, other weights
        await replica._catch_up()
        assert engine.did == [("load", 3), ("load", 2)]
        assert ended == []

    play(scene)


def test_one_that_the_trainer_does_not_count_on_takes_no_part(ended):
    async def scene():
        replica, engine, _ = make(tensor_parallel_size=4)
        name, workers = await replica.transport("join")
        assert workers == 4
        for step in ("start", "update", "finish"):  # joined after the others had met
            assert await replica.transport(step, (7, 100)) is None
        assert await replica.transport("init", {"another": {}}) is None
        await replica.transport("init", {name: {}})
        assert await replica.transport("start") == name
        await replica.transport("finish", (1, 100))
        assert await replica.transport("init", {"another": {}}) is None  # a new trainer, that missed it
        assert await replica.transport("start") is None
        assert engine.did == [("init", {}), "start", ("finish", 1)]

    play(scene)


def test_a_pull_waits_for_a_push(ended):
    async def scene():
        replica, engine, store = make()
        name, _ = await replica.transport("join")
        await replica.transport("init", {name: {}})
        await replica.transport("start")
        store.publish(1, 100)
        pull = asyncio.create_task(replica.sync(1))
        await asyncio.sleep(0.05)
        assert not pull.done() and engine.did == [("init", {}), "start"]
        await replica.transport("finish", (2, 101))
        await pull
        assert engine.did[2:] == [("finish", 2)] and engine.version == 2

    play(scene)


@pytest.mark.parametrize("how", ["the next trainer comes", "nobody comes"])
def test_a_push_left_unfinished_ends_the_process(ended, how):
    async def scene():
        replica, engine, _ = make(start_timeout_s=60 if how == "the next trainer comes" else 0.1)
        name, _ = await replica.transport("join")
        await replica.transport("init", {name: {}})
        await push(replica, 1, 100)
        await asyncio.sleep(0.2)
        assert ended == []  # finished in time
        await replica.transport("start")
        await replica.transport("update", 2)
        if how == "the next trainer comes":
            await replica.transport("join")
        else:
            await asyncio.sleep(0.3)
        assert ended == [1] and engine.version == 1

    play(scene)


def test_a_version_that_the_store_does_not_have_is_not_served(ended):
    async def scene():
        replica, _, store = make()
        store.publish(1, 100)
        with pytest.raises(Failure, match="weights version 2: the store's newest is 1"):
            await replica.sync(2)

    play(scene)
