"""Skill acquisition (PAPER, stage 1): a teacher reads the corpus and proposes skills, a call of its own scores each;
those that score high, and whose scripts pass their self-test, are kept. With `acquire.proposer` a model that has
learned to extract proposes, and the teacher only scores.

A step is a wave of documents, whatever came of them, in their order; steps beyond the last document are second tries at
those whose teacher gave no answer. Each is on disk before the next wave is read, so a teacher is asked once for a
document of which every call was answered, a document that brings nothing costs itself only, and what is in memory while
teachers are asked does not grow with the corpus. Where the endpoint is not there, the stage ends, and goes on from that
wave when it is started again, if the corpus is still the one that it was.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from types import MappingProxyType
from typing import Any

from actors import teacher as teachers
from actors.teacher import EndpointPolicy, PoolTeacher, Teacher, pick
from pipeline.config import Config, ScriptedTeacherConfig, TeacherConfig
from pipeline.domains.base import Domain
from pipeline.domains.teachers import make_teacher
from pipeline.flow.context import Context
from pipeline.records import Failure, Skill
from pipeline.skills import asked, candidates, corpus, extraction, replies, rubric
from pipeline.skills.admission import admit
from pipeline.skills.curriculum import never_offered
from pipeline.skills.selection import select
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
    documents = corpus.of(config, context.domain.resolve)
    asked_of = asked.sources(context.run)
    total = _counted(context.run, documents, asked_of)
    for reason, n in documents.left_out.items():
        named = documents.named[reason][:_NAMED]
        more = ", …" if n > len(named) else ""
        context.progress.say("acquire", f"{n} left out, {reason}: {', '.join(named)}{more}")
    asks = await _asks(context)
    done = len(asked_of)
    shards = count(len(context.run.steps("acquire")) + 1)
    with context.progress.stage("acquire", total, "document", min(done, total)) as progress:
        ahead = islice(enumerate(documents), done, None)
        for wave in iter(lambda: list(islice(ahead, _WAVE)), []):
            answers = await _ask(context, asks, wave)
            gone = _gone(context, total, answers)
            if gone is None or any("reply" in answer for answer in answers):
                _write(context, next(shards), answers)
            if gone is not None:
                raise gone
            progress.advance(len(wave))
        if before := {saved["document"]: saved for saved in asked.saved(context.run, total) if "failure" in saved}:
            again = (one for one in enumerate(documents) if one[0] in before)
            for wave in iter(lambda: list(islice(again, _WAVE)), []):
                _write(context, next(shards), await _ask(context, asks, wave, before))
        await context.cluster.stop("extractor")
        say = partial(context.progress.say, "acquire")
        made = await asyncio.to_thread(build, context.run, context.domain, context.config, total, say)
    kept, counts = made.library, Counter(c.cause or c.outcome for c in made.candidates)
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
        "duplicates": counts["merged"],
        "kept": len(kept),
        "kept_per_document": round((counts["kept"] + counts["merged"]) / total, 4),
        "by_teacher": _by_teacher(context.run, total, made.candidates),
        "scripts": sum(skill.script is not None for skill in kept),
        "refused": counts["script"],
        "version": kept.version,
        "skills": dict(sorted(Counter(s.category for s in kept).items())),
        "unnamed_categories": sorted({s.category for s in kept} - set(context.domain.categories)),
        "merged_categories": made.categories,
        "never_offered": never_offered(list(kept), context.config.mgpo.curriculum, context.domain.is_heldout),
    }


@dataclass(frozen=True)
class _Asks:
    """Who is asked, by what a document's seed is."""

    proposes: Teacher
    scores: Teacher
    called: Callable[[int], str]
    """What the one that proposes is called."""
    learned: bool
    """It has learned to extract, and is asked with fewer words."""


def _counted(run: RunDir, documents: Iterable[extraction.Document], asked_of: Mapping[int, str]) -> int:
    """How many documents there are. Raises Failure where one is not that of its number any more, which was asked about
    in an earlier try: replies belong to numbers, so others would never be asked about."""
    total = 0
    for number, document in enumerate(documents):
        if (was := asked_of.get(number, document.source)) != document.source:
            raise _changed(run, f"document {number + 1} is {document.source} now, and was {was}")
        total += 1
    if asked_of and total <= max(asked_of):
        raise _changed(run, f"holds {total} documents, and held {max(asked_of) + 1}")
    return total


def _changed(run: RunDir, what: str) -> Failure:
    again = f"propose redo acquire {shlex.quote(str(run.root))}"
    return Failure(
        f"acquire.corpus: {what} when the teacher was asked; give it back as it was (more may follow after the last), "
        f"or `{again}` asks anew about all"
    )


