"""Skill acquisition (PAPER, stage 1): a teacher reads the corpus and proposes skills; those it scores high are kept.

A document is one step: its reply is on disk before the next is counted, so a teacher is never asked twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.domains.teachers import make_teacher
from pipeline.flow.context import Context
from pipeline.records import Failure, Skill
from pipeline.skills import corpus, extraction
from pipeline.store.manifest import verified
from pipeline.store.rundir import RunDir
from pipeline.watch.fanout import map_bounded

_WAVE = 32
"""Documents asked side by side; a wave is on disk before the next begins."""


async def run(context: Context) -> dict[str, Any]:
    config = context.config.acquire
    domain = context.domain
    sources = [domain.resolve(name) for name in config.corpus]
    found = corpus.read(sources, config.on_bad_record, config.max_document_chars)
    teacher = make_teacher(context.config.teacher, domain)
    done = len(context.run.steps("acquire"))

    async def ask(numbered: tuple[int, extraction.Document]) -> str:
        number, document = numbered
        messages = extraction.acquisition_messages(document, domain.prompts.extraction(document.kind))
        return await teacher.complete(messages, seed=context.seed("acquire", number))

    with context.progress.stage("acquire", len(found.documents), "document", done) as progress:
        for start in range(done, len(found.documents), _WAVE):
            wave = found.documents[start : start + _WAVE]
            replies = await map_bounded(ask, list(enumerate(wave, start=start)), _WAVE)
            for number, (document, reply) in enumerate(zip(wave, replies, strict=True), start=start + 1):
                with context.run.new_step("acquire", number) as folder:
                    (folder / "reply.json").write_text(json.dumps({"source": document.source, "reply": reply}))
            progress.advance(len(wave))

    kept, candidates, malformed = library(
        context.run, config.min_score, lambda line: context.progress.say("acquire", line)
    )
    low = sum(c.score < config.min_score for c in candidates)
    if not len(kept):
        raise Failure(
            f"acquire: none of {len(candidates)} candidate skills reaches acquire.min_score ({config.min_score}); "
            "lower it, or give a richer corpus"
        )
    kept.save(context.run.path("skills"))
    return {
        "documents": len(found.documents),
        "skipped_records": found.skipped,
        "malformed_replies": malformed,
        "candidates": len(candidates),
        "dropped_low_score": low,
        "duplicates": len(candidates) - low - len(kept),
        "kept": len(kept),
        "skills": dict(sorted(Counter(s.category for s in kept).items())),
        "unnamed_categories": sorted({s.category for s in kept} - set(domain.categories)),
    }


def library(
    run: RunDir, min_score: float, say: Callable[[str], None]
) -> tuple[extraction.SkillLibrary, list[Skill], int]:
    """The skill library of the replies on disk, the candidates for it, and how many replies were left out."""
    candidates: list[Skill] = []
    malformed = 0
    for step in run.steps("acquire"):
        saved = json.loads(verified(step / "reply.json").read_text(encoding="utf-8"))
        try:
            candidates += extraction.parse_reply(saved["reply"], saved["source"])
        except Failure as e:
            malformed += 1
            say(f"{saved['source']}: reply left out: {e}")
    return extraction.select(candidates, min_score), candidates, malformed
