"""Rollouts that teach extraction: the document is read, the reply is learned, what is too long is left out and told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from actors.chat import ChatFormat
from pipeline import domains
from pipeline.config.loading import load
from pipeline.flow import extraction_lessons
from pipeline.records import Rollout
from pipeline.skills import asked, candidates, replies
from pipeline.skills.extraction import SkillLibrary
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from tests.pipeline.skills.test_examples import KINDS, candidates_of, row


@pytest.fixture
def context(tmp_path):
    config = load(None, ["episode.limits.max_tokens=400"])
    run = RunDir.open(tmp_path / "run", config)
    rows = [row(0, KINDS["sums"]), row(1), row(2, KINDS["roots"]), row(3, KINDS["lenses"], text="word " * 400)]
    rows += [row(n, KINDS["isotopes"]) for n in range(4, 8)]
    kept, settled = candidates_of(*rows)
    SkillLibrary(kept).save(run.path("skills"), candidates=candidates.written(settled))
    with run.new_step("acquire", 1) as folder:
        (folder / asked.REPLIES).write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines: list[str] = []
    yield SimpleNamespace(
        config=config, run=run, domain=domains.of(config.domain), lines=lines, seed=lambda *_: 5,
        result_of=lambda _: {"documents": len(rows)}, progress=SimpleNamespace(say=lambda _, line: lines.append(line)),
    )  # fmt: skip
    run.close()


def test_the_reply_is_learned_and_the_document_is_not(context):
    chat = ChatFormat(context.domain.model("mini:proposer"))
    path, n = extraction_lessons.write(context, 20, chat)
    rollouts = read_records(path, Rollout)  # as the loader reads it
    assert n == len(rollouts) == 7  # the document of 400 words is too long
    assert "7 of 20 extraction examples" in context.lines[0] and "1 longer than" in context.lines[0]
    said, read = [], []
    for rollout in rollouts:
        mine = [t for t, m in zip(rollout.token_ids, rollout.loss_mask, strict=True) if m]
        assert mine[-1] == chat.eos_id and mine == list(rollout.token_ids[-len(mine) :])
        said.append(chat.decode(mine))
        read.append(chat.decode(rollout.token_ids[: -len(mine)]))
    learned = [[s.id for s in replies.read(text, "a.md").skills] for text in said]
    assert sorted(learned) == [[], *[["isotopes"]] * 4, ["roots"], ["sums"]]
    asked_of = dict(zip(map(str, learned), read, strict=True))
    assert "Skills of this text:\ntext 0" in asked_of["['sums']"] and "text 1" in asked_of["[]"]
    assert said[learned.index([])] == "NONE"


def test_the_same_run_makes_the_same_file(context):
    chat = ChatFormat(context.domain.model("mini:proposer"))
    first = extraction_lessons.write(context, 3, chat)[0].read_bytes()
    assert extraction_lessons.write(context, 3, chat)[0].read_bytes() == first


def test_rows_for_a_share_beside_trajectories():
    assert [extraction_lessons.wanted(n, share) for n, share in ((900, 0.1), (100, 0.5), (50, 0.0))] == [100, 100, 0]
