"""A Hub on localhost with one model or data set: the few requests that a download makes, answered and counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from huggingface_hub import constants

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    kind: str
    """models or datasets."""
    name: str
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    """The paths of all requests."""
    sent: list[str] = field(default_factory=list)
    """The files that were sent."""

    @property
    def place(self) -> str:
        return f"/{self.name}" if self.kind == "models" else f"/{self.kind}/{self.name}"


@contextmanager
def serving(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """What huggingface_hub asks goes there, online."""

    class Of(_Hub):
        of = repo

    server = ThreadingHTTPServer(("127.0.0.1", 0), Of)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", url, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    try:
        yield repo
    finally:
        server.shutdown()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    of: ClassVar[Repo]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, repo = self.path.partition("?")[0], self.of
        repo.asked.append(path)
        told = f"/api/{repo.kind}/{repo.name}"
        if path == f"/api/{repo.kind}/us/private/revision/main":
            self._refuse(401, "GatedRepo", "gated")
        elif not path.startswith((f"{told}/", f"{repo.place}/")):
            self._refuse(404, "RepoNotFound", "no such repository")
        elif path == f"{told}/revision/main":
            self._answer(200, json.dumps({"id": repo.name, "sha": SHA}).encode())
        elif path in (f"{told}/tree/{SHA}", f"{told}/tree/main"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                for name, data in repo.files.items()
            ]
            self._answer(200, json.dumps(tree).encode())
        elif (name := path.removeprefix(f"{repo.place}/resolve/{SHA}/")) in repo.files:
            if self.command == "GET":
                repo.sent.append(name)
            data = repo.files[name]
            self._answer(200, data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": SHA})
        else:
            self._refuse(404, "EntryNotFound" if name != path else "RevisionNotFound", "not there")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...
