"""Skill acquisition (PAPER, stage 1): a teacher reads the corpus and proposes skills; those it scores high are kept.

Step n is the first try at document n, whatever came of it; steps beyond the documents are second tries at those whose
teacher gave no answer. Each is on disk before the next wave begins, so a teacher is never asked twice for what it
answered, and a document that brings nothing costs itself only. Where the endpoint is not there, the stage ends, and
goes on from that wave when it is started again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.teacher import Teacher
from pipeline.config import ScriptedTeacherConfig, TeacherConfig
from pipeline.domains.base import Domain
from pipeline.domains.teachers import make_teacher
from pipeline.flow.context import Context
from pipeline.records import Failure, Skill
from pipeline.skills import corpus, extraction, replies
from pipeline.skills.admission import admit
from pipeline.store.manifest import verified
from pipeline.store.rundir import RunDir
from pipeline.watch.fanout import map_bounded

_WAVE = 32
"""Documents asked side by side; a wave is on disk before the next begins."""
_TRIES = 3
"""Of a reply without text, each with a seed of its own. What else can go wrong, the client tries again itself."""
_NAMED = 3
"""Examples named of what was left out."""


async def run(context: Context) -> dict[str, Any]:
    config = context.config.acquire
    sources = [context.domain.resolve(name) for name in config.corpus]
    found = corpus.read(sources, config.on_bad_record, config.max_document_chars)
    for reason, names in found.left_out.items():
        more = ", …" if len(names) > _NAMED else ""
        context.progress.say("acquire", f"{len(names)} left out, {reason}: {', '.join(names[:_NAMED])}{more}")
    documents = found.documents
    teacher = make_teacher(context.config.teacher, context.domain)
    done = len(context.run.steps("acquire"))
    with context.progress.stage("acquire", len(documents), "document", min(done, len(documents))) as progress:
        for start in range(done, len(documents), _WAVE):
            wave = range(start, min(start + _WAVE, len(documents)))
            answers = await _ask(context, teacher, documents, wave)
            _raise_if_gone(context, documents, answers)
            _write(context, answers)
            progress.advance(len(wave))
    if unanswered := [n for n, saved in _saved(context.run, len(documents)).items() if "failure" in saved]:
        _write(context, await _ask(context, teacher, documents, unanswered))

    made = select(
        context.run, context.domain, len(documents), config.min_score, partial(context.progress.say, "acquire")
    )
    if not made.candidates:
        raise Failure(
            f"acquire: no skill in the replies to {len(documents)} document{'s' * (len(documents) != 1)}: "
            f"{made.malformed} could not be read, {made.failed} did not come; {_remedy(context.config.teacher)}"
        )
    low = sum(c.score < config.min_score for c in made.candidates)
    if not len(made.kept):
        raise Failure(
            f"acquire: none of {len(made.candidates)} candidate skills reaches acquire.min_score ({config.min_score}); "
            "lower it, or give a richer corpus"
        )
    admission = await asyncio.to_thread(admit, made.kept, context.config.sandbox)
    for id, why in admission.refused.items():
        context.progress.say("acquire", f"the script of {id} is left out: {why}")
    if admission.untried:
        context.progress.say("acquire", f"no script was tried: {admission.untried}")
    kept = extraction.SkillLibrary(admission.skills)
    kept.save(context.run.path("skills"))
    return {
        "documents": len(documents),
        "skipped_records": found.skipped,
        "left_out": {reason: len(names) for reason, names in found.left_out.items()},
        "failed_replies": made.failed,
        "malformed_replies": made.malformed,
        "candidates": len(made.candidates),
        "copied_examples": made.copied,
        "dropped_low_score": low,
        "duplicates": len(made.candidates) - low - len(kept),
        "kept": len(kept),
        "scripts": sum(skill.script is not None for skill in kept),
        "scripts_left_out": len(admission.refused),
        "skills": dict(sorted(Counter(s.category for s in kept).items())),
        "unnamed_categories": sorted({s.category for s in kept} - set(context.domain.categories)),
    }


def _remedy(teacher: TeacherConfig) -> str:
    """What to do about a corpus that the teacher finds no skill in."""
    if isinstance(teacher, ScriptedTeacherConfig):
        return "the scripted teacher knows its domain's bundled corpus alone; for another, a model: teacher.kind=openai"
    return "give another teacher, or a richer corpus"


async def _ask(
    context: Context, teacher: Teacher, documents: Sequence[extraction.Document], numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """Ask for some documents side by side: of each the reply, or why none came."""

    async def one(number: int) -> dict[str, Any]:
        document = documents[number]
        asked = {"document": number, "source": document.source}
        try:
            return asked | await _reply(context, teacher, number, document)
        except Failure as e:
            return asked | {"failure": str(e), "kind": e.kind}

    return await map_bounded(one, numbers, _WAVE)


def _raise_if_gone(
    context: Context, documents: Sequence[extraction.Document], answers: Sequence[dict[str, Any]]
) -> None:
    """A whole wave that the endpoint did not answer says something about the endpoint, a single document may be what it
    does not take."""
    kinds = {a.get("kind") for a in answers}
    if not kinds <= {"infra_error", "data_error"}:
        return
    never = all("failure" in saved for saved in _saved(context.run, len(documents)).values())
    if never or (kinds == {"infra_error"} and len(answers) > 1):
        raise Failure(f"acquire: the teacher answered for none of {len(answers)} documents: {answers[0]['failure']}")


def _write(context: Context, answers: Sequence[dict[str, Any]]) -> None:
    for saved in answers:
        if "failure" in saved:
            context.progress.say("acquire", f"{saved['source']}: no reply: {saved['failure']}")
        with context.run.new_step("acquire", len(context.run.steps("acquire")) + 1) as folder:
            (folder / "reply.json").write_text(json.dumps(saved))


async def _reply(context: Context, teacher: Teacher, number: int, document: extraction.Document) -> dict[str, Any]:
    """The teacher's reply and, where something of it cannot be read, its repair. Raises Failure if no reply came."""
    template = context.domain.prompts.extraction(document.kind)
    messages = extraction.acquisition_messages(document, template, context.domain.categories)
    for again in range(_TRIES):
        seed = context.seed("acquire", number, *([again] if again else []))
        try:
            reply = await teacher.complete(messages, seed=seed)
        except Failure as e:
            if e.kind != "model_error" or again + 1 == _TRIES:
                raise
        else:
            break
    faults = replies.read(reply, document.source).faults
    if not faults:
        return {"reply": reply}
    kept = {"reply": reply, "faults": list(faults)}
    try:
        repair = await teacher.complete(
            extraction.repair_messages(messages, reply, faults), seed=context.seed("acquire", number, "repair")
        )
    except Failure as e:
        return kept | {"unrepaired": str(e)}
    return kept | {"repair": repair}


