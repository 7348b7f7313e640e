"""The routes: problems for given skills, the skills that there are, whether the service works; /openapi.json.

Invariant: every refusal has a status of `REFUSALS` and a body `{"detail": …}`; without the key nothing is told but
whether the service works, and what its routes are.
"""

from __future__ import annotations

import hmac
import json
import secrets
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from pipeline.commands.service.door import Closed, Door, Full
from pipeline.commands.service.writing import Event
from pipeline.records import Skill, Task

REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "no key, or another one than the service's"},
    422: {"description": "the request cannot be: a field, or a skill that there is not"},
    429: {"description": "as many requests are under way and waiting as may be; Retry-After says for how long"},
    503: {"description": "the service stops, or infrastructure failed; the same request may go better later"},
}
RETRY_S = "10"
_BEARER = HTTPBearer(auto_error=False)

Writes = Callable[[Task], AsyncGenerator[Event]]


class Wish(BaseModel):
    """A problem that combines skills."""

    model_config = ConfigDict(extra="forbid")

    skills: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Ids, as /v1/skills lists them."""
    category: str | None = None
    """None: that of the first skill."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """None: drawn anew, so that the same wish asks for another problem."""
    stream: bool = False
    """Tell the loop as it goes, as server-sent events; the last one is `problem`."""


def make_app(key: str, skills: Mapping[str, Skill], write: Writes, door: Door) -> FastAPI:
    """`write`: the events of a task, the last of which is its result."""
    app = FastAPI(title="Agentic Proposing", version="1", description="Hard, verified problems for given skills.")

    def known(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), key.encode()):
            raise HTTPException(401, "expected the service's key as a bearer token", {"WWW-Authenticate": "Bearer"})

    @app.get("/healthz", responses={503: REFUSALS[503]})
    async def healthz() -> dict[str, int]:
        if door.closed:
            raise HTTPException(503, "the service stops")
        return {"inside": door.inside, "most": door.most}

    @app.get("/v1/skills", dependencies=[Depends(known)], responses={401: REFUSALS[401]})
    async def listed() -> list[dict[str, str]]:
        return [{"id": s.id, "category": s.category, "intent": s.intent} for s in skills.values()]

    @app.post("/v1/problems", dependencies=[Depends(known)], responses=REFUSALS, response_model=None)
    async def problems(wish: Wish) -> JSONResponse | StreamingResponse:
        task = _task(wish, skills)
        events = _within(door, write(task))
        # The first event is awaited here, so that whoever is refused gets a status and no stream.
        try:
            first = await anext(events)
        except Full:
            told = f"{door.inside} requests are under way and waiting, of at most {door.most}"
            raise HTTPException(429, told, {"Retry-After": RETRY_S}) from None
        except Closed:
            raise HTTPException(503, "the service stops", {"Retry-After": RETRY_S}) from None
        if wish.stream:
            return StreamingResponse(_lines(first, events), media_type="text/event-stream")
        result = first
        async with aclosing(events):
            async for event in events:
                result = event
        if result["status"] == "failed":
            raise HTTPException(503, result["reason"], {"Retry-After": RETRY_S})
        return JSONResponse(result)

    return app


def _task(wish: Wish, skills: Mapping[str, Skill]) -> Task:
    """Raises HTTPException for a skill that there is not."""
    if unknown := [name for name in wish.skills if name not in skills]:
        raise HTTPException(422, f"skills: no skill {unknown[0]!r}; expected some of those of /v1/skills")
    if len(set(wish.skills)) < len(wish.skills):
        raise HTTPException(422, "skills: one stands there twice")
    chosen = tuple(skills[name] for name in wish.skills)
    name = f"serve-{uuid.uuid4().hex}"
    seed = secrets.randbits(31) if wish.seed is None else wish.seed
    return Task(id=name, group_id=name, category=wish.category or chosen[0].category, skills=chosen, seed=seed)


async def _within(door: Door, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    """The events, with a place inside from the first one asked for to the last. Raises Full or Closed."""
    async with aclosing(events):
        with door.entered():
            async for event in events:
                yield event


async def _lines(first: Event, events: AsyncGenerator[Event]) -> AsyncIterator[str]:
    """Closes `events` with itself: a caller that goes away ends the work for it."""
    async with aclosing(events):
        yield _line(first)
        async for event in events:
            yield _line(event)


def _line(event: Event) -> str:
    return f"event: {event['event']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
