"""A solver and a proposer that are models behind endpoints: the same calls as of those with engines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from actors.canary import Leak, secret
from actors.chat_templates import PlainText
from actors.solver import EndpointSolver
from actors.teacher import EndpointPolicy, TeacherProposer
from actors.tool_calls import render
from pipeline.config import EndpointConfig, SamplingConfig
from pipeline.domains.base import Domain
from pipeline.records import Failure
from tests.actors.endpoint import chat, endpoint, response, says, sends
from tests.mini import MINI
from tests.pipeline.judged import Remote, task

SAMPLING = SamplingConfig(temperature=0.3, top_p=0.9, max_tokens=77)


def solving(behaviour, ask):
    async def main():
        async with endpoint(behaviour) as requests:
            section = EndpointConfig(base_url=requests.url, model="m", retries=0)
            solver = EndpointSolver(section, {"math": "Solve it.", "text": "In a word."})
            return await ask(solver), requests

    return asyncio.run(main())


def test_a_solver_answers_each_time_with_another_seed():
    texts, requests = solving(says("a"), lambda s: s.answers("1 + 1?", 4, SAMPLING, 7))
    assert texts == ["a"] * 4 and len({r["seed"] for r in requests}) == 4
    assert {(r["temperature"], r["top_p"], r["max_tokens"]) for r in requests} == {(0.3, 0.9, 77)}
    assert [m["content"] for m in requests[0]["messages"]] == ["Solve it.", "1 + 1?"]
    many, requests = solving(says("b"), lambda s: s.answers_many(["p?", "q?"], 2, SAMPLING, 7, ["math", "text"]))
    assert many == [[("b", False)] * 2] * 2 and len({r["seed"] for r in requests}) == 4
    told = {r["messages"][1]["content"]: r["messages"][0]["content"] for r in requests}
    assert told == {"p?": "Solve it.", "q?": "In a word."}


def test_no_text_is_an_empty_answer_and_no_endpoint_a_failure():
    assert solving(says(""), lambda s: s.answers("q?", 2, SAMPLING, 7))[0] == ["", ""]
    with pytest.raises(Failure, match="HTTP 500"):
        solving(sends(response(b"", "500 Oh")), lambda s: s.answers("q?", 2, SAMPLING, 7))
    with pytest.raises(Leak):
        solving(says("a"), lambda s: s.answers(f"q? {secret(1)}", 2, SAMPLING, 7))


def proposing(behaviour):
    """(episode, requests, what reached the sink) of a proposer behind such an endpoint."""

    async def main():
        async with endpoint(behaviour) as requests:
            sent = []

            async def put(*args):
                sent.append(args)

            policy = EndpointPolicy(EndpointConfig(base_url=requests.url, model="m"), SAMPLING)
            sink = SimpleNamespace(put=Remote(put))
            replica = TeacherProposer(
                policy, None, MINI.episode, None, sink, "You write.", Domain.answer_kind.__get__(0)
            )
            return await replica.episode(task(), 1), requests, sent

    return asyncio.run(main())


SUBMIT = f"## Finalize\n{render('submit', {'question': 'What is 1 + 1?', 'answer': '2'})}"


def test_a_proposer_plays_an_episode_with_no_tokenizer_at_hand():
    episode, requests, sent = proposing(says("## Draft\nA sum.", SUBMIT))
    assert episode.submitted is not None and episode.submitted.answer == "2" and len(sent) == 1
    assert len(requests) == 2 and requests[0]["seed"] != requests[1]["seed"]
    assert requests[1]["messages"][2] == {"role": "assistant", "content": "## Draft\nA sum."}


def test_a_turn_that_is_cut_off_is_marked_and_told_of_and_a_message_that_is_cut_off_is_none():
    cut, whole = response(chat(SUBMIT[:60], "length")), response(chat(SUBMIT))
    episode, requests, _ = proposing(sends(cut, whole))
    assert [turn.truncated for turn in episode.turns] == [True, False] and episode.submitted is not None
    assert "Malformed call" in requests[1]["messages"][-1]["content"]

    async def asked():
        async with endpoint(sends(cut)) as requests:
            policy = EndpointPolicy(EndpointConfig(base_url=requests.url, model="m"), SAMPLING)
            return await policy.complete([{"role": "user", "content": "Which skills?"}])

    with pytest.raises(Failure, match="cut off at 77 tokens") as e:
        asyncio.run(asked())
    assert e.value.kind == "model_error"


@pytest.mark.parametrize("text", ["", "a", "ab", "naïve ✓", "x" * 100])
def test_plain_text_comes_back(text):
    chat = PlainText()
    ids = chat.encode_text(text)
    assert chat.decode(ids) == text and chat.eos_id not in ids and len(ids) == -(-len(text.encode()) // 3)
