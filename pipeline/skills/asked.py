"""What came back for each document of a corpus, as the steps of `acquire` keep it.

    steps/acquire/NNNNNN/replies.jsonl    a line a document: what it says and where it is from, who was asked, and the
                                          reply, its repair, and the reply of the rubric to each skill; or the failure

Invariant: of the tries of a document the last one counts, and what an earlier one had paid for is part of it. A
rubric's reply belongs to the skill that its key names (`key`), whatever the order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.records import Skill
from pipeline.skills import replies, table
from pipeline.store.manifest import verified
from pipeline.store.rundir import RunDir

REPLIES = "replies.jsonl"
"""The file of a step."""

Saved = Mapping[str, Any]
"""What is on disk of a document."""


def saved(run: RunDir, documents: int) -> Iterator[Saved]:
    """Of each of the first `documents` that were asked about, the last try."""
    last = last_tries(run)
    for step in sorted(set(last.values())):
        for line in _step(step):
            if last[line["document"]] == step and line["document"] < documents:
                yield line


def last_tries(run: RunDir) -> dict[int, Path]:
    """Document -> the step of its last try."""
    return {line["document"]: step for step in run.steps("acquire") for line in _step(step)}


def sources(run: RunDir) -> dict[int, str]:
    """Document -> what it was called when it was asked about."""
    return {line["document"]: line["source"] for step in run.steps("acquire") for line in _step(step)}


def _step(folder: Path) -> Iterator[Saved]:
    with verified(folder / REPLIES).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def read(saved: Saved) -> replies.Reading:
    """The skills of a reply and of its repair; what the repair mended is no fault any more."""
    first = replies.read(saved["reply"], saved["source"])
    if "repair" not in saved:
        return first
    second = replies.read(saved["repair"], f"{saved['source']} (repair)")
    names = {skill.id for skill in first.skills}
    mended = [skill for skill in second.skills if skill.id not in names]
    if len(mended) >= len(first.faults):
        return replies.Reading((*first.skills, *mended), ())
    return replies.Reading((*first.skills, *mended), (*first.faults, *second.faults))


def key(skill: Skill) -> str:
    """What a skill that was read from a reply is known by, within its document."""
    return table.version(skill)
