"""Trajectories of others, as rollouts to clone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from actors.chat import ChatFormat
from pipeline.config.loading import load
from pipeline.flow.trajectories import read, write
from pipeline.records import Failure, Rollout
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from tests.actors.tiny_model import make_tokenizer

CHAT = ChatFormat(make_tokenizer(Path(tempfile.mkdtemp(prefix="trajectories-"))))


def say(*turns, system=True):
    roles = [*(["system"] if system else []), *["user", "assistant"] * len(turns)]
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]}


def file(tmp_path, *lines):
    path = tmp_path / "given.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_conversation_is_tokenised_as_an_episode_and_only_its_assistant_is_learned(tmp_path):
    submit = '<tool_call>\n{"name": "submit", "arguments": {"question": "Q?", "answer": "3"}}\n</tool_call>'
    talk = say("You write.", "Go.", "## Check\n1 + 2", "Stage: finalize", f"## Finalize\n{submit}")
    (rollout,), left_out = read(file(tmp_path, talk), CHAT, 9999)
    whole = CHAT.encode_messages(talk["messages"])
    assert left_out == 0 and list(rollout.token_ids) == whole[: len(rollout.token_ids)]
    learned = [CHAT.decode([t]) for t, m in zip(rollout.token_ids, rollout.loss_mask, strict=True) if m]
    assert "".join(learned) == f"## Check\n1 + 2## Finalize\n{submit}"
    ends = [t for t, m in zip(rollout.token_ids, rollout.loss_mask, strict=True) if m and t == CHAT.eos_id]
    assert len(ends) == 2  # each turn's end is learned too
    assert rollout.action_stage == (1, 3) and rollout.action_kind == (0, 3)


def test_what_is_given_is_written_as_the_loader_reads_it(tmp_path):
    rollouts, _ = read(file(tmp_path, say("s", "u", "a"), say("s", "u", "b")), CHAT, 9999)
    run = RunDir.open(tmp_path / "run", load())
    (run.path("trajectories") / "given.parquet").mkdir(parents=True)  # what lies there, however damaged, gives way
    for said in (rollouts[:1], rollouts):
        assert read_records(write(run, "sft", "given", said), Rollout) == said
    run.close()


def test_what_is_too_long_is_counted_and_an_empty_file_refused(tmp_path):
    short, long = say("s", "u", "a"), say("s", "u", "a" * 500)
    rollouts, left_out = read(file(tmp_path, short, "", long), CHAT, 100)
    assert ([r.episode_id for r in rollouts], left_out) == (["given-000001"], 1)
    with pytest.raises(Failure, match="no trajectory to learn from; 1 exceed 100 tokens"):
        read(file(tmp_path, long), CHAT, 100)
    with pytest.raises(Failure, match="no-such"):
        read(tmp_path / "no-such", CHAT, 100)


@pytest.mark.parametrize(
    "line, why",
    [
        ("{", "Expecting"),
        ("[1]", "expected {\"messages\""),
        ({"messages": []}, "expected {\"messages\""),
        ({"messages": [{"role": "user"}]}, "messages.0: expected role and content"),
        (say("s", "u", "a", "u"), "roles system, user, assistant, user; expected"),
        (say("u"), "roles system; expected"),
        (say("s", "u"), "expected"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_conversation_is_refused_by_its_number(tmp_path, line, why):
    with pytest.raises(Failure) as failure:
        read(file(tmp_path, say("s", "u", "a"), line), CHAT, 9999)
    assert "given.jsonl:2: " in str(failure.value) and why in str(failure.value)
