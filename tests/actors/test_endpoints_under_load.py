"""Endpoints that are slow, busy, strict and paid for: what waits, what is asked again, what is never paid twice."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import openai_client
from actors.committee import Committee
from actors.endpoint_gate import Gate, _Rate
from actors.execution import Executor
from actors.openai_client import ChatClient
from actors.queueing import WorkClock, queueing, stopping, work_timeout
from actors.reply_store import KEPT_IN, ReplyStore, kept_in
from actors.verifiers import make
from actors.verifiers.base import Asked
from pipeline import config
from pipeline.config import EndpointUse
from pipeline.records import Failure, Halt, Problem, Vote
from tests.actors.endpoint import chat, endpoint, response, says, sends
from tests.actors.pools import no_sandbox
from tests.mini import MINI, changed

MESSAGES = [{"role": "user", "content": "hello"}]
AGREES = "\\boxed{51}\n" + json.dumps({"vote": 1, "rationale": "because", "flags": []})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(openai_client, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(openai_client, "_POLL_S", 0.001)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Where replies are kept, for a run."""
    path = tmp_path / "kept" / "replies.sqlite"
    monkeypatch.setenv(KEPT_IN, kept_in(path, "run"))
    return path


def slow(seconds, reply):
    """Answers after some time, and remembers how many it worked on at once."""
    at = {"now": 0, "most": 0}

    async def behave(n, body, writer):
        at["now"] += 1
        at["most"] = max(at["most"], at["now"])
        try:
            await asyncio.sleep(seconds)
        finally:  # whoever asked may have gone
            at["now"] -= 1
        writer.write(reply)

    behave.at = at
    return behave


def talk(behaviour, calls, retries=0, timeout_s=20, model="m", **use):
    """Replies or errors of `calls` (dicts over what every call has in common), side by side, and what was sent."""

    async def main():
        async with endpoint(behaviour) as requests:
            client = ChatClient(requests.url, model, timeout_s=timeout_s, retries=retries, use=EndpointUse(**use))
            asked = [{"messages": MESSAGES, "temperature": 0.5, "max_tokens": 9} | call for call in calls]
            results = await asyncio.gather(*(client.complete(**a) for a in asked), return_exceptions=True)
            await client.close()
            return results, requests

    return asyncio.run(main())


# ---------------------------------------------------------------- queues


def decided(n, reply_s, **section):
    """The verdicts on n problems that come at once, by two models behind one endpoint."""

    async def main():
        async with endpoint(behaviour := slow(reply_s, response(chat(AGREES)))) as requests:
            settings = config.ModelVerifierConfig(base_url=requests.url, model="m", samples=1, **section)
            judges = [make(settings, i, Executor(no_sandbox), None) for i in range(2)]
            committee = Committee.of(
                changed(MINI.committee, verifiers=(settings, settings), allow_same_model=True), judges
            )
            problems = [Problem.make(f"What is {i} + {51 - i}?", "51") for i in range(n)]
            verdicts = await committee.judge_many([(p, None, ()) for p in problems])
            return verdicts, behaviour.at["most"]

    return asyncio.run(main())


def test_none_of_256_problems_at_once_is_undecided_for_waiting():
    verdicts, _ = decided(256, 0.1, timeout_s=2, concurrency=16)  # 3.2 s of replies, one after the other
    assert [v.reason for v in verdicts if not v.accepted] == []


def test_an_endpoint_has_as_many_calls_at_once_as_it_may():
    verdicts, most = decided(256, 0.05, timeout_s=120, concurrency=16)
    assert [v.reason for v in verdicts if not v.accepted] == []
    assert most == 16


@pytest.mark.slow
def test_none_of_256_problems_at_an_endpoint_of_ten_seconds_a_reply():
    verdicts, _ = decided(256, 10, timeout_s=60, concurrency=64)  # 160 s of replies, one after the other
    assert [v.reason for v in verdicts if not v.accepted] == []


