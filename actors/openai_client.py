"""A client for OpenAI-compatible chat endpoints: deadlines, retries, bounds; nothing of the reply is trusted.

Invariant: `complete` ends within `timeout_s` a try, however slowly the server drips, reads at most `_MAX_BYTES`, and
raises Failure: infra_error where another try may help (unreachable, overloaded, late), data_error where it will not
(bad request, wrong key, a reply that is no chat completion).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence

import httpx

from pipeline.records import Failure

_MAX_BYTES = 4 << 20
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_BACKOFF_S = 0.5


class ChatClient:
    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        timeout_s: float = 120.0,
        retries: int = 4,
        concurrency: int = 16,
    ):
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key_env = api_key_env
        self._timeout_s = timeout_s
        self._retries = retries
        self._gate = asyncio.Semaphore(concurrency)
        self._http = httpx.AsyncClient(timeout=timeout_s)

    async def complete(self, messages: Sequence[dict[str, str]], temperature: float, max_tokens: int, seed: int) -> str:
        """The text of the assistant's next message."""
        body = {
            "model": self._model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        async with self._gate:
            for attempt in range(self._retries + 1):
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await self._once(body)
                except TimeoutError:
                    last = Failure(f"{self._url}: no reply within {self._timeout_s:g} s", "infra_error")
                except Failure as e:
                    last = e
                if last.kind != "infra_error":
                    break
                await asyncio.sleep(_BACKOFF_S * 2**attempt)
        raise last

    async def _once(self, body: dict[str, object]) -> str:
        key = os.environ.get(self._key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with self._http.stream("POST", self._url, json=body, headers=headers) as response:
                received = bytearray()
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > _MAX_BYTES:
                        raise Failure(f"{self._url}: reply over {_MAX_BYTES >> 20} MB")
        except httpx.HTTPError as e:
            raise Failure(f"{self._url}: {type(e).__name__} {e}".rstrip(), "infra_error") from None
        if response.status_code != 200:
            kind = "infra_error" if response.status_code in _RETRY_STATUS else "data_error"
            said = " ".join(received[:200].decode(errors="replace").split())
            raise Failure(f"{self._url}: status {response.status_code}: {said}", kind)  # type: ignore[arg-type]
        try:
            content = json.loads(received)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Failure(f"{self._url}: the reply is no chat completion") from None
        if not isinstance(content, str):
            raise Failure(f"{self._url}: the reply holds no text")
        return content
