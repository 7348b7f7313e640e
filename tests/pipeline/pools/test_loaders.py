"""Loaders: whole groups, each row once, the same step again after a restart, no wait without an end."""

import asyncio
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pools.loaders import DatasetLoader, StepLoader, shard_groups
from pipeline.records import Rollout, Stalled
from pipeline.store.manifest import seal_folder
from tests.pipeline.judged import rollout


def table(groups):
    """A rollout for each (group, tokens)."""
    rows = [rollout(f"e{i}", group=g, tokens=n) for i, (g, n) in enumerate(groups)]
    return pa.Table.from_batches([Rollout.to_arrow(rows)], schema=Rollout.schema_arrow())


rows = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 30)), max_size=24)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 7))
def test_shards_hold_each_row_once_and_never_split_a_group(groups, world):
    whole = table(groups)
    shards = shard_groups(whole, world)
    assert len(shards) == world
    assert all(s.schema.equals(whole.schema) for s in shards)
    ids = [name for s in shards for name in s.column("episode_id").to_pylist()]
    assert Counter(ids) == Counter(whole.column("episode_id").to_pylist())
    places = [(g, rank) for rank, s in enumerate(shards) for g in set(s.column("group_id").to_pylist())]
    assert len(places) == len({g for g, _ in places})
    # Greedy by load: no rank is ahead of another by more than one group.
    loads = [sum(len(t) for t in s.column("token_ids").to_pylist()) for s in shards]
    largest = max((sum(n for g, n in groups if g == name) for name in {g for g, _ in groups}), default=0)
    assert max(loads) - min(loads) <= largest


def test_the_heaviest_groups_are_placed_first():
    shards = shard_groups(table([("a", 1), ("b", 1), ("c", 2)]), 2)
    assert sorted(sorted(s.column("group_id").to_pylist()) for s in shards) == [["a", "b"], ["c"]]


@pytest.fixture(scope="module")
def local_ray():
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def ids(work):
    return [name for batch in work.batches for name in ray.get(batch).column("episode_id").to_pylist()]


def step_on_disk(root, number, groups=(("a", 3), ("b", 4))):
    folder = root / f"{number:06d}"
    folder.mkdir()
    pq.write_table(table(list(groups)), folder / "rollouts.parquet")
    seal_folder(folder, f"steps/mgpo/{folder.name}", ["rollouts.parquet"])
    return str(folder)


