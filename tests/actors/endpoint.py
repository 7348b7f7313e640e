"""A chat endpoint on localhost that answers as it is told to, well or badly."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[int, dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
"""(number of the request, its body, where to write) -> nothing."""


def chat(content: Any = "hi", finish: str = "stop", usage: dict[str, int] | None = None) -> bytes:
    message = {"role": "assistant", "content": content}
    body = {"choices": [{"message": message, "finish_reason": finish}]} | ({"usage": usage} if usage else {})
    return json.dumps(body).encode()


def call(name: str, **arguments: Any) -> str:
    """A tool call in Hermes's form, as models write it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


def response(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


def says(*contents: Any) -> Behaviour:
    """Chat completions with these contents in turn, the last one again and again."""

    async def behave(n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(response(chat(contents[min(n, len(contents) - 1)])))

    return behave


def sends(*raw: bytes) -> Behaviour:
    """These bytes in turn, the last ones again and again."""

    async def behave(n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(raw[min(n, len(raw) - 1)])

    return behave


async def drips(n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever: no single read is slow."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def floods(n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """A chunked body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def is_silent(n: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


class Requests(list[dict[str, Any]]):
    url = ""


@asynccontextmanager
async def endpoint(behaviour: Behaviour):
    """Yields the bodies it was sent (each with its headers under "_headers"); `.url` is its base URL."""
    requests = Requests()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            number = len(requests)
            requests.append(body | {"_headers": headers})
            await behaviour(number, body, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left, which some tests want
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    requests.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield requests
    finally:
        server.close()


@contextmanager
def serving(reply: Callable[[dict[str, Any]], bytes], key: str | None = None) -> Iterator[tuple[str, Counter[str]]]:
    """For other processes, in a thread: (base URL, how often each model was asked). `reply`: a request's body -> its
    completion's. `key`: whoever has another is refused."""
    asked: Counter[str] = Counter()

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # with fewer, some of many callers wait a second to be let in

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a caller that was killed is no error of this end
                super().handle_error(request, client_address)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            if len(raw := self.rfile.read(size)) < size:
                raise ConnectionResetError
            body = json.loads(raw)
            asked[body["model"]] += 1
            knows = key is None or self.headers["authorization"] == f"Bearer {key}"
            content = reply(body) if knows else b"another key"
            self.send_response(200 if knows else 401)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        thread.join()
