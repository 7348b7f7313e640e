"""A small client for any OpenAI-compatible chat endpoint.

Consumes messages, produces the text of one reply. Every call ends within `timeout_s` a try, whatever the other side
does (silence, a slow drip, an endless body), and no reply over `max_bytes` is held in memory. What cannot be mended
by asking again is not asked again.

Failures: infra_error (unreachable, too slow, 429 or 5xx to the last try, no readable body: retry later) · data_error
(the endpoint refuses the request: key, model name, field) · model_error (the reply holds no text). What the server says
of its error stands in the failure's line.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import Sequence
from typing import Any

import httpx

from actors.tool_calls import render
from pipeline.records import Failure

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


class _TryAgain(Exception):
    """One try failed in a way that another may not. `pause_s`: what the endpoint asked for, if it did."""

    def __init__(self, reason: str, pause_s: float | None = None):
        super().__init__(reason)
        self.pause_s = pause_s


class _Refused(Failure):
    """The endpoint does not take the request as it is."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


_ABOUT_THE_CALLER = (401, 403, 404)
"""Refusals that no other form of the request would mend."""


class ChatClient:
    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        *,
        timeout_s: float = 120.0,
        retries: int = 4,
        concurrency: int = 16,
        max_bytes: int = 4 << 20,
    ):
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._timeout_s = timeout_s
        self._tries = retries + 1
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(concurrency)
        self._schemas = True
        key = os.environ.get(api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=concurrency)
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout_s, limits=limits)

    async def close(self) -> None:
        await self._http.aclose()

    async def complete(
        self,
        messages: Sequence[dict[str, str]],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None = None,
        schema: dict[str, Any] | None = None,
        regex: str | None = None,
    ) -> str:
        """The reply to `messages`. With `schema` the endpoint is asked for JSON of that form, unless it has refused to
        be: the messages have to ask for it as well. With `regex` vLLM's is asked for a text that matches it. Raises
        Failure."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if seed is not None:
            body["seed"] = seed
        if regex is not None:
            body["structured_outputs"] = {"regex": regex}
        if schema is None or not self._schemas:
            return await self._text(body)
        form = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
        try:
            return await self._text({**body, "response_format": form})
        except _Refused as e:
            if e.status in _ABOUT_THE_CALLER:
                raise
        text = await self._text(body)
        self._schemas = False
        return text

    async def _text(self, body: dict[str, Any]) -> str:
        last = ""
        for attempt in range(self._tries):
            try:
                async with self._turns:
                    return _text_of(await self._post(body))
            except _TryAgain as e:
                last = str(e)
                if attempt + 1 < self._tries:
                    wished = e.pause_s if e.pause_s is not None else _FIRST_PAUSE_S * 2**attempt
                    await asyncio.sleep(min(wished, _LONGEST_PAUSE_S) * random.uniform(0.8, 1.2))
        raise Failure(f"{self._url}: {last} ({self._tries} tries)", "infra_error")

    async def _post(self, body: dict[str, Any]) -> bytes:
        """One try: the whole body of a 200, read under one deadline and one size limit."""
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._http.stream("POST", self._url, json=body) as response:
                    received = bytearray()
                    async for chunk in response.aiter_bytes():
                        received += chunk
                        if len(received) > self._max_bytes:
                            raise Failure(f"{self._url}: a reply over {self._max_bytes} bytes", "infra_error")
        except TimeoutError:
            raise _TryAgain(f"no whole reply within {self._timeout_s:g} s") from None
        except httpx.HTTPError as e:
            raise _TryAgain(f"{type(e).__name__}: {e}") from None
        except (httpx.InvalidURL, ValueError) as e:
            raise Failure(f"{self._url}: {e}; expected an http(s) base URL") from None
        status = response.status_code
        if status == 200:
            return bytes(received)
        if status == 429 or (status >= 500 and status != 501):
            raise _TryAgain(f"HTTP {status}{_said(received)}", _retry_after(response))
        raise _Refused(f"{self._url}: HTTP {status} for model {self._model!r}{_said(received)}", status)


def _said(body: bytes | bytearray) -> str:
    """What the server says of its error, in one line: the message of a JSON body, else its text."""
    text = bytes(body[:20_000]).decode("utf-8", "replace")
    try:
        found = json.loads(text)
        for name in ("error", "message", "detail"):
            found = found[name] if isinstance(found, dict) and found.get(name) else found
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = re.sub(r"<[^>]*>", " ", text)
    line = " ".join(text.split())[:300]
    return f": {line}" if line else ""


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def _text_of(body: bytes) -> str:
    """The first choice's text, half surrogate pairs replaced; a call that the server took out of it is put back.
    Raises _TryAgain for a body that is no chat completion."""
    try:
        message = json.loads(body)["choices"][0]["message"]
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]
        content = message.get("content") if calls else message["content"]
        text = "\n".join([content if isinstance(content, str) else "", *(render(*call) for call in calls)])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _TryAgain("the reply is no chat completion") from None
    if not text.strip():
        raise Failure("the reply holds no text", "model_error")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
