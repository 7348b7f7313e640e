"""The proposer behind HTTP: who is let in, what a request is told, and that a request that ends leaves nothing.

The app is asked over ASGI, as a server would; pools follow a script.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.passk import estimate
from pipeline.commands.service import process
from pipeline.commands.service.app import REFUSALS, make_app
from pipeline.commands.service.door import Closed, Door, Full
from pipeline.commands.service.writing import write
from pipeline.flow.stream import Stream
from pipeline.records import Failure, Halt, Outcome
from pipeline.watch import retry
from tests.mini import MINI
from tests.pipeline import made
from tests.pipeline.judged import SKILLS, Remote, episode, task, verdict

KEY = {"Authorization": "Bearer sesame"}
WISH = {"skills": ["first", "second"]}
DONE = {"event": "problem", "status": "accepted", "reason": "", "problem": {"question": "q"}}


# ---------------------------------------------------------------- the door


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=30), st.integers(0, 30))
def test_no_more_are_inside_than_may_be_and_nobody_once_it_is_closed(most, steps, closes_at):
    async def scene():
        door, inside = Door(most), []
        for number, enters in enumerate(steps):
            if number == closes_at:
                door.close()
            if not enters and inside:
                inside.pop().__exit__(None, None, None)
            elif enters:
                place = door.entered()
                refused = Closed if number >= closes_at else Full if len(inside) == most else None
                if refused:
                    with pytest.raises(refused):
                        place.__enter__()
                else:
                    place.__enter__()
                    inside.append(place)
            assert door.inside == len(inside) <= most
        left = asyncio.ensure_future(door.emptied())
        await asyncio.sleep(0)
        assert left.done() == (not inside)
        while inside:
            inside.pop().__exit__(None, None, None)
        await left

    asyncio.run(scene())


# ---------------------------------------------------------------- the routes


class Service:
    """The app over events that a test gives: lists of them, or an exception in the place of one."""

    def __init__(self, *events, most=4):
        self.door, self.tasks, self.ended, self.go = Door(most), [], 0, asyncio.Event()
        self.go.set()
        self._events = events or ({"event": "waiting"}, DONE)
        app = make_app("sesame", {skill.id: skill for skill in SKILLS}, self._write, self.door)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    async def _write(self, task):
        self.tasks.append(task)
        try:
            for event in self._events:
                yield event
                await self.go.wait()
        finally:
            self.ended += 1

    async def ask(self, wish=WISH, headers=KEY):
        return await self.client.post("/v1/problems", json=wish, headers=headers)


def play(scene):
    return asyncio.run(asyncio.wait_for(scene(), 20))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic sesame"}])
def test_without_the_key_nothing_is_begun_and_nothing_told(headers):
    async def scene():
        service = Service()
        for answer in (await service.ask(headers=headers), await service.client.get("/v1/skills", headers=headers)):
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert service.tasks == [] and (await service.client.get("/healthz")).json() == {"inside": 0, "most": 4}

    play(scene)


def test_a_wish_is_a_task_with_its_skills_and_the_answer_its_last_event():
    async def scene():
        service = Service()
        answer = await service.ask(WISH | {"seed": 5})
        assert (answer.status_code, answer.json()) == (200, DONE)
        (made,) = service.tasks
        assert (made.skills, made.category, made.seed) == (SKILLS, "maths", 5)
        assert (await service.ask(WISH | {"seed": 5})).status_code == 200 and service.tasks[1].id != made.id
        await service.ask(WISH)
        await service.ask(WISH | {"category": "code"})
        assert service.tasks[2].seed != service.tasks[3].seed and service.tasks[3].category == "code"
        listed = (await service.client.get("/v1/skills", headers=KEY)).json()
        assert listed[0] == {"id": "first", "category": "maths", "intent": "i"} and len(listed) == 2
        assert (service.ended, service.door.inside) == (4, 0)

    play(scene)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"skills": []}, "at least 1"),
        ({"skills": ["third"]}, "'third'"),
        ({"skills": ["first", "first"]}, "twice"),
        ({"skills": "first"}, "list"),
        ({}, "required"),
        (WISH | {"seed": -1}, "greater than or equal to 0"),
        (WISH | {"temperature": 1}, "not permitted"),
        ({"skills": ["first"] * 17}, "at most 16"),
    ],
)
def test_a_wish_that_cannot_be_says_why(wish, said):
    async def scene():
        service = Service()
        answer = await service.ask(wish)
        assert answer.status_code == 422 and said in json.dumps(answer.json()["detail"])
        assert service.tasks == [] and service.door.inside == 0

    play(scene)


def test_who_comes_when_it_is_full_or_stops_is_refused_and_those_inside_come_to_their_end():
    async def scene():
        service = Service(most=2)
        service.go.clear()
        inside = [asyncio.ensure_future(service.ask()) for _ in range(2)]
        while service.door.inside < 2:
            await asyncio.sleep(0)
        late = await service.ask()
        assert (
            late.status_code == 429 and int(late.headers["retry-after"]) > 0 and "2 requests" in late.json()["detail"]
        )
        assert (await service.ask(WISH | {"stream": True})).status_code == 429
        service.door.close()
        assert (await service.ask()).status_code == (await service.client.get("/healthz")).status_code == 503
        service.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200, 200]
        assert len(service.tasks) == service.ended == 2 and service.door.inside == 0

    play(scene)


def test_what_infrastructure_failed_is_worth_a_retry_and_leaves_its_place():
    async def scene():
        service = Service({"event": "waiting"}, DONE | {"status": "failed", "reason": "replica died"})
        answer = await service.ask()
        assert (answer.status_code, answer.json()) == (503, {"detail": "replica died"})
        assert "retry-after" in answer.headers and (service.ended, service.door.inside) == (1, 0)

    play(scene)


def events_of(text):
    """Server-sent events as a client reads them."""
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        assert name.startswith("event: ") and data.startswith("data: ")
        found.append((name[7:], json.loads(data[6:])))
    return found


def test_a_stream_tells_every_event_and_ends_with_the_problem():
    told = ({"event": "waiting"}, {"event": "episode", "turns": [{"text": "a\n\nb: é"}]}, DONE)

    async def scene():
        service = Service(*told)
        answer = await service.ask(WISH | {"stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert events_of(answer.text) == [(event["event"], event) for event in told]
        assert (service.ended, service.door.inside) == (1, 0)

    play(scene)


def test_every_refusal_is_documented():
    async def scene():
        service = Service()
        return (await service.client.get("/openapi.json")).json()

    api = play(scene)
    asked = api["paths"]["/v1/problems"]["post"]
    assert set(asked["responses"]) == {"200", *map(str, REFUSALS)} and asked["security"] == [{"HTTPBearer": []}]
    assert "security" not in api["paths"]["/healthz"]["get"] and "503" in api["paths"]["/healthz"]["get"]["responses"]
    assert api["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


# ---------------------------------------------------------------- what a request is told


class Pools:
    """Pools that follow a script, the last entry of which goes on."""

    def __init__(self, outcomes=(None,), decision="accepted", correct=5):
        self.outcomes, self.decision, self.correct = list(outcomes), decision, correct
        self.episode, self.judge, self.probe = Remote(self._episode), Remote(self._judge), Remote(self._probe)
        self.drop, self.clear = Remote(self._nothing), Remote(self._nothing)
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.cancelled = 0
        self.stream = Stream(MINI, self, self, self, self)

    async def _episode(self, task, attempt):
        try:
            await self.hangs.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return episode(task, attempt, outcome=outcome)

    async def _judge(self, problem, episode, active):
        return verdict(episode, self.decision)

    async def _probe(self, problem, prober, seed, enough=1):
        return estimate(problem.id, self.correct, 8 - self.correct, 0, 4, prober)

    async def _nothing(self, keys=None): ...


def told(pools):
    async def scene():
        return [event async for event in write(pools.stream, task(), "mini:solver")]

    return play(scene)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(retry, "PAUSE_S", 0.0)


def test_the_loop_is_told_as_it_goes_and_the_problem_last_with_verdict_and_difficulty():
    pools = Pools()
    events = told(pools)
    assert [e["event"] for e in events] == ["waiting", "playing", "episode", "verdict", "difficulty", "problem"]
    assert events[2]["turns"] == [{"stage": "finalize", "action": "submit", "text": "t", "result": None}]
    last = events[-1]
    assert last["status"] == "accepted" and last["verdict"]["decision"] == "accepted"
    assert last["problem"] == {"question": "What is 1 + 1?", "answer": "2", "answer_kind": "math", "checks": []}
    assert (last["difficulty"]["rate"], last["difficulty"]["samples"], last["difficulty"]["solved"]) == (5 / 8, 8, True)
    assert len(pools.clear.calls) == 1  # nothing sampled stays


INFRA = Outcome(kind="infra_error", reason="replica died")


@pytest.mark.parametrize(
    ("pools", "names", "status"),
    [
        ({"decision": "rejected"}, ["episode", "verdict"], "rejected"),
        ({"decision": "undecided"}, ["episode", "verdict"], "failed"),
        ({"correct": 0}, ["episode", "verdict", "difficulty"], "unsolved"),
        ({"outcomes": [Outcome(kind="model_error", reason="turn limit")]}, ["episode"], "not_submitted"),
        ({"outcomes": [INFRA, None]}, ["failed", "playing", "episode", "verdict", "difficulty"], "accepted"),
        ({"outcomes": [INFRA]}, ["failed", "playing", "failed", "playing", "episode"], "failed"),
        ({"outcomes": [Halt("budget is spent")]}, [], "failed"),
    ],
)
def test_what_came_of_it_is_said(pools, names, status):
    events = told(Pools(**pools))
    assert [e["event"] for e in events] == ["waiting", "playing", *names, "problem"]
    last = events[-1]
    assert last["status"] == status and set(last) == {"event", "status", "reason", "problem", "verdict", "difficulty"}
    assert (last["problem"] is not None) is (status in ("accepted", "unsolved", "rejected") or "verdict" in names)
    assert status != "failed" or "verdict" in names or last["reason"]


def test_work_for_whom_nobody_listens_any_more_is_cancelled():
    async def scene():
        pools = Pools()
        pools.hangs.clear()
        async with aclosing(write(pools.stream, task(), "mini:solver")) as events:
            assert [(await anext(events))["event"] for _ in range(2)] == ["waiting", "playing"]
        assert pools.cancelled == 1 and len(pools.clear.calls) == 1 and pools.stream.at == {}

    play(scene)


def test_a_buffer_that_is_gone_takes_no_answer_away():
    pools = Pools()

    async def gone(keys=None):
        raise Failure("buffer: its process is gone", "infra_error")

    pools.clear = Remote(gone)
    assert told(pools)[-1]["status"] == "accepted"


# ---------------------------------------------------------------- the process


PROCESS = """
import asyncio, sys
from pathlib import Path
from pipeline.commands.service import process
from tests.pipeline.commands.test_serve import Pools