def test_a_call_that_is_under_way_has_its_deadline_and_one_that_waits_has_none():
    results, requests = talk(slow(0.25, response(chat())), [{"seed": i} for i in range(8)], timeout_s=1, concurrency=1)
    assert results == ["hi"] * 8 and len(requests) == 8
    results, _ = talk(slow(5, response(chat())), [{"seed": 1}], timeout_s=0.05)
    assert "within 0.05 s" in str(results[0])


def test_those_who_ask_one_endpoint_share_its_places():
    async def main():
        async with endpoint(behaviour := slow(0.02, response(chat()))) as requests:
            clients = [ChatClient(requests.url, name, use=EndpointUse(concurrency=3)) for name in ("a", "b")]
            asked = [c.complete(MESSAGES, temperature=0, max_tokens=1, seed=i) for i in range(8) for c in clients]
            await asyncio.gather(*asked)
            return behaviour.at["most"]

    assert asyncio.run(main()) == 3


def test_time_in_a_queue_counts_for_no_deadline_and_work_does():
    async def waits(seconds):
        with queueing():
            await asyncio.sleep(seconds)

    async def main():
        async with work_timeout(0.2), work_timeout(0.15):
            await asyncio.gather(waits(0.3), waits(0.4))
            await asyncio.create_task(waits(0.1))
        with pytest.raises(TimeoutError):
            async with work_timeout(0.05):
                await waits(0.1)
                await asyncio.sleep(5)
        with pytest.raises(TimeoutError):
            async with work_timeout(0.05):
                await asyncio.sleep(5)
        await waits(0.01)  # whose timeouts are over

    asyncio.run(main())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=8))
def test_a_work_clock_counts_all_but_the_waiting(parts):
    now = 0.0
    with stopping(WorkClock(lambda: now)) as clock:
        for waiting, seconds in parts:
            if waiting:
                with queueing(), queueing():
                    now += seconds
            else:
                now += seconds
    assert clock() == sum(seconds for waiting, seconds in parts if not waiting)


# ---------------------------------------------------------------- rates, and endpoints that are busy


@given(st.integers(1, 600), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 50)), min_size=1, max_size=20))
def test_a_rate_is_never_exceeded_by_more_than_what_a_second_saves_up(per_minute, takes):
    now, sent = 0.0, []

    async def sleep(seconds):
        nonlocal now
        now += seconds

    async def main():
        nonlocal now
        rate = _Rate(per_minute, lambda: now)
        for pause, units in takes:
            now += pause
            await rate.take(units)
            sent.append((now, units))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("actors.endpoint_gate.asyncio.sleep", sleep)
        asyncio.run(main())
    for i, (begin, _) in enumerate(sent):
        for j in range(i, len(sent)):  # all but the last have been paid for when it goes out
            before_last = sum(units for _, units in sent[i:j])
            assert before_last <= (sent[j][0] - begin + 1) * per_minute / 60 + 1e-6


def test_an_endpoint_that_takes_few_at_once_gets_all_done_without_a_failed_try():
    at = 0

    async def strict(n, body, writer):
        nonlocal at
        if at == 4:
            return writer.write(response(b"busy", "429 Too Many Requests", "Retry-After: 0.02\r\n"))
        at += 1
        await asyncio.sleep(0.01)
        at -= 1
        writer.write(response(chat()))

    results, _ = talk(strict, [{"seed": i} for i in range(64)], retries=0, concurrency=32)
    assert results == ["hi"] * 64


def test_who_is_told_to_wait_keeps_all_others_waiting_too():
    times = []

    async def behave(n, body, writer):
        times.append(time.monotonic())
        head = "Retry-After: 0.3\r\n"
        writer.write(response(b"busy", "429 Too Many Requests", head) if n == 0 else response(chat()))

    results, _ = talk(behave, [{"seed": i} for i in range(3)], concurrency=1)
    assert results == ["hi"] * 3 and times[1] - times[0] >= 0.3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_who_is_told_to_wait_for_longer_than_allowed_says_so_at_once(form):
    wait = "700" if form == "seconds" else formatdate(time.time() + 900, usegmt=True)
    busy = response(b"busy", "429 Too Many Requests", f"Retry-After: {wait}\r\n")
    (failure,), requests = talk(sends(busy), [{}], retries=4)
    assert failure.kind == "infra_error" and "more than max_wait_s (600)" in str(failure) and len(requests) == 1


