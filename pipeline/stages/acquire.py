"""Skill acquisition (PAPER, stage 1): a teacher reads the corpus and proposes skills, a call of its own scores each;
those that score high, and whose scripts pass their self-test, are kept.

A step is a wave of documents, whatever came of them, in their order; steps beyond the last document are second tries at
those whose teacher gave no answer. Each is on disk before the next wave is read, so a teacher is asked once for a
document of which every call was answered, a document that brings nothing costs itself only, and what is in memory while
teachers are asked does not grow with the corpus. Where the endpoint is not there, the stage ends, and goes on from that
wave when it is started again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from actors.teacher import Teacher
from pipeline.config import Config, ScriptedTeacherConfig, TeacherConfig
from pipeline.domains.base import Domain
from pipeline.domains.teachers import make_teacher
from pipeline.flow.context import Context
from pipeline.records import Failure, Skill
from pipeline.skills import candidates, corpus, extraction, replies, rubric
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
REPLIES = "replies.jsonl"
"""The file of a step: of each document of a wave, what came back."""


async def run(context: Context) -> dict[str, Any]:
    config = context.config.acquire
    documents = corpus.of(config, context.domain.resolve)
    total = sum(1 for _ in documents)
    for reason, count in documents.left_out.items():
        named = documents.named[reason][:_NAMED]
        more = ", …" if count > len(named) else ""
        context.progress.say("acquire", f"{count} left out, {reason}: {', '.join(named)}{more}")
    teacher = make_teacher(context.config.teacher, context.domain)
    done = len(_last_tries(context.run))
    with context.progress.stage("acquire", total, "document", min(done, total)) as progress:
        ahead = islice(enumerate(documents), done, None)
        for wave in iter(lambda: list(islice(ahead, _WAVE)), []):
            answers = await _ask(context, teacher, wave)
            _raise_if_gone(context, total, answers)
            _write(context, answers)
            progress.advance(len(wave))
    if unanswered := {saved["document"] for saved in _saved(context.run, total) if "failure" in saved}:
        again = (one for one in enumerate(documents) if one[0] in unanswered)
        for wave in iter(lambda: list(islice(again, _WAVE)), []):
            _write(context, await _ask(context, teacher, wave))

    say = partial(context.progress.say, "acquire")
    made = await asyncio.to_thread(build, context.run, context.domain, context.config, total, say)
    kept, counts = made.library, Counter(c.cause for c in made.candidates)
    kept.save(context.run.path("skills"), candidates=candidates.written(made.candidates))
    return {
        "documents": total,
        "skipped_records": documents.skipped,
        "left_out": dict(documents.left_out),
        "failed_replies": made.failed,
        "malformed_replies": made.malformed,
        "candidates": len(made.candidates) - counts["example"],
        "copied_examples": counts["example"],
        "unscored": counts["no score"],
        "dropped_low_score": counts["low score"],
        "duplicates": sum(c.outcome == "merged" for c in made.candidates),
        "kept": len(kept),
        "scripts": sum(skill.script is not None for skill in kept),
        "refused": made.refused,
        "version": kept.version,
        "skills": dict(sorted(Counter(s.category for s in kept).items())),
        "unnamed_categories": sorted({s.category for s in kept} - set(context.domain.categories)),
        "merged_categories": made.categories,
    }


def _remedy(teacher: TeacherConfig) -> str:
    """What to do about a corpus that the teacher finds no skill in."""
    if isinstance(teacher, ScriptedTeacherConfig):
        return "the scripted teacher knows its domain's bundled corpus alone; for another, a model: teacher.kind=openai"
    return "give another teacher, or a richer corpus"


async def _ask(
    context: Context, teacher: Teacher, documents: Sequence[tuple[int, extraction.Document]]
) -> list[dict[str, Any]]:
    """Ask for some documents side by side: of each the reply, or why none came."""

    async def one(numbered: tuple[int, extraction.Document]) -> dict[str, Any]:
        number, document = numbered
        asked = {
            "document": number,
            "source": document.source,
            "path": document.path,
            "origin": document.origin,
            "license": document.license,
        }
        try:
            return asked | await _reply(context, teacher, number, document)
        except Failure as e:
            return asked | {"failure": str(e), "kind": e.kind}

    return await map_bounded(one, documents, _WAVE)


def _raise_if_gone(context: Context, total: int, answers: Sequence[dict[str, Any]]) -> None:
    """A whole wave that the endpoint did not answer says something about the endpoint, a single document may be what it
    does not take."""
    kinds = {a.get("kind") for a in answers}
    if not kinds <= {"infra_error", "data_error"}:
        return
    never = all("failure" in saved for saved in _saved(context.run, total))
    if never or (kinds == {"infra_error"} and len(answers) > 1):
        raise Failure(f"acquire: the teacher answered for none of {len(answers)} documents: {answers[0]['failure']}")


def _write(context: Context, answers: Sequence[dict[str, Any]]) -> None:
    for saved in answers:
        if "failure" in saved:
            context.progress.say("acquire", f"{saved['source']}: no reply: {saved['failure']}")
    with context.run.new_step("acquire", len(context.run.steps("acquire")) + 1) as folder:
        (folder / REPLIES).write_text("".join(json.dumps(saved) + "\n" for saved in answers))


async def _reply(context: Context, teacher: Teacher, number: int, document: extraction.Document) -> dict[str, Any]:
    """The teacher's reply, its repair where something of it cannot be read, and what the rubric's calls gave each
    skill. Raises Failure if no reply came."""
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
    kept: dict[str, Any] = {"reply": reply}
    if faults := replies.read(reply, document.source).faults:
        kept["faults"] = list(faults)
        try:
            kept["repair"] = await teacher.complete(
                extraction.repair_messages(messages, reply, faults), seed=context.seed("acquire", number, "repair")
            )
        except Failure as e:
            kept["unrepaired"] = str(e)
    if context.config.acquire.scoring == "rubric":
        shown = _examples(context.domain)
        skills = _read(kept | {"source": document.source}).skills
        kept["scores"] = [
            None if (skill.id, skill.intent) in shown else await _score(context, teacher, number, n, skill, document)
            for n, skill in enumerate(skills)
        ]
    return kept


async def _score(
    context: Context, teacher: Teacher, number: int, n: int, skill: Skill, document: extraction.Document
) -> str | None:
    """The reply that holds a candidate against the rubric; None if none came. Raises Failure where the endpoint is not
    there."""
    asked = rubric.messages(context.domain.prompts.rubric, extraction.render(skill), document.text)

    async def reply(messages: list[dict[str, str]], *again: str) -> str | None:
        try:
            return await teacher.complete(messages, seed=context.seed("acquire", number, "score", n, *again))
        except Failure as e:
            if e.kind == "infra_error":
                raise
            return None

    first = await reply(asked)
    if first is None:
        return await reply(asked, "again")
    if isinstance(fault := rubric.read(first), str):
        return await reply(rubric.again(asked, first, fault), "again") or first
    return first


# ---------------------------------------------------------------- what is made of the replies


@dataclass(frozen=True)
class Built:
    """What is made of the replies on disk."""

    library: extraction.SkillLibrary
    candidates: list[candidates.Candidate]
    refused: int
    """Candidates whose scripts were."""
    categories: dict[str, str]
    """Proposed category -> the one that its skills went to."""
    malformed: int
    """Replies that could not be read as a whole."""
    failed: int
    """Documents without a reply."""
    untried: str
    """Why no script could be run here, if none could."""


def proposals(
    run: RunDir, domain: Domain, documents: int, say: Callable[[str], None]
) -> tuple[list[candidates.Candidate], int, int]:
    """(candidates of the replies on disk, replies that could not be read as a whole, documents without one)."""
    proposed: list[candidates.Candidate] = []
    malformed, failed = 0, documents
    shown = _examples(domain)
    for saved in _saved(run, documents):
        if "failure" in saved:
            continue
        failed -= 1
        read = _read(saved)
        proposed += [_candidate(saved, n, skill, shown) for n, skill in enumerate(read.skills)]
        malformed += bool(read.faults)
        for fault in read.faults:
            say(f"left out: {fault}")
    return proposed, malformed, failed


def build(run: RunDir, domain: Domain, config: Config, documents: int, say: Callable[[str], None]) -> Built:
    """The library of the replies on disk. Waits for the sandbox. Raises Failure where no skill is left."""
    settings = config.acquire
    proposed, malformed, failed = proposals(run, domain, documents, say)
    if all(c.cause == "example" for c in proposed):
        raise Failure(
            f"acquire: no skill in the replies to {documents} document{'s' * (documents != 1)}: {malformed} could not "
            f"be read, {failed} did not come; {_remedy(config.teacher)}"
        )
    spelled = candidates.spelled({c.skill.category for c in proposed}, domain.categories, settings.categories)
    sound: set[str] = set()  # scripts
    while True:
        chosen, settled = candidates.settle(proposed, settings.min_score, spelled)
        if not chosen:
            raise Failure(_none_kept(settled, settings.min_score))
        new = [skill for skill in chosen if skill.script and skill.script not in sound]
        admission = admit(new, config.sandbox, settings.self_test)
        if not admission.refused:
            break
        for id, why in admission.refused.items():
            say(f"{id} is refused: {why}")
        sound |= {skill.script for skill in admission.skills if skill.script}
        proposed = candidates.refuse(proposed, settled, admission.refused)
    if admission.untried:
        say(f"no script was tried: {admission.untried}")
    skills, into = candidates.placed(chosen, domain.categories, settings.categories, settings.min_category)
    for category, other in into.items():
        say(f"skills of the category {category} go to {other}")
    refused = sum(c.cause == "script" for c in settled)
    return Built(extraction.SkillLibrary(skills), settled, refused, into, malformed, failed, admission.untried)


def _none_kept(settled: Sequence[candidates.Candidate], min_score: float) -> str:
    """Why a library would be empty, and what to do about it."""
    told = f"acquire: none of {len(settled)} candidate skills"
    by = Counter(c.cause for c in settled)
    first = {cause: next((c for c in settled if c.cause == cause), None) for cause in ("script", "no score")}
    if one := first["script"]:
        return f"{told} is kept: the scripts of {by['script']} are refused, of {one.skill.id} because: {one.reason}"
    if (one := first["no score"]) and not by["low score"]:
        return f"{told} has a score that can be read ({one.reason}); give another teacher, or acquire.scoring=teacher"
    unread = f"of {by['no score']}, no score could be read; " if by["no score"] else ""
    return f"{told} reaches acquire.min_score ({min_score}); {unread}lower it, or give a richer corpus"


def _examples(domain: Domain) -> set[tuple[str, str]]:
    """(id, intent) of the skills that prompts show, which some teachers hand back."""
    prompts = (domain.prompts.questions, domain.prompts.prose)
    return {(skill.id, skill.intent) for prompt in prompts for skill in replies.read(prompt, "the prompt").skills}


def _candidate(saved: dict[str, Any], n: int, skill: Skill, shown: set[tuple[str, str]]) -> candidates.Candidate:
    found = candidates.Candidate(
        skill=skill,
        proposed_score=skill.score,
        path=saved["path"],
        origin=saved["origin"],
        license=saved["license"],
    )
    if (skill.id, skill.intent) in shown:
        return found.rejected("example", "repeats the example of the prompt")
    if "scores" not in saved:
        return found
    reply = saved["scores"][n]
    marks = "no reply came" if reply is None else rubric.read(reply)
    if isinstance(marks, str):
        return found.rejected("no score", marks)
    scored = skill.model_copy(update={"score": rubric.score(marks)})
    return found.model_copy(update={"skill": scored, "marks": marks})


def _saved(run: RunDir, documents: int) -> Iterator[dict[str, Any]]:
    """What is on disk of each document: the last of its tries."""
    last = _last_tries(run)
    for step in sorted(set(last.values())):
        for saved in _step(step):
            if last[saved["document"]] == step and saved["document"] < documents:
                yield saved


def _last_tries(run: RunDir) -> dict[int, Path]:
    """Document -> the step of its last try."""
    return {saved["document"]: step for step in run.steps("acquire") for saved in _step(step)}


def _step(folder: Path) -> Iterator[dict[str, Any]]:
    with verified(folder / REPLIES).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


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
