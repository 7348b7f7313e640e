"""Several teachers by weight, a model in a pool of ours as one, and styles that only the teacher reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from actors.episode import turn_seed
from actors.teacher import PoolTeacher, TeacherProposer, Teachers, in_style, of, pick, told
from actors.tool_calls import render
from pipeline.config import SamplingConfig
from pipeline.domains.base import Domain
from pipeline.records import Failure
from tests.mini import MINI
from tests.pipeline.judged import Remote, task


class Says:
    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    async def complete(self, messages, seed=0):
        self.asked.append((messages, seed))
        return self.replies[min(len(self.asked), len(self.replies)) - 1]


def test_a_seed_has_one_teacher_and_over_seeds_each_has_its_share():
    counts = Counter(pick([3, 1], seed) for seed in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)
    assert [pick([3, 1], s) for s in range(50)] == [pick([6, 2], s) for s in range(50)]
    one, other = Says("one"), Says("other")
    both = Teachers([one, other], [1, 1])
    assert {of(both, seed) for seed in range(50)} == {one, other} and of(one, 3) is one
    assert asyncio.run(both.complete([], seed=5)) == asyncio.run(of(both, 5).complete([], seed=5))


def pool(*replies):
    async def reply(messages, sampling, seed):
        return replies[0] if len(replies) == 1 else replies[len(handle.reply.calls) - 1]

    handle = SimpleNamespace(reply=Remote(reply))
    return handle


def test_a_pool_is_asked_as_an_endpoint_is_each_turn_with_a_seed_of_its_own():
    handle, sampling = pool(("fine", False)), SamplingConfig()
    teacher = PoolTeacher(handle, "m", sampling, 9)
    ask = [{"role": "user", "content": "q"}]
    more = [*ask, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}]
    assert [asyncio.run(teacher.complete(m, seed=7)) for m in (ask, more)] == ["fine", "fine"]
    assert handle.reply.calls == [(ask, sampling, turn_seed(7, 0, 0)), (more, sampling, turn_seed(7, 0, 1))]


@pytest.mark.parametrize("reply, why", [(("half", True), "cut off"), (("  ", False), "no text")])
def test_a_reply_that_is_none_is_the_models_fault(reply, why):
    with pytest.raises(Failure, match=why) as failed:
        asyncio.run(PoolTeacher(pool(reply), "m", SamplingConfig(), 9).complete([], seed=1))
    assert failed.value.kind == "model_error"


def test_a_pool_that_does_not_answer_is_infrastructure():
    async def never(*_):
        await asyncio.sleep(60)

    teacher = PoolTeacher(SimpleNamespace(reply=Remote(never)), "model m", SamplingConfig(), 0.01)
    with pytest.raises(Failure, match="model m: no answer within") as failed:
        asyncio.run(teacher.complete([], seed=1))
    assert failed.value.kind == "infra_error"


def test_a_style_is_told_to_the_teacher_in_its_share_and_not_to_the_student():
    styles = {"checked": (1.0, "Check twice."), "pruned": (3.0, "Drop one."), "refined": (0.0, "Thrice.")}
    asked = Counter(in_style(styles, seed) for seed in range(4000))
    assert set(asked) == {"Check twice.", "Drop one."} and asked["Drop one."] / 4000 == pytest.approx(0.75, abs=0.03)
    assert in_style({}, 1) == "" and told([{"role": "system", "content": "s"}], "") == [
        {"role": "system", "content": "s"}
    ]

    async def put(*args):
        sent.append(args)

    sent: list = []
    submit = render("submit", {"question": "What is 1 + 1?", "answer": "2"})
    teacher = Says("## Draft\nA sum.", f"## Finalize\n{submit}")
    replica = TeacherProposer(
        teacher, None, MINI.episode, None, SimpleNamespace(put=Remote(put)), "You write.",
        Domain.answer_kind.__get__(0), {"checked": (1.0, "Check twice.")},
    )  # fmt: skip
    asyncio.run(replica.episode(task(), 1))
    assert [m[0]["content"].endswith("\n\nCheck twice.") for m, _ in teacher.asked] == [True, True]
    bare = Says(*teacher.replies)
    plain = TeacherProposer(
        bare, None, MINI.episode, None, SimpleNamespace(put=Remote(put)), "You write.", Domain.answer_kind.__get__(0)
    )
    asyncio.run(plain.episode(task(), 1))
    assert len(sent) == 2 and sent[0] == sent[1]  # the rollouts to learn from are the same
