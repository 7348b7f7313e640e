"""What the proposer learns extraction from (L_skill-acq): rollouts of documents with the skills that were kept of each.

Invariant: which documents, and in which order, follows from the replies on disk, the library and the seed; one that is
longer than an episode may be is left out and counted. A document is at most one row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from actors.chat import ChatFormat
from pipeline.flow import trajectories
from pipeline.flow.context import Context
from pipeline.records import Rollout
from pipeline.skills import asked, candidates
from pipeline.skills.examples import Example, Passed, chosen, examples
from pipeline.skills.extraction import SkillLibrary, acquisition_messages


def wanted(beside: int, share: float) -> int:
    """How many rows make up this share beside so many trajectories."""
    return round(beside * share / (1 - share))


def write(context: Context, n: int, chat: ChatFormat) -> tuple[Path, int]:
    """The file of at most `n` rollouts, and how many it holds. Says what is left out, and why."""
    library = SkillLibrary.load(context.run.path("skills"))
    known = candidates.read(context.run.path("skills"))
    passed: Counter[Passed] = Counter()
    rows = asked.saved(context.run, context.result_of("acquire")["documents"])
    found = chosen(examples(rows, known, passed), n, context.seed("sft", "extraction"))
    lessons = list(_rollouts(context, found, library, chat))
    limit = context.config.episode.limits.max_tokens
    short = [rollout for rollout in lessons if len(rollout.token_ids) <= limit]
    left_out = dict(passed) | {"longer than episode.limits.max_tokens": len(lessons) - len(short)}
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    if told or len(short) < n:
        context.progress.say("sft", f"{len(short)} of {n} extraction examples; documents left out: {told or 'none'}")
    return trajectories.write(context.run, "sft", "extraction", short), len(short)


def _rollouts(context: Context, found: list[Example], library: SkillLibrary, chat: ChatFormat) -> Iterator[Rollout]:
    domain = context.domain
    for number, example in enumerate(found):
        template = domain.prompts.extraction(example.document.kind, learned=True)
        messages = acquisition_messages(example.document, template, domain.categories)
        said = {"role": "assistant", "content": example.reply(library)}
        yield trajectories.rollout_of(f"extraction-{number:06d}", [*messages, said], chat)
