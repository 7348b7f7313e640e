"""A data set goes to the Hub whole, of ours, and by a token that nobody is told: against a Hub on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from pipeline.commands import dataset
from pipeline.commands.keys import DATASET_EXPORT_KEYS
from pipeline.dataset import folder, layouts, push
from pipeline.records import Failure, Problem
from tests.pipeline.test_cli import propose

TOKEN = "hf_" + "secret" * 6
PROBLEMS = [Problem.make("What is 1 + 1?", "2"), Problem.make("What is 2 + 2?", "4")]


class Hub(BaseHTTPRequestHandler):
    """What an upload asks for. Files are told to come within the commit, as small ones do."""

    def do_GET(self):
        former = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.server.hub.there]
        self._tell(200, former if "/tree/" in self.path else {"sha": "0" * 40, "siblings": [], "id": "me/set"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub = self.server.hub
        hub.asked.append((self.path, self.headers.get("Authorization"), body))
        if hub.status:
            self._tell(hub.status, {"error": f"no {self.headers.get('Authorization')}"})
        elif self.path == "/api/repos/create":
            self._tell(200, {"url": f"{hub.url}/datasets/me/set", "id": "1"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._tell(200, {"files": files})
        elif "/commit/" in self.path:
            hub.commits.append([json.loads(line) for line in body.splitlines()])
            self._tell(
                200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.url}/datasets/me/set/commit/1"}
            )
        else:
            self._tell(200, {"errors": [], "warnings": []})

    def _tell(self, status, answer):
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.hub = SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=[], commits=[], status=0, there=[])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server.hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in PROBLEMS)
    )
    return tmp_path / "rows.jsonl"


def test_every_file_of_the_folder_arrives_and_nothing_else(hub, place, tmp_path, capsys):
    hub.there = ["data/train-00001-of-00002.parquet", "data/train-00000-of-00001.parquet", "notes.txt"]
    code, out, err = propose(capsys, "dataset", "export", place, tmp_path / "out", "--push", "me/set", "--json")
    assert code == 0, err
    assert set(json.loads(out)) == set(DATASET_EXPORT_KEYS) and json.loads(out)["pushed"].endswith("/datasets/me/set")
    created = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert (created["organization"], created["name"], created["type"]) == ("me", "set", "dataset")
    assert created["visibility"] == "private"
    (commit,) = hub.commits
    sent = {c["value"]["path"]: base64.b64decode(c["value"]["content"]) for c in commit if c["key"] == "file"}
    here = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert [c["value"]["path"] for c in commit if c["key"] == "deletedFile"] == ["data/train-00001-of-00002.parquet"]
    assert sent == here and "data/train-00000-of-00001.parquet" in sent
    assert {authorization for _, authorization, _ in hub.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in out + err and not any(TOKEN.encode() in content for content in sent.values())


def test_for_everybody_only_where_that_is_said(hub, place, tmp_path, capsys):
    dataset.export(str(place), tmp_path / "own", "qa", "me/set")
    assert propose(capsys, "dataset", "export", place, tmp_path / "all", "--push", "me/set", "--public")[0] == 0
    created = [json.loads(body) for path, _, body in hub.asked if path == "/api/repos/create"]
    assert [c["visibility"] for c in created] == ["private", "public"]


@pytest.mark.parametrize(("status", "kind"), [(401, "data_error"), (403, "data_error"), (500, "infra_error")])
def test_a_refusal_is_one_line_without_the_token(hub, place, tmp_path, status, kind):
    hub.status = status
    with pytest.raises(Failure, match="--push me/set: ") as told:
        dataset.export(str(place), tmp_path / "out", "qa", "me/set")
    assert told.value.kind == kind and TOKEN not in str(told.value) and "\n" not in str(told.value)
    assert folder.rows_of(tmp_path / "out"), "what was written stays"


def test_what_cannot_be_sent_is_said_before_anybody_is_asked(hub, place, tmp_path, monkeypatch):
    out = tmp_path / "out"
    layouts.write("qa", PROBLEMS, out, None, "set")
    (out / "train.jsonl").write_text('{"question": "Q", "answer": "1"}\n')
    with pytest.raises(Failure, match=r"train\.jsonl"):
        push.push(out, "me/set", TOKEN, True)
    layouts.write("qa", [Problem.make("<think>hm</think> What is 1 + 1?", "2")], tmp_path / "told", None, "set")
    with pytest.raises(Failure, match="holds '<think>'; nothing was sent"):
        push.push(tmp_path / "told", "me/set", TOKEN, True)

    def refused(name, why):
        with pytest.raises(Failure, match=why):
            dataset.export(str(place), tmp_path / "new", "qa", name)
        assert not (tmp_path / "new").exists(), "so that the same command can be given again"

    refused("set", "no name of a data set")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    refused("me/set", "no token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("me/set", "HF_HUB_OFFLINE")
    assert hub.asked == []