async def _asks(context: Context) -> _Asks:
    config = context.config.acquire
    taught = list(context.config.teacher.each().values())
    teacher: Teacher | None = None
    if config.proposer is None or config.scoring == "rubric":
        teacher = make_teacher(context.config.teacher, context.domain, await context.cluster.teaching_models())
    model = config.proposer
    if model is None:
        assert teacher is not None
        weights, names = [weight for weight, _ in taught], [section.called for _, section in taught]
        return _Asks(teacher, teacher, lambda seed: names[pick(weights, seed)], learned=False)
    if model.endpoint is not None:
        proposer: Teacher = EndpointPolicy(model.endpoint, config.sampling)
    else:
        pool = await context.cluster.extractor(model)
        proposer = PoolTeacher(pool, "extractor", config.sampling, config.timeout_s)
    return _Asks(proposer, teacher or proposer, lambda _: model.path, learned=True)


def _by_teacher(run: RunDir, documents: int, settled: Sequence[candidates.Candidate]) -> dict[str, dict[str, int]]:
    """Who proposed -> documents that were answered, and proposals that are skills of the library."""
    answered = Counter(saved.get("teacher", "") for saved in asked.saved(run, documents) if "reply" in saved)
    kept = Counter(c.teacher for c in settled if c.of is not None)
    return {name: {"documents": n, "kept": kept[name]} for name, n in sorted(answered.items())}


def _remedy(teacher: TeacherConfig, learned: bool = False) -> str:
    """What to do about a corpus that the teacher, or who has learned from one, finds no skill in."""
    if learned:
        return "teach acquire.proposer more of it (sft.extraction, more documents), or give a richer corpus"
    if isinstance(teacher, ScriptedTeacherConfig):
        return "the scripted teacher knows its domain's bundled corpus alone; for another, a model: teacher.kind=openai"
    return "give another teacher, or a richer corpus"


