"""Before a run pays for anything, its endpoints are asked; and what it spends is told."""

from __future__ import annotations

import asyncio
import json
import os
import re

import pytest

from actors.reply_store import KEPT_IN, ReplyStore, store
from pipeline import stages
from pipeline.commands import doctor_config, driver, preflight
from pipeline.config.loading import load
from pipeline.pools import endpoints
from pipeline.records import Failure, Halt
from pipeline.store.metrics import read as read_metrics
from pipeline.store.rundir import RunDir
from tests.actors.endpoint import chat, endpoint, is_silent, response, says, sends

BUSY = response(b"busy", "429 Too Many Requests", "Retry-After: 99999\r\n")


def settings(url):
    """A teacher and a judge that wants its replies in a form."""
    judge = {"base_url": url, "model": "judge", "api_key_env": "MY_KEY", "kind": "model", "structured": True}
    return [
        f"teacher={{kind: openai, base_url: '{url}', model: big, api_key_env: MY_KEY}}",
        f"committee={{verifiers: [{json.dumps(judge)}], quorum: 1, required: 1}}",
    ]


def check(behaviour, *names, sets=()):
    """What is said of the endpoints of these stages (with the status), and what they were sent."""

    async def main():
        async with endpoint(behaviour) as requests:
            config = load(None, [*settings(requests.url), *sets])
            checks = await asyncio.to_thread(doctor_config.named, config, lambda field: False, names)
            return [(c.status, f"{c.found}; {c.todo}") for c in checks if c.status != "ok"], requests

    return asyncio.run(main())


async def knows_big_only(n, body, writer):
    known = body["model"] == "big"
    writer.write(response(chat("yes")) if known else response(b"no model judge", "404 Not Found"))


async def takes_no_schema(n, body, writer):
    refused = "response_format" in body
    no = response(b"json_schema: unknown field", "400 Bad Request")
    writer.write(no if refused else response(chat("yes")))


def test_each_endpoint_is_asked_once_as_the_stages_will_ask_it():
    said, requests = check(says("yes"), "acquire", "sft", "evaluate")
    assert said == []
    assert sorted((r["model"], "response_format" in r, r["temperature"]) for r in requests) == [
        ("big", False, 0.7),
        ("judge", True, 0.7),
    ]


def test_a_stage_that_asks_nobody_asks_nobody():
    assert check(says("yes"), "solve", "evaluate") == ([], [])
    assert [r["model"] for r in check(says("yes"), "acquire")[1]] == ["big"]


@pytest.mark.parametrize(
    "behaviour, where, why",
    [
        (sends(response(b"bad key", "401 Unauthorized")), "teacher", "HTTP 401.*MY_KEY is not set"),
        (sends(response(b"{}")), "teacher", "no chat completion"),
        (knows_big_only, "committee.verifiers.0", "HTTP 404 for model 'judge'"),
        (sends(response(b"seed: unknown field", "400 Bad Request")), "teacher", "HTTP 400 .*: seed: unknown field"),
        (sends(response(b"", "500 Oh")), "teacher", "HTTP 500"),
    ],
)
def test_what_cannot_work_is_one_line_that_names_the_field(monkeypatch, behaviour, where, why):
    monkeypatch.delenv("MY_KEY", raising=False)
    said = check(behaviour, "acquire", "sft")[0]
    assert {status for status, _ in said} == {"fail"}
    assert any(f"fix {where}: base_url" in text and re.search(why, text) for _, text in said), said
    assert not any("\n" in text for _, text in said)


def test_who_is_slow_or_busy_is_let_through_with_a_line(monkeypatch):
    monkeypatch.setattr(endpoints, "_ANSWER_S", 0.1)
    for behaviour in (is_silent, sends(BUSY)):
        ((status, text),) = check(behaviour, "acquire")[0]
        assert status == "warn" and "whether teacher can bear the run's calls" in text


def test_who_takes_no_schema_is_asked_in_words_and_it_is_said():
    said, requests = check(takes_no_schema, "sft")
    assert said == [
        (
            "warn",
            f"{requests.url}: takes no schema for its replies; it is asked in words alone; "
            "take structured from committee.verifiers.0",
        )
    ]


def test_each_kind_of_request_is_asked_for():
    """One endpoint, model and key, and requests that differ in a field or in the form of the reply."""
    more = ["reward.judge={base_url: 'URL', model: big, api_key_env: MY_KEY, thinking: true}", "teacher.guided=true"]

    async def main():
        async with endpoint(says("yes")) as requests:
            config = load(None, [x.replace("URL", requests.url) for x in (*settings(requests.url), *more)])
            await asyncio.to_thread(doctor_config.named, config, lambda field: False, ("acquire", "mgpo"))
            return requests

    requests = asyncio.run(main())
    asked = sorted((r["model"], "structured_outputs" in r, "chat_template_kwargs" in r) for r in requests)
    assert asked == [("big", False, True), ("big", True, False), ("judge", False, False)]


def test_the_last_prober_is_asked_for_the_judges_where_they_have_no_model_of_their_own():
    ladder = "prober.ladder=[{path: mini:solver}, {endpoint: {base_url: 'http://x/v1', model: m}}]"
    (found,) = endpoints.endpoints_of(load(None, [ladder]))
    assert (found.fields, found.stages) == (["prober.ladder.1.endpoint"], {"sft", "mgpo", "synthesize"})
    (found,) = endpoints.endpoints_of(load(None, [ladder, "committee.judge={path: mini:solver}"]))
    assert found.stages == {"mgpo", "synthesize"}


