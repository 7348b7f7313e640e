"""Thousands of secrets on the way through committee and prober: none in a prompt; a leak that is put in is found."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from actors.calls import SolverPool
from actors.canary import Leak, plant, planted, refuse, secret
from actors.committee import Committee
from actors.execution import Executor
from actors.openai_client import ChatClient, Reply
from actors.prober import Prober
from actors.solver import Solver
from actors.verifiers import make
from actors.verifiers.text import model as model_verifier
from pipeline import config
from pipeline.records import Problem, Turn
from pipeline.scoring import canaries
from pipeline.scoring.judged import Judged
from tests.actors.pools import no_sandbox
from tests.mini import MINI, changed
from tests.pipeline.judged import Remote, episode, probe, verdict


class Recorded:
    """Every prompt that leaves for a model, as the client and the engine's replica see it."""

    def __init__(self, monkeypatch):
        self.prompts: list[str] = []
        world = self

        async def ask(client, body, *_):
            world.prompts.append("\n".join(m["content"] for m in body["messages"]))
            return Reply("\\boxed{seven}\n" + json.dumps({"vote": 1, "rationale": "r", "flags": []}), "stop", 1, 1)

        monkeypatch.setattr(ChatClient, "_ask", ask)
        solver = Solver.__new__(Solver)
        chat = SimpleNamespace(encode_messages=lambda ms: self.prompts.append("\n".join(m["content"] for m in ms)))
        solver._prompts, solver._engine = {"text": "Solve."}, SimpleNamespace(chat=chat, stop=lambda: None)

        async def answers(question, n, sampling, seed, kind):
            solver._encode(question, kind)
            return ["I cannot say."] * n

        async def counted_answers(*asked):
            return [(text, 4) for text in await answers(*asked)]

        url = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "samples": 1}
        sections = (
            config.ProgramVerifierConfig(**url),
            config.ModelVerifierConfig(**url),
            config.ModelVerifierConfig(**url, trace=False),
            config.ModelVerifierConfig(samples=1),
        )
        pool = SolverPool(SimpleNamespace(answers=Remote(answers), counted_answers=Remote(counted_answers)))
        judges = [make(s, i, Executor(no_sandbox), pool) for i, s in enumerate(sections)]
        committee = Committee.of(changed(MINI.committee, verifiers=sections, allow_same_model=True), judges)
        sandbox = SimpleNamespace(run_batch=Remote(no_sandbox))
        prober = Prober(changed(MINI.prober, n=2, k=1), {"solver": pool}, sandbox)
        self.committee = SimpleNamespace(judge_many=Remote(committee.judge_many))
        self.prober = SimpleNamespace(probe=Remote(prober.probe))

    def look(self, n, judged):
        return asyncio.run(canaries.look(self.committee, self.prober, judged, n, 3))


def accepted(n):
    found = []
    for i in range(n):
        e = episode(question=f"What is {i} + 1?", answer=str(i + 1))
        e = e.model_copy(update={"submitted": e.submitted.model_copy(update={"answer_kind": "text"})})
        work = Turn(stage="check", action="think", start=0, end=1, text=f"It is {i + 1}.")
        e = e.model_copy(update={"turns": (work, *e.turns)})
        found.append(Judged(e, verdict(e), probe(e).model_copy(update={"prober": "solver"})))
    return found


@pytest.mark.parametrize("n", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_secrets_and_none_in_a_prompt(monkeypatch, n):
    world = Recorded(monkeypatch)
    assert world.look(n, accepted(n)) == {"canaries": n, "canaries_leaked": 0, "canaries_unfinished": 0}
    # each problem is shown to four judges and a prober; two of the judges solve it, then review it
    assert len(world.prompts) == 7 * n
    assert not [p for p in world.prompts if "canary" in p]


LEAKS = {
    "in a judge's prompt": lambda m: m.setattr(
        model_verifier, "_asked_for", lambda problem, asked: f"an answer like {problem.answer}"
    ),
    "in the work that is shown": lambda m: m.setattr(
        "actors.committee._trace_of", lambda e: e.submitted.answer if e else ""
    ),
    "in the statement of a prober's": lambda m: m.setattr(
        Prober,
        "probe",
        lambda self, p, name, seed: self._solvers[name].answers("", 9, p.model_dump_json(), 1, None, 0, p.answer_kind),
    ),
}


@pytest.mark.parametrize("put_in", LEAKS.values(), ids=LEAKS)
def test_a_leak_that_is_put_in_is_found_and_not_sent(monkeypatch, put_in):
    put_in(monkeypatch)
    world = Recorded(monkeypatch)
    assert world.look(5, accepted(9))["canaries_leaked"] == 5
    assert not [p for p in world.prompts if "canary" in p]


def test_a_secret_stands_wherever_the_answer_stood():
    e = episode(question="Q?", answer="4")
    whole = planted(e, 1).model_dump_json()
    assert whole.count(secret(1)) == 1 + sum(t.action == "submit" for t in e.turns)
    tested = Problem.make("Write f.", "def f(): ...", "code", ['{"entry": "f", "args": [], "expected": 4}'])
    assert plant(tested, 1).checks[0].count(secret(1)) == 1
    with pytest.raises(Leak, match="after 'so it is '"):
        refuse(["fine", f"so it is {secret(2)}"])


def test_no_problem_no_canary(monkeypatch):
    assert Recorded(monkeypatch).look(3, []) == {}