async def _ask(
    context: Context,
    asks: _Asks,
    documents: Sequence[tuple[int, extraction.Document]],
    before: Mapping[int, asked.Saved] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Ask for some documents side by side: of each what came back, and what did not and why. `before`: what there is
    of a document from an earlier try, which is not asked for again."""

    async def one(numbered: tuple[int, extraction.Document]) -> dict[str, Any]:
        number, document = numbered
        about: dict[str, Any] = {
            "document": number,
            "source": document.source,
            "path": document.path,
            "origin": document.origin,
            "license": document.license,
            "teacher": asks.called(context.seed("acquire", number)),
        }
        had = before.get(number, {})
        came = {name: had[name] for name in ("reply", "faults", "repair", "unrepaired", "scores") if name in had}
        try:
            await _reply(context, asks, number, document, came)
        except Failure as e:
            came |= {"failure": str(e), "kind": e.kind}
        if "reply" in came:
            came |= {"text": document.text, "asked_as": document.kind}
        return about | came

    return await map_bounded(one, documents, _WAVE)


def _gone(context: Context, total: int, answers: Sequence[dict[str, Any]]) -> Failure | None:
    """A whole wave that the endpoint did not answer says something about the endpoint, a single document may be what it
    does not take."""
    kinds = {a.get("kind") for a in answers}
    if not kinds <= {"infra_error", "data_error"}:
        return None
    never = all("reply" not in saved for saved in asked.saved(context.run, total))
    if never or (kinds == {"infra_error"} and len(answers) > 1):
        to_its_end = " to the end" if any("reply" in answer for answer in answers) else ""
        none = f"the teacher answered{to_its_end} for none of {len(answers)} documents"
        return Failure(
            f"acquire: {none}: {answers[0]['failure']}", "infra_error" if "infra_error" in kinds else "data_error"
        )
    return None


def _write(context: Context, number: int, answers: Sequence[dict[str, Any]]) -> None:
    for saved in answers:
        if "failure" in saved:
            lacks = "no score for each skill" if "reply" in saved else "no reply"
            context.progress.say("acquire", f"{saved['source']}: {lacks}: {saved['failure']}")
    with context.run.new_step("acquire", number) as folder:
        (folder / asked.REPLIES).write_text("".join(json.dumps(saved) + "\n" for saved in answers))


async def _reply(
    context: Context, asks: _Asks, number: int, document: extraction.Document, came: dict[str, Any]
) -> None:
    """Add to `came` what it lacks: the reply, its repair where something of it cannot be read, and what the rubric's
    calls gave each skill. Raises Failure if no reply came, or the endpoint went away; what had come by then stays."""
    teacher = teachers.of(asks.proposes, context.seed("acquire", number))
    template = context.domain.prompts.extraction(document.kind, asks.learned)
    messages = extraction.acquisition_messages(document, template, context.domain.categories)
    for again in range(_TRIES if "reply" not in came else 0):
        seed = context.seed("acquire", number, *([again] if again else []))
        try:
            came["reply"] = await teacher.complete(messages, seed=seed)
        except Failure as e:
            if e.kind != "model_error" or again + 1 == _TRIES:
                raise
        else:
            break
    faults = replies.read(came["reply"], document.source).faults
    if faults and not {"repair", "unrepaired"} & came.keys():
        came["faults"] = list(faults)
        try:
            came["repair"] = await teacher.complete(
                extraction.repair_messages(messages, came["reply"], faults),
                seed=context.seed("acquire", number, "repair"),
            )
        except Failure as e:
            came["unrepaired"] = str(e)
    if context.config.acquire.scoring == "rubric":
        scores = came.setdefault("scores", {})
        for n, skill in enumerate(asked.read(came | {"source": document.source}).skills):
            if (key := asked.key(skill)) not in scores and (skill.id, skill.intent) not in context.domain.shown:
                scores[key] = await _score(context, asks.scores, number, n, skill, document)


async def _score(
    context: Context, teacher: Teacher, number: int, n: int, skill: Skill, document: extraction.Document
) -> str | None:
    """The reply that holds a candidate against the rubric; None if none came. Raises Failure where the endpoint is not
    there."""
    messages = rubric.messages(context.domain.prompts.rubric, extraction.render(skill), document.text)
    teacher = teachers.of(teacher, context.seed("acquire", number, "score", n))

    async def reply(messages: list[dict[str, str]], *again: str) -> str | None:
        try:
            return await teacher.complete(messages, seed=context.seed("acquire", number, "score", n, *again))
        except Failure as e:
            if e.kind == "infra_error":
                raise
            return None

    first = await reply(messages)
    if first is None:
        return await reply(messages, "again")
    if isinstance(fault := rubric.read(first), str):
        return await reply(rubric.again(messages, first, fault), "again") or first
    return first


# ---------------------------------------------------------------- what is made of the replies


@dataclass(frozen=True)
class Built:
    """What is made of the replies on disk."""

    library: extraction.SkillLibrary
    candidates: Sequence[candidates.Candidate]
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
) -> tuple[Sequence[candidates.Candidate], int, int]:
    """(candidates of the replies on disk, replies that could not be read as a whole, documents without one)."""
    proposed = candidates.Shelf(run.root)
    malformed, failed = 0, documents
    for saved in asked.saved(run, documents):
        if "reply" not in saved:
            continue
        failed -= 1
        read = asked.read(saved)
        for skill in read.skills:
            proposed.put(_candidate(saved, skill, domain.shown))
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
            f"be read, {failed} did not come; {_remedy(config.teacher, learned=settings.proposer is not None)}"
        )
    spelled = candidates.spelled({c.skill.category for c in proposed}, domain.categories, settings.categories)
    trial = partial(admit, settings=config.sandbox, self_test=settings.self_test)
    chosen, settled, untried = select(proposed, settings.min_score, spelled, trial, say)
    if not chosen:
        raise Failure(_none_kept(settled, settings.min_score))
    if untried:
        say(f"no script was tried: {untried}")
    least = settings.min_category or config.mgpo.curriculum.min_skills
    skills, into = candidates.placed(chosen, domain.categories, settings.categories, least)
    for category, other in into.items():
        say(f"skills of the category {category} go to {other}")
    return Built(extraction.SkillLibrary(skills), settled, into, malformed, failed, untried)


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


def _candidate(saved: asked.Saved, skill: Skill, shown: Collection[tuple[str, str]]) -> candidates.Candidate:
    found = candidates.Candidate(
        skill=skill,
        proposed_score=skill.score,
        path=saved["path"],
        origin=saved["origin"],
        license=saved["license"],
        teacher=saved.get("teacher", ""),
    )
    if (skill.id, skill.intent) in shown:
        return found.rejected("example", "repeats the example of the prompt")
    if "scores" not in saved:
        return found
    reply = saved["scores"].get(asked.key(skill))
    marks = "no reply came" if reply is None else rubric.read(reply)
    if isinstance(marks, str):
        return found.rejected("no score", marks)
    scored = skill.model_copy(update={"score": rubric.score(marks)})
    return found.model_copy(update={"skill": scored, "marks": marks})