class Cluster:
    joins = False

    def __init__(self, config, root, say):
        pass

    async def sandbox_stats(self):
        return None

    async def idle(self):
        pass

    def close(self, shutdown):
        pass


def drive(monkeypatch, root, work, *given):
    async def run(context, name):
        return await work()

    monkeypatch.setattr(driver, "Cluster", Cluster)
    monkeypatch.setattr(stages, "run", run)
    return driver.drive(load(None, given), root, ["acquire"])


def test_a_run_whose_endpoint_is_dead_makes_nothing(tmp_path):
    with pytest.raises(Failure, match=r"http://127\.0\.0\.1:9/v1.*ConnectError.*fix teacher"):
        preflight.check(load(None, settings("http://127.0.0.1:9/v1")), tmp_path / "run", ["acquire"])
    assert not (tmp_path / "run").exists()


def test_a_slow_endpoint_does_not_keep_a_run_from_starting(monkeypatch, tmp_path):
    monkeypatch.setattr(endpoints, "_ANSWER_S", 0.1)

    async def main():
        async with endpoint(is_silent) as requests:
            config = load(None, settings(requests.url))
            return await asyncio.to_thread(preflight.check, config, tmp_path / "run", ["acquire"])

    (line,) = asyncio.run(main())
    assert line.startswith("endpoint · ") and "teacher" in line


def test_a_spent_budget_is_one_line_and_what_was_spent_is_in_the_metrics(monkeypatch, tmp_path, capsys):
    async def work():
        store().settle(None, "http://x/v1", 40, 0.5)
        raise Halt("budget_usd 1: too little is left")

    before = os.environ.get(KEPT_IN)
    with pytest.raises(Failure, match="budget_usd 1"):
        drive(monkeypatch, tmp_path / "run", work)
    assert "http://x/v1: 1 calls, 0 answered before, 40 tokens, $0.5" in capsys.readouterr().err
    (row,) = read_metrics(RunDir.read(tmp_path / "run")[0])["endpoints"]
    assert (row["usd"], row["tokens"], row["calls"], row["usd/http://x/v1"]) == (0.5, 40, 1, 0.5)
    assert os.environ.get(KEPT_IN) == before


def test_what_is_spent_and_may_be_is_known_at_any_moment_for_the_alert_on_budgets(tmp_path):
    url, priced = "http://x/v1", "usd_per_million_in: 1"
    use = f"kind: openai, base_url: '{url}/', model: big, {priced}, budget_usd: 2, budget_tokens: 900"
    judge = {"base_url": url, "model": "judge", "kind": "model", "usd_per_million_in": 1, "budget_usd": 1.5}
    verifiers = f"committee={{verifiers: [{json.dumps(judge)}], quorum: 1, required: 1}}"
    config = load(None, [f"teacher={{{use}}}", verifiers])
    with endpoints.keeping(config, tmp_path / "run"):
        allowed = {f"budget_usd/{url}": 1.5, f"budget_tokens/{url}": 900}
        assert endpoints.now(config) == allowed
        store().settle(None, url, 40, 0.5)
        assert endpoints.now(config) == {**allowed, f"usd/{url}": 0.5, f"tokens/{url}": 40}


def test_a_run_that_asks_nobody_keeps_nothing_and_spending_is_each_runs_own(monkeypatch, tmp_path):
    async def idle():
        return {}

    drive(monkeypatch, tmp_path / "run", idle)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]

    async def spend():
        store().settle(None, "http://x/v1", 1, 0.0)
        return {}

    for name in ("run", "other", "run"):
        drive(monkeypatch, tmp_path / name, spend)
    kept = str(tmp_path / "replies.sqlite")
    assert [ReplyStore(kept, str(tmp_path / n)).spent()["http://x/v1"]["calls"] for n in ("run", "other")] == [2, 1]


def test_limits_and_budgets_may_change_when_a_run_goes_on(monkeypatch, tmp_path):
    async def idle():
        return {}

    given = [*settings("http://127.0.0.1:9/v1")]
    drive(monkeypatch, tmp_path / "run", idle, *given)
    (tmp_path / "run" / "steps").mkdir()
    drive(monkeypatch, tmp_path / "run", idle, *given, "teacher.budget_tokens=9", "teacher.concurrency=3")
    with pytest.raises(Failure, match="made with another config"):
        drive(monkeypatch, tmp_path / "run", idle, *given, "teacher.top_k=3")


def test_a_teacher_that_rewrites_is_asked_while_the_data_set_is_written_and_no_proposer_is():
    teacher = "teacher={kind: openai, base_url: http://127.0.0.1:1/v1, model: big}"
    proposer = "proposer.endpoint={base_url: http://127.0.0.1:2/v1, model: small}"
    rewrites = "synthesize.rewrite={kind: metamath, seeds: mini:seeds}"
    for more, asked in (((), ["small"]), ((rewrites,), ["big"])):
        found = endpoints.endpoints_of(load(None, [teacher, proposer, *more]))
        assert [one.section.model for one in found if "synthesize" in one.stages] == asked