def asynchronously(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def is_waiting(task):
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    return not task.done()


@pytest.mark.engine
def test_a_step_is_served_once_released_and_its_end_is_told(local_ray, tmp_path):
    async def scene():
        loader = StepLoader([], timeout_s=10)
        asking = [asyncio.create_task(loader.next_batch(rank, 2, 1)) for rank in (0, 1)]
        waiting = asyncio.create_task(loader.wait_done(1))
        assert all([await is_waiting(t) for t in (*asking, waiting)])
        await loader.release(1, step_on_disk(tmp_path, 1))
        parts = [await t for t in asking]
        assert [p.step for p in parts] == [1, 1]
        assert sorted(ids(parts[0]) + ids(parts[1])) == ["e0", "e1"] and ids(parts[0]) and ids(parts[1])
        assert await is_waiting(waiting)
        await loader.step_done(1, {"loss": 0.5})
        assert await waiting == {"loss": 0.5}

    asynchronously(scene())


@pytest.mark.engine
def test_after_finish_there_is_nothing_past_the_last_released_step(local_ray, tmp_path):
    async def scene():
        loader = StepLoader([step_on_disk(tmp_path, 1)], timeout_s=10)
        asking = asyncio.create_task(loader.next_batch(0, 1, 2))
        assert await is_waiting(asking)
        await loader.finish()
        assert await asking is None
        assert (await loader.next_batch(0, 1, 1)).step == 1

    asynchronously(scene())


@pytest.mark.engine
def test_a_step_asked_for_again_is_the_same_whatever_the_world(local_ray, tmp_path):
    async def scene():
        loader = StepLoader([step_on_disk(tmp_path, n, [("a", n), ("b", n)]) for n in (1, 2)], timeout_s=10)
        first = [ray.get(b) for b in (await loader.next_batch(0, 1, 1)).batches]
        await loader.next_batch(0, 1, 2)
        again = [ray.get(b) for b in (await loader.next_batch(0, 1, 1)).batches]
        assert first == again
        halves = [ids(await loader.next_batch(rank, 2, 1)) for rank in (0, 1)]
        assert sorted(halves[0] + halves[1]) == ["e0", "e1"]

    asynchronously(scene())


def test_a_trainer_that_goes_on_from_its_checkpoint_has_trained_what_was_before():
    async def scene():
        loader = StepLoader([], timeout_s=10)
        waiting = [asyncio.create_task(loader.wait_done(step)) for step in (1, 4, 5)]
        asking = asyncio.create_task(loader.next_batch(0, 1, 5))
        assert [await waiting[0], await waiting[1]] == [{}, {}]
        assert await is_waiting(waiting[2])
        await loader.step_done(5, {"loss": 1.0})
        assert await waiting[2] == {"loss": 1.0}
        await loader.finish()
        assert await asking is None

    asynchronously(scene())


def test_a_rank_that_is_ahead_does_not_make_a_step_done():
    """Rank 1 asks for step 2 while rank 0 still publishes the weights of step 1."""

    async def scene():
        loader = StepLoader([], timeout_s=10)
        waiting = asyncio.create_task(loader.wait_done(1))
        asking = asyncio.create_task(loader.next_batch(1, 2, 2))
        assert await is_waiting(waiting)
        await loader.step_done(1, {"loss": 1.0})
        assert await waiting == {"loss": 1.0}
        await loader.finish()
        assert await asking is None

    asynchronously(scene())


@pytest.mark.engine
def test_a_trainer_that_replays_steps_does_not_undo_what_was_waited_for(local_ray, tmp_path):
    async def scene():
        loader = StepLoader([step_on_disk(tmp_path, n) for n in (1, 2)], timeout_s=10)
        for step in (1, 2):
            await loader.next_batch(0, 1, step)
            await loader.step_done(step, {"loss": float(step), "time/train_s": 7.0})
        for step in (1, 2):
            await loader.next_batch(0, 1, step)
            await loader.step_done(step, {"loss": -1.0, "time/train_s": 10.0 + step})
        assert await loader.wait_done(2) == {"loss": 2.0, "time/train_s": 7.0}
        for step in (3, 4):  # what the second time took is said with the first step that is new
            await loader.release(step, step_on_disk(tmp_path, step))
            await loader.step_done(step, {"time/train_s": 7.0})
        assert [(await loader.wait_done(step)).get("time/again_s") for step in (3, 4)] == [23.0, None]

    asynchronously(scene())


@pytest.mark.engine
def test_a_trainer_has_its_deadline_for_each_step_and_not_for_the_sampling(local_ray, tmp_path):
    async def scene():
        loader = StepLoader([step_on_disk(tmp_path, n) for n in (1, 2)], timeout_s=0.4)
        third = asyncio.create_task(loader.wait_done(3))
        for step in (1, 2):  # together longer than the deadline
            await loader.next_batch(0, 1, step)
            await asyncio.sleep(0.25)
            await loader.step_done(step, {})
        asking = asyncio.create_task(loader.next_batch(0, 1, 3))
        await asyncio.sleep(0.6)  # sampling takes longer too
        assert not third.done() and not asking.done()
        await loader.release(3, step_on_disk(tmp_path, 3))
        assert (await asking).step == 3
        with pytest.raises(Stalled, match=r"^no step trained for 0.4 s .* waited for the trainer's step 3$"):
            await third

    asynchronously(scene())


def rollout_files(root, counts):
    files, n = [], 0
    for i, count in enumerate(counts):
        rows = [rollout(f"r{n + j}", group=f"r{n + j}", tokens=2) for j in range(count)]
        path = root / f"{i}.parquet"
        pq.write_table(pa.Table.from_batches([Rollout.to_arrow(rows)]), path)
        files.append(str(path))
        n += count
    seal_folder(root, "steps/sft/000001", [f"{i}.parquet" for i in range(len(counts))])
    return files


def epochs(files, world=1, seed=3, batch=4, n=2):
    async def all_steps():
        loader = DatasetLoader(files, batch, n, seed)
        total = await loader.steps()
        steps = [
            [name for rank in range(world) for name in ids(await loader.next_batch(rank, world, step))]
            for step in range(1, total + 1)
        ]
        assert await loader.next_batch(0, world, total + 1) is None
        return steps

    return asynchronously(all_steps())


@pytest.mark.engine
def test_a_data_set_is_read_once_an_epoch_in_an_order_of_its_own(local_ray, tmp_path):
    files = rollout_files(tmp_path, [4, 0, 6])
    steps = epochs(files)
    assert [len(s) for s in steps] == [4, 4, 2] * 2  # the short last step is kept
    first, second = [[name for s in steps[i : i + 3] for name in s] for i in (0, 3)]
    assert sorted(first) == sorted(second) == sorted(f"r{i}" for i in range(10))
    assert first != second
    assert epochs(files) == steps
    assert epochs(files, seed=4) != steps
    assert [sorted(s) for s in epochs(files, world=3)] == [sorted(s) for s in steps]


def test_the_metrics_of_a_data_set_are_told_from_where_one_left_off(tmp_path):
    async def scene():
        loader = DatasetLoader(rollout_files(tmp_path, [3]), 1, 1, 0)
        for step in (1, 2, 3):
            await loader.step_done(step, {"loss": float(step)})
        assert await loader.done_since(1) == {2: {"loss": 2.0}, 3: {"loss": 3.0}}

    asynchronously(scene())
