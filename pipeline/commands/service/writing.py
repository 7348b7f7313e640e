"""One request for a problem: a task through the stream of judged episodes, and what is told of it on the way.

Consumes a task; produces events as its attempts begin, an episode has been played, a verdict and a probe are there, and
at last what came of it. It waits for the pools, with the stream's own deadlines and retries.

Invariant: the last event is `problem`, once, unless nobody listens any more; then the work under way is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any

from pipeline.flow.stream import StepStream, Stream
from pipeline.records import Episode, Failure, Halt, Probe, Task, Verdict
from pipeline.scoring.judged import Judged
from pipeline.store.ledger import Key

Event = dict[str, Any]


class Unkept:
    """The account of a request's attempts, where nothing is trained and nothing is written: their number."""

    live = 0
    """None that the disk would have to agree with."""

    def __init__(self, tell: Callable[[Event], None]):
        self._tell = tell
        self.issued = 0

    def issue(self, name: str) -> int:
        self.issued += 1
        self._tell({"event": "playing", "attempt": self.issued})
        return self.issued

    def judged(self, key: Key, tokens: int, spent: Mapping[str, float]) -> None: ...

    def fail(self, key: Key, reason: str) -> None:
        self._tell({"event": "failed", "attempt": key[1], "reason": reason})

    def quarantine(self, key: Key, record: Mapping[str, Any]) -> None: ...


async def write(stream: Stream, task: Task, prober: str) -> AsyncGenerator[Event]:
    """The events of one task. The first is there at once, the next when it is its turn."""
    yield {"event": "waiting"}
    told: asyncio.Queue[Event | None] = asyncio.Queue()
    step = StepStream(stream, Unkept(told.put_nowait), lambda what: told.put_nowait(event_of(what)))
    work = asyncio.ensure_future(step.judged(task, prober))
    work.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (event := await told.get()) is not None:
            yield event
        try:
            yield result_of(await work)
        except Halt as e:
            yield _result("failed", str(e))  # a budget is spent
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        with suppress(Failure):  # who guards the buffer ends the service
            await stream.clear()  # nothing is trained on what was sampled, of this request or of another


def event_of(what: Episode | Verdict | Probe) -> Event:
    match what:
        case Episode():
            turns = [
                {"stage": t.stage, "action": t.action, "text": t.text, "result": t.tool and t.tool.content}
                for t in what.turns
            ]
            return {"event": "episode", "attempt": what.attempt, "outcome": what.outcome.kind, "turns": turns}
        case Verdict():
            return {"event": "verdict", **_verdict(what)}
        case Probe():
            return {"event": "difficulty", **_difficulty(what)}


def _verdict(verdict: Verdict) -> Event:
    votes = [
        {"verifier": vote.verifier, "valid": vote.valid, "answer": vote.answer, "flags": list(vote.flags)}
        for vote in verdict.votes
    ]
    return {"decision": verdict.decision, "reason": verdict.reason, "votes": votes}


def _difficulty(probe: Probe) -> Event:
    return {
        "prober": probe.prober,
        "samples": probe.n,
        "rate": probe.rate,
        "pass_at_k": probe.pass_at_k,
        "k": probe.k,
        "solved": probe.solved,
    }


def result_of(judged: Judged) -> Event:
    """`status`: accepted · unsolved (accepted, and no prober solves it above chance) · rejected · not_submitted ·
    failed (infrastructure: the same request may go better)."""
    problem, verdict, probe = judged.problem, judged.verdict, judged.probe
    if judged.failed:
        status = "failed"
    elif verdict is None:
        status = "not_submitted"
    elif not verdict.accepted:
        status = "rejected"
    else:
        status = "accepted" if judged.solved else "unsolved"
    fields = ("question", "answer", "answer_kind", "checks")
    return _result(status, verdict.reason if verdict else judged.episode.outcome.reason) | {
        "problem": problem.model_dump(mode="json", include=set(fields)) if problem and verdict else None,
        "verdict": _verdict(verdict) if verdict else None,
        "difficulty": _difficulty(probe) if probe else None,
    }


def _result(status: str, reason: str) -> Event:
    nothing = dict.fromkeys(("problem", "verdict", "difficulty"))
    return {"event": "problem", "status": status, "reason": reason, **nothing}