def test_nobody_who_waits_for_his_rate_passes_a_gate_that_was_closed_meanwhile():
    async def main():
        gate, passed = Gate(4, requests_per_minute=1200), []

        async def call(n):
            async with gate.place(1):
                passed.append(n)

        calls = [asyncio.create_task(call(n)) for n in range(4)]
        await asyncio.sleep(0.01)
        gate.close()
        before = len(passed)
        opened = asyncio.create_task(gate.reopen(0.4))
        await asyncio.sleep(0.3)  # all their rates have come by now
        assert len(passed) == before < 4
        await asyncio.gather(opened, *calls)
        assert len(passed) == 4

    asyncio.run(main())


def test_a_busy_endpoint_is_asked_by_half_as_many_once_a_round():
    async def main():
        gate = Gate(16)
        eras = []
        for _ in range(8):
            async with gate.place(1) as era:
                eras.append(era)
        for era in eras:
            gate.busy(era)
        assert gate.at_once == 8
        for _ in range(100):
            gate.answered(1, 1)
        assert gate.at_once == 16

    asyncio.run(main())


def test_a_call_that_is_given_up_while_it_waits_leaves_its_place_to_others():
    async def main():
        gate = Gate(1)

        async def hold(seconds):
            async with gate.place(1):
                await asyncio.sleep(seconds)

        first, second, third = (asyncio.create_task(hold(s)) for s in (0.05, 9, 0))
        await asyncio.sleep(0.01)
        assert (gate.under_way, gate.waiting) == (1, 2)
        second.cancel()
        await asyncio.wait_for(asyncio.gather(first, third), 5)
        assert (gate.under_way, gate.waiting) == (0, 0)

    asyncio.run(main())


# ---------------------------------------------------------------- what is sent, and how a reply ended


def sent(**use):
    _, (request,) = talk(says("hi"), [{"schema": {"type": "object"}}], **use)
    return {k: v for k, v in request.items() if k not in ("_headers", "messages", "model")}


