"""The rollout buffer: what is put is written once, with its rewards, and forgotten."""

import asyncio

import pyarrow.parquet as pq
import pytest

from pipeline.pools.buffer import RolloutBuffer
from pipeline.records import Failure, Rollout
from tests.pipeline.judged import rollout


def play(*rollouts):
    buffer = RolloutBuffer()

    async def put():
        for r in rollouts:
            await buffer.put(r.episode_id, r.attempt, Rollout.to_arrow([r]))

    asyncio.run(put())
    return buffer


def write(buffer, folder, rows):
    return asyncio.run(buffer.write(str(folder), rows))


def saved(folder):
    return Rollout.from_arrow(pq.read_table(folder / "rollouts.parquet"))


def test_rollouts_are_written_as_put_with_their_rewards(tmp_path):
    a, b = rollout("a", tokens=3, actions=2), rollout("b", tokens=5)
    tokens = write(play(a, b), tmp_path, [(("b", 1), [0.5], 2.0), (("a", 1), [0.25, -0.25], 0.0)])
    assert tokens == 8
    assert saved(tmp_path) == [
        b.model_copy(update={"process_rewards": (0.5,), "terminal_reward": 2.0}),
        a.model_copy(update={"process_rewards": (0.25, -0.25), "terminal_reward": 0.0}),
    ]


def test_a_retried_put_is_one_rollout_the_last(tmp_path):
    buffer = play(rollout("a", tokens=3), rollout("a", tokens=6))
    assert write(buffer, tmp_path, [(("a", 1), [0.0], 0.0)]) == 6
    with pytest.raises(Failure):
        write(buffer, tmp_path, [(("a", 1), [0.0], 0.0)])


def test_attempts_are_apart(tmp_path):
    buffer = play(rollout("a", attempt=1, tokens=3), rollout("a", attempt=2, tokens=6))
    write(buffer, tmp_path, [(("a", 2), [0.0], 0.0)])
    assert [r.attempt for r in saved(tmp_path)] == [2]


def test_what_is_dropped_is_forgotten_and_the_others_are_not(tmp_path):
    buffer = play(rollout("a"), rollout("b"))
    asyncio.run(buffer.drop([("a", 1), ("never", 1)]))
    with pytest.raises(Failure):
        write(buffer, tmp_path, [(("a", 1), [0.0], 0.0)])
    write(buffer, tmp_path, [(("b", 1), [0.0], 0.0)])


def clear(buffer, _):
    asyncio.run(buffer.clear())


def write_one(buffer, folder):
    write(buffer, folder, [(("b", 1), [0.0], 0.0)])


@pytest.mark.parametrize("end", [write_one, clear])
def test_a_rollout_that_comes_after_its_attempt_was_given_up_is_gone_when_the_step_ends(tmp_path, end):
    """The driver's call timed out and it dropped the attempt; the replica, being slow, sends it all the same."""
    buffer = play(rollout("b"))
    asyncio.run(buffer.drop([("a", 1)]))
    late = rollout("a", tokens=1000)
    asyncio.run(buffer.put(late.episode_id, late.attempt, Rollout.to_arrow([late])))
    end(buffer, tmp_path)
    assert buffer._waiting == {}


def test_what_came_for_a_step_that_overlaps_outlives_the_end_of_the_one_before(tmp_path):
    buffer = RolloutBuffer(ahead=1)
    for number, name in enumerate("abcd"):
        asyncio.run(buffer.put(name, 1, Rollout.to_arrow([rollout(name)])))  # of the next step
        asyncio.run(buffer.put(f"late-{name}", 1, Rollout.to_arrow([rollout(f"late-{name}")])))
        if number:
            write(buffer, tmp_path, [(("abcd"[number - 1], 1), [0.0], 0.0)])
    assert set(buffer._waiting) == {("d", 1), ("late-d", 1)}


def test_a_rollout_that_never_came_is_an_infrastructure_error_and_nothing_is_written(tmp_path):
    buffer = play(rollout("a"))
    with pytest.raises(Failure, match=r"rollout b \(attempt 2\) is not in the buffer") as caught:
        write(buffer, tmp_path, [(("a", 1), [0.0], 0.0), (("b", 2), [0.0], 0.0)])
    assert caught.value.kind == "infra_error"
    assert not list(tmp_path.iterdir())
    write(buffer, tmp_path, [(("a", 1), [0.0], 0.0)])  # and the other one is still there


@pytest.mark.parametrize("rewards", [[], [0.0], [0.0] * 3])
def test_as_many_process_rewards_as_actions(tmp_path, rewards):
    with pytest.raises(Failure, match=f"rollout a: {len(rewards)} process rewards for 2 actions"):
        write(play(rollout("a", actions=2)), tmp_path, [(("a", 1), rewards, 0.0)])


def test_a_step_without_rollouts_is_a_file_with_their_schema(tmp_path):
    assert write(RolloutBuffer(), tmp_path, []) == 0
    assert pq.read_schema(tmp_path / "rollouts.parquet").equals(Rollout.schema_arrow(), check_metadata=False)