class Cluster(Pools):
    def __init__(self, config, root, say):
        super().__init__()
        assert not root.exists(), root
        self.hangs.clear()  # until the file `go` is there

    async def proposer(self, model_dir):
        asyncio.ensure_future(self._going())
        return self

    async def _going(self):
        while not Path("go").exists():
            await asyncio.sleep(0.02)
        self.hangs.set()

    async def committee(self):
        return self

    prober = committee

    def buffer(self):
        return self

    async def guarded(self, work):
        return await work

    async def idle(self): ...
    def close(self, shutdown):
        print(f"closed {shutdown}")

process.Cluster = Cluster
process.state_of = lambda step: {"ladder": {}}  # the made run has steps of another kind
try:
    process.serve(Path(sys.argv[1]), "sesame", "127.0.0.1", 0, 1, print)  # whose output `closing` sends to stderr
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "run"
    made.make(root).close()
    return root


@pytest.fixture
def service(tmp_path, a_run):
    """A service over pools that wait until they are told; its process and its address."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(a_run)], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as running:
        line = next(line for line in running.stderr if "http://" in line)
        yield running, next(word for word in line.split() if word.startswith("http://"))
        running.kill()


def begun(url, count):
    """Requests that are under way, each in its own thread."""
    pool = ThreadPoolExecutor(count)
    skills = [s["id"] for s in httpx.get(f"{url}/v1/skills", headers=KEY).json()][:2]
    asked = [
        pool.submit(httpx.post, f"{url}/v1/problems", json={"skills": skills}, headers=KEY, timeout=60)
        for _ in range(count)
    ]
    while httpx.get(f"{url}/healthz").json()["inside"] < count:
        pass
    return asked


def test_a_signal_lets_those_inside_come_to_their_end(service, tmp_path, a_run):
    running, url = service
    before = sorted(a_run.rglob("*"))
    asked = begun(url, 2)
    running.terminate()
    assert running.stderr.readline() == "stops; 2 requests come to their end\n"
    (tmp_path / "go").touch()
    assert [answer.result().json()["status"] for answer in asked] == ["accepted", "accepted"]
    assert running.wait(30) == 0 and running.stderr.read() == "closed True\n"
    assert sorted(a_run.rglob("*")) == before  # nothing is written to the run


def test_a_second_signal_ends_it_at_once(service):
    running, url = service
    (asked,) = begun(url, 1)
    running.terminate()
    assert running.stderr.readline() == "stops; 1 requests come to their end\n"
    running.terminate()
    assert running.wait(30) == 130
    with pytest.raises(httpx.HTTPError):
        asked.result().raise_for_status()


def test_an_address_that_is_taken_is_refused_before_anything_is_started(a_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Failure, match=f"--port {port}: .*in use.*; expected an address that is free"):
            process.serve(a_run, "sesame", "127.0.0.1", port, 1, print)