def test_requests_are_in_the_endpoints_own_words():
    plain = sent()
    assert plain.keys() == {"temperature", "max_tokens", "response_format"}
    assert sent(max_tokens_field="max_completion_tokens").keys() == plain.keys() - {"max_tokens"} | {
        "max_completion_tokens"
    }
    assert sent(top_k=20)["top_k"] == 20
    assert sent(thinking=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "response_format" not in sent(extra_body={"response_format": None})
    more = sent(extra_body={"reasoning_effort": "low", "temperature": None, "max_tokens": 99})
    assert more["reasoning_effort"] == "low" and more["max_tokens"] == 99 and "temperature" not in more


@pytest.mark.parametrize("finish, says_so", [("length", "cut off at 9 tokens"), ("content_filter", "filter held")])
def test_a_reply_that_did_not_come_to_its_end_is_no_reply(finish, says_so):
    (failure,), _ = talk(sends(response(chat('{"answer": "5', finish))), [{}])
    assert failure.kind == "model_error" and says_so in str(failure)


# ---------------------------------------------------------------- replies that are kept


def test_the_same_request_is_paid_once_and_another_one_again(kept):
    calls = [{"seed": 1}, {"seed": 2}, {"seed": 1, "temperature": 0.6}, {"seed": 1, "max_tokens": 8}]
    calls += [{"seed": 1, "messages": [{"role": "user", "content": "hello!"}]}, {}]

    async def main():
        async with endpoint(says(*map(str, range(99)))) as requests:

            async def ask(call, model="m", **use):
                client = ChatClient(requests.url, model, use=EndpointUse(**use))
                return await client.complete(**({"messages": MESSAGES, "temperature": 0.5, "max_tokens": 9} | call))

            first = [await ask(call) for call in calls]
            first += [await ask({}, "other"), await ask({}, top_k=5), await ask({}, extra_body={"x": 1})]
            assert first == list(map(str, range(9)))
            again = [await ask(call) for call in calls]
            again += [await ask({}, "other"), await ask({}, top_k=5), await ask({}, extra_body={"x": 1})]
            return first, again, len(requests), requests.url

    first, again, asked, url = asyncio.run(main())
    assert again == first and asked == 9
    assert ReplyStore(str(kept), "run").spent()[url] == {"calls": 9, "kept": 9} | {
        "tokens": pytest.approx(95, abs=45), "usd": 0,
    }  # fmt: skip


def test_a_failure_is_not_kept(kept):
    results, requests = talk(sends(response(b"", "500 Oh"), response(b"", "500 Oh"), response(chat())), [{}], retries=0)
    assert isinstance(results[0], Failure) and len(requests) == 1
    assert talk(says("hi"), [{}])[0] == ["hi"]


def test_a_judge_that_is_asked_again_costs_nothing(kept):
    async def main():
        problem = Problem.make("What is 50 + 1?", "51")
        async with endpoint(says(AGREES)) as requests:
            section = config.ModelVerifierConfig(base_url=requests.url, model="m", samples=3)
            votes: list[Vote] = []
            for _ in range(2):
                judge = make(section, 0, Executor(no_sandbox), None)
                votes.append(await judge.vote(problem, "the work", Asked(None, (), ()), 0))
            return votes, len(requests)

    (first, second), asked = asyncio.run(main())
    assert first == second and asked == 6  # it solves, then it reviews


# ---------------------------------------------------------------- budgets

PRICED = response(chat(usage={"prompt_tokens": 10, "completion_tokens": 5}))


def test_a_budget_is_never_exceeded_however_many_ask_at_once(kept):
    results, requests = talk(slow(0.001, PRICED), [{"seed": i} for i in range(60)], budget_tokens=300)
    halts = [r for r in results if isinstance(r, Halt)]
    assert results.count("hi") == len(requests) and len(halts) == 60 - len(requests)
    assert 18 <= len(requests) <= 20  # 15 tokens each, the last one as much as it may take at most
    assert "budget_tokens 300" in str(halts[0]) and "\n" not in str(halts[0])


def test_a_budget_in_money_holds_across_processes_and_resumptions(kept):
    use = {"budget_usd": 0.001, "usd_per_million_in": 10, "usd_per_million_out": 20}  # $0.0002 a call
    store = ReplyStore(str(kept), "run")  # of another process, which died with a call under way

    async def main():
        async with endpoint(sends(PRICED)) as requests:
            assert store.set_aside(requests.url, 1, 0.0005, time.time() - 1, None, 0.001)
            client = ChatClient(requests.url, "m", use=EndpointUse(**use))
            for seed in range(9):
                try:
                    await client.complete(MESSAGES, temperature=0, max_tokens=9, seed=seed)
                except Halt:
                    break
            before = len(requests)
            store.forget_open()
            for seed in range(9):
                try:
                    await client.complete(MESSAGES, temperature=0, max_tokens=9, seed=seed)
                except Halt:
                    break
            return before, len(requests), store.spent()[requests.url]["usd"]

    before, after, usd = asyncio.run(main())
    assert before < after <= 5 and usd == pytest.approx(0.0002 * after) and usd <= 0.001


def test_a_call_that_nobody_answered_counts_as_if_it_had_cost_the_most(kept):
    talk(slow(9, response(chat())), [{}], timeout_s=0.05, budget_tokens=300)
    (spent,) = ReplyStore(str(kept), "run").spent().values()
    assert spent["tokens"] == 9 + 8 + 3


def test_a_budget_that_is_spent_ends_the_run_and_costs_no_vote():
    async def main():
        async with endpoint(sends(PRICED)) as requests:
            section = config.ModelVerifierConfig(base_url=requests.url, model="m", budget_tokens=5)
            judge = make(section, 0, Executor(None), None)
            committee = Committee.of(changed(MINI.committee, verifiers=(section,), quorum=1, required=1), [judge])
            return await committee.judge(Problem.make("1 + 1?", "2"), None, ())

    with pytest.raises(Halt, match="budget_tokens 5"):
        asyncio.run(main())


def test_money_needs_prices():
    with pytest.raises(ValueError, match="budget_usd"):
        EndpointUse(budget_usd=1)
