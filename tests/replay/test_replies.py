"""Every reply is read as a careful person reads it, and nothing is read where there is nothing."""

from __future__ import annotations

import pytest

from tests.replay.replies import PARSERS, is_read, recorded

REPLIES = [reply for prompt in PARSERS for reply in recorded(prompt)]


def test_there_are_replies_of_many_habits_to_every_prompt() -> None:
    assert len(REPLIES) >= 156
    for prompt in PARSERS:
        assert len({r.habit.partition(",")[0] for r in REPLIES if r.prompt == prompt}) >= 3
        assert len({r.habit for r in REPLIES if r.prompt == prompt}) == sum(r.prompt == prompt for r in REPLIES)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda r: f"{r.prompt}: {r.habit}")
def test_a_reply_is_read(reply) -> None:
    assert is_read(reply), PARSERS[reply.prompt](reply.text)
