"""The client of any OpenAI-compatible chat endpoint: whoever asks one asks through it.

Consumes messages, produces one reply. A call waits for its turn at the endpoint's gate, for which nobody's deadline
runs; then every try ends within `timeout_s`, whatever the other side does (silence, a slow drip, an endless body), and
no reply over `max_bytes` is held in memory. What cannot be mended by asking again is not asked again. An endpoint that
says how long to wait (429 or 503 with Retry-After) is left alone for so long, by everybody; that is no failed try.

A reply that was paid for is kept (`reply_store`), and the same request is not sent again. A call that could exceed a
budget is not sent: it raises Halt, which ends the run.

Failures: infra_error (unreachable, too slow, 429 or 5xx to the last try, no readable body: retry later) · data_error
(the endpoint refuses the request: key, model name, field) · model_error (the reply holds no text, or was cut off). What
the server says of its error stands in the failure's line.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

from actors.canary import refuse
from actors.endpoint_gate import Gate, gate_of
from actors.queueing import queueing
from actors.reply_store import ReplyStore, key_of, store
from actors.tool_calls import render
from pipeline.config import EndpointUse
from pipeline.records import Failure, Halt

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_POLL_S = 0.2
_BYTES_A_TOKEN = 2
"""Of a prompt, at least: for what a call may cost at most."""


class _TryAgain(Exception):
    """One try failed in a way that another may not. busy: the endpoint takes no more now · slow: it did not answer in
    time · down: it took nothing · broken: what it sent is no reply. `pause_s`: what it asked for, if it did."""

    def __init__(self, reason: str, how: Literal["busy", "slow", "down", "broken"], pause_s: float | None = None):
        super().__init__(reason)
        self.how, self.pause_s = how, pause_s


class Later(Failure):
    """The endpoint is there, but too slow or too busy now."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint said, as it is kept."""

    text: str
    finish_reason: str
    """stop, length, content_filter, tool_calls; "" where the endpoint does not say it."""
    prompt_tokens: int
    reply_tokens: int


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
        use: EndpointUse | None = None,
    ):
        """`use`: limits, budgets and request fields; without it there is only `concurrency`."""
        self._base_url, self._key_env = base_url.rstrip("/"), api_key_env
        self._url = self._base_url + "/chat/completions"
        self._model = model
        self._timeout_s = timeout_s
        self._tries = retries + 1
        self._max_bytes = max_bytes
        self._use = use or EndpointUse(concurrency=concurrency)
        self.takes_schemas = True
        """False once it has refused one, and taken the same request without."""
        key = os.environ.get(api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):  # httpx would show it in its complaint
            raise Failure(f"${api_key_env} is no key: expected printable ASCII in one line")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self._use.concurrency)
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout_s, limits=limits)

    @classmethod
    def of(cls, section: Any, *, timeout_s: float, retries: int = 4) -> ChatClient:
        """The client of a section that names an endpoint: base_url, model, api_key_env, and the fields of
        `EndpointUse`."""
        return cls(
            section.base_url,
            section.model or "",
            section.api_key_env,
            timeout_s=timeout_s,
            retries=retries,
            use=section,
        )

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
        """The text of the reply to `messages`, see `reply`. One that was cut off, or held back by the endpoint, is a
        Failure (model_error)."""
        reply = await self.reply(
            messages, temperature=temperature, max_tokens=max_tokens, seed=seed, schema=schema, regex=regex
        )
        if reply.finish_reason == "length":
            raise Failure(f"the reply was cut off at {max_tokens} tokens; raise max_tokens", "model_error")
        if reply.finish_reason == "content_filter":
            raise Failure("the endpoint's filter held the reply back", "model_error")
        if not reply.text.strip():
            raise Failure("the reply holds no text", "model_error")
        return reply.text

    async def reply(
        self,
        messages: Sequence[dict[str, str]],
        *,
        temperature: float,
        max_tokens: int,
        seed: int | None = None,
        schema: dict[str, Any] | None = None,
        regex: str | None = None,
        top_p: float | None = None,
    ) -> Reply:
        """The reply to `messages`, and how it ended. With `schema` the endpoint is asked for JSON of that form, unless
        it has refused to be: the messages have to ask for it as well. With `regex` vLLM's is asked for a text that
        matches it. Raises Failure, and Halt for a budget that is spent or an answer that would be shown."""
        refuse(m["content"] for m in messages)
        use = self._use
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(messages),
            "temperature": temperature,
            use.max_tokens_field: max_tokens,
        }
        optional = {
            "top_p": top_p,
            "top_k": use.top_k,
            "seed": seed,
            "structured_outputs": None if regex is None else {"regex": regex},
            "chat_template_kwargs": None if use.thinking is None else {"enable_thinking": use.thinking},
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        if schema is None or not self.takes_schemas:
            return await self._kept(body, max_tokens)
        form = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
        try:
            return await self._kept({**body, "response_format": form}, max_tokens)
        except _Refused as e:
            if e.status in _ABOUT_THE_CALLER:
                raise
        reply = await self._kept(body, max_tokens)
        self.takes_schemas = False
        return reply

    async def _kept(self, body: dict[str, Any], max_tokens: int) -> Reply:
        """The reply to a request, which is sent if it never was."""
        body = {k: v for k, v in (body | self._use.extra_body).items() if v is not None}
        kept, key = store(), key_of(self._base_url, body)
        if (found := kept.get(self._base_url, key)) is not None:
            return Reply(**found)
        prompt_tokens = sum(8 + _tokens(m["content"]) for m in body["messages"])
        limit = body.get(self._use.max_tokens_field)  # which extra_body may have changed
        reply = await self._ask(body, prompt_tokens, limit if isinstance(limit, int) else max_tokens)
        kept.put(key, asdict(reply))
        return reply

    # ------------------------------------------------------------ asking

    def _gate(self) -> Gate:
        use = self._use
        return gate_of(
            self._base_url,
            self._key_env,
            lambda: Gate(use.concurrency, use.requests_per_minute, use.tokens_per_minute),
        )

    async def _ask(self, body: dict[str, Any], prompt_tokens: int, max_tokens: int) -> Reply:
        gate, failed, put_off_s = self._gate(), 0, 0.0
        while True:
            async with gate.place(prompt_tokens + max_tokens) as era:
                try:
                    return await self._pay(body, prompt_tokens, max_tokens, gate)
                except _TryAgain as e:
                    error = e
                if error.how == "busy":
                    gate.busy(era)
                put_off_s += error.pause_s or 0.0
                if put_off_s > self._use.max_wait_s:
                    waits = f"it puts the call off for {put_off_s:g} s, more than max_wait_s"
                    raise Later(f"{self._url}: {error}: {waits} ({self._use.max_wait_s:g})", "infra_error")
                if error.pause_s:  # before the place is another's
                    gate.close()
            if error.pause_s:
                await gate.reopen(error.pause_s * random.uniform(1.0, 1.1))
                continue
            failed += 1
            if failed == self._tries:
                kind = Later if error.how in ("busy", "slow") else Failure
                tries = "1 try" if failed == 1 else f"{failed} tries"
                raise kind(f"{self._url}: {error} ({tries})", "infra_error")
            pause_s = min(_FIRST_PAUSE_S * 2 ** (failed - 1), _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))

    async def _pay(self, body: dict[str, Any], prompt_tokens: int, max_tokens: int, gate: Gate) -> Reply:
        """One try, of which the store knows what it cost."""
        kept = store()
        ticket = await self._set_aside(kept, prompt_tokens, max_tokens)
        spent = (prompt_tokens, max_tokens)  # of a call that is not heard of again: it may have been worked on
        try:
            try:
                response, received = await self._post(body)
            except _TryAgain as e:
                spent = (0, 0) if e.how == "down" else spent
                raise
            if response.status_code != 200:
                spent = (0, 0)
                raise self._refusal(response, received)
            reply = _read(received)
            spent = (reply.prompt_tokens or prompt_tokens, reply.reply_tokens or _tokens(reply.text))
            gate.answered(sum(spent), prompt_tokens + max_tokens)
            return reply
        finally:
            kept.settle(ticket, self._base_url, sum(spent), self._usd(*spent))

    async def _set_aside(self, kept: ReplyStore, prompt_tokens: int, max_tokens: int) -> int | None:
        """What this call may cost at most. Where calls under way have set too much aside, it waits for them. Raises
        Halt where the budget does not allow it."""
        use = self._use
        if use.budget_tokens is None and use.budget_usd is None:
            return None
        most, usd = prompt_tokens + max_tokens, self._usd(prompt_tokens, max_tokens)
        with queueing():
            while True:
                open_calls = kept.is_open(self._base_url)
                until = time.time() + self._timeout_s  # from now: the call begins when it has its ticket
                ticket = kept.set_aside(self._base_url, most, usd, until, use.budget_tokens, use.budget_usd)
                if ticket is not None:
                    return ticket
                if not open_calls:
                    break
                await asyncio.sleep(_POLL_S)
        done = kept.spent().get(self._base_url, {"tokens": 0, "usd": 0.0})
        budget = f"budget_tokens {use.budget_tokens}" if use.budget_tokens is not None else ""
        budget += f"{', ' if budget else ''}budget_usd {use.budget_usd:g}" if use.budget_usd is not None else ""
        raise Halt(
            f"{self._base_url}: {budget}: {done['tokens']:.0f} tokens, ${done['usd']:.4g} are spent, the next call may "
            f"take {most} tokens, ${usd:.4g}; the run goes on from here with a larger budget"
        )

    def _usd(self, prompt_tokens: int, reply_tokens: int) -> float:
        use = self._use
        return (prompt_tokens * use.usd_per_million_in + reply_tokens * use.usd_per_million_out) / 1e6

    async def _post(self, body: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        """One try: the whole answer, read under one deadline and one size limit."""
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._http.stream("POST", self._url, json=body) as response:
                    received = bytearray()
                    async for chunk in response.aiter_bytes():
                        received += chunk
                        if len(received) > self._max_bytes:
                            raise Failure(f"{self._url}: a reply over {self._max_bytes} bytes", "infra_error")
                    return response, bytes(received)
        except TimeoutError:
            raise _TryAgain(f"no whole reply within {self._timeout_s:g} s", "slow") from None
        except httpx.HTTPError as e:
            unheard = isinstance(e, httpx.ConnectError | httpx.ConnectTimeout)
            raise _TryAgain(f"{type(e).__name__}: {e}", "down" if unheard else "broken") from None
        except (httpx.InvalidURL, ValueError) as e:
            raise Failure(f"{self._url}: {e}; expected an http(s) base URL") from None

    def _refusal(self, response: httpx.Response, received: bytes) -> Exception:
        """What an answer other than 200 is: busy or down, so that another try may pass, or a no."""
        status = response.status_code
        if status == 429 or (status >= 500 and status != 501):
            pause_s = _retry_after(response) if status in (429, 503) else None
            return _TryAgain(f"HTTP {status}{_said(received)}", "busy" if status == 429 else "down", pause_s)
        return _Refused(f"{self._url}: HTTP {status} for model {self._model!r}{_said(received)}", status)


def _said(body: bytes) -> str:
    """What the server says of its error, in one line: the message of a JSON body, else its text."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        found = json.loads(text)
        for name in ("error", "message", "detail"):
            found = found[name] if isinstance(found, dict) and found.get(name) else found
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = re.sub(r"<[^>]*>", " ", text)
    line = " ".join(text.split())[:300]
    return f": {line}" if line else ""


def _tokens(text: str) -> int:
    """At most; a token has rarely fewer bytes."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, given as a number or as a date; None where there is neither."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _read(body: bytes) -> Reply:
    """Raises _TryAgain for a body that is no chat completion."""
    text = _text_of(body)
    whole = json.loads(body)
    usage = whole.get("usage") or {}
    try:
        counts = [max(0, int(usage.get(name) or 0)) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, TypeError, AttributeError, OverflowError):
        counts = [0, 0]
    return Reply(text, str(whole["choices"][0].get("finish_reason") or ""), *counts)


def _text_of(body: bytes) -> str:
    """The first choice's text, half surrogate pairs replaced; a call that the server took out of it is put back.
    Raises _TryAgain for a body that is no chat completion."""
    try:
        message = json.loads(body)["choices"][0]["message"]
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]
        content = message.get("content") if calls else message["content"]
        text = "\n".join([content if isinstance(content, str) else "", *(render(*call) for call in calls)])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _TryAgain("the reply is no chat completion", "broken") from None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