@dataclass(frozen=True)
class Selected:
    """What is made of the replies on disk."""

    kept: extraction.SkillLibrary
    candidates: list[Skill]
    copied: int
    """Skills that the teacher took from its prompt's examples."""
    malformed: int
    """Replies that could not be read as a whole."""
    failed: int
    """Documents without a reply."""


def select(run: RunDir, domain: Domain, documents: int, min_score: float, say: Callable[[str], None]) -> Selected:
    """The skills of the replies on disk, before their scripts are tried."""
    readings = {n: saved for n, saved in _saved(run, documents).items() if "failure" not in saved}
    candidates: list[Skill] = []
    malformed = copied = 0
    shown = {
        (skill.id, skill.intent)
        for prompt in (domain.prompts.questions, domain.prompts.prose)
        for skill in replies.read(prompt, "the prompt").skills
    }
    for saved in readings.values():
        read = _read(saved)
        candidates += [skill for skill in read.skills if (skill.id, skill.intent) not in shown]
        copied += sum((skill.id, skill.intent) in shown for skill in read.skills)
        malformed += bool(read.faults)
        for fault in read.faults:
            say(f"left out: {fault}")
    kept = extraction.select(candidates, min_score)
    return Selected(kept, candidates, copied, malformed, documents - len(readings))


def _saved(run: RunDir, documents: int) -> dict[int, dict[str, Any]]:
    """What is on disk of each document: the last of its tries."""
    last: dict[int, dict[str, Any]] = {}
    for step, folder in enumerate(run.steps("acquire")):
        saved = json.loads(verified(folder / "reply.json").read_text(encoding="utf-8"))
        last[saved.get("document", step)] = saved
    return {n: saved for n, saved in sorted(last.items()) if n < documents}


def _read(saved: dict[str, Any]) -> replies.Reading:
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
