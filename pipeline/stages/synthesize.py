"""Synthesis: a proposer writes until the data set has its size. In a run it is the one that MGPO trained, alone it is
any checkpoint or endpoint (`synthesize.proposer`), over any skill library (`synthesize.skills`). For a baseline
problems are written from seed problems instead (`synthesize.rewrite`), and taken unchecked (`synthesize.filter: none`).

Work goes in steps of `in_flight` tasks, each one atomic, with no wait between them (flow/window.py), under the
curriculum as MGPO left it, if it did. The data set is the first `target` accepted, distinct and solved problems in the
order of the tasks (scoring/selection.py), so an interrupted run ends with the same data set and counts nothing twice.
`problems.jsonl` is what a solver gets; where each problem came from stands beside it, and in `unsolved.jsonl` the valid
ones that no prober solves above chance; all files of the folder: pipeline/dataset/folder.py. What was accepted before
the stage ended early (`max_episodes`, a budget, a failure, an interrupt) is exported too; tokens, hours and dollars are
targets as well, and it ends well with them. An interrupt leaves `_INTERRUPTED_S` for that; where the steps take longer
to read, and after a kill, `propose dataset export` reads them.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline import domains
from pipeline.config import Config, ModelConfig
from pipeline.dataset import folder, origin, references
from pipeline.dataset.matching import Foreign
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, register_of, state_of
from pipeline.flow.stream import Stream
from pipeline.flow.synthesis import Spent, Synthesis, Tasks, ended_by
from pipeline.flow.tasks import make_curriculum, make_seed_tasks, make_tasks
from pipeline.records import GONE, Failure, Halt, Probe, Problem
from pipeline.scoring import seeds
from pipeline.scoring.identity import diversity
from pipeline.scoring.judged import Judged
from pipeline.scoring.quality import UNUSED
from pipeline.scoring.selection import Selection, unused
from pipeline.scoring.shares import shares_of
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import pruned, summarize
from pipeline.skills import probing
from pipeline.store import accounts
from pipeline.store.digests import MANIFEST
from pipeline.store.identity import identity_of
from pipeline.store.ledger import close_begun
from pipeline.store.manifest import digest_once
from pipeline.store.rundir import RunDir
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import watching

_INTERRUPTED_S = 3.0
"""Less than a process has after an interrupt (commands/driver.py): what is read is written then."""
_PROBED = (
    *("prober", "samples", "correct", "k", "interval", "weaker_probers", "pass_at_k", "pass_rate"),
    *("pass_rate_interval", "chance", "solution"),
)
"""Of a row of provenance, what probers have found."""


async def run(context: Context) -> dict[str, Any]:
    source = _rewriting(context) if context.config.synthesize.rewrite is not None else _agent(context)
    try:
        await _fill(context, source)
    except (_Enough, Halt) as e:
        raise Failure(f"synthesize: {e}; {_so_far(context)}") from None
    except (Failure, asyncio.CancelledError) as e:
        if e.args != (GONE,) and context.run.steps("synthesize"):  # else the stage begins again at once
            seconds = _INTERRUPTED_S if isinstance(e, asyncio.CancelledError) else None
            context.progress.say("synthesize", _so_far(context, seconds))
        raise
    return export(context.run, context.config)


def _so_far(context: Context, seconds: float | None = None) -> str:
    """Export what was accepted before the stage ended early, if the steps are read within so many seconds; says where
    it is, or why it is not there, beside the error that ended the stage."""
    run = context.run
    try:
        run.check_lock()
        accepted = export(run, context.config, None if seconds is None else time.monotonic() + seconds)["accepted"]
    except Failure as e:
        line = f"`propose dataset export {shlex.quote(str(run.root))} --out FOLDER` reads them"
        return f"the problems accepted so far are in the steps alone: {e}; {line}"
    return f"the {accepted} problems accepted so far are in {context.run.path('dataset', 'problems.jsonl')}"


class _Enough(Exception):
    """As many episodes as may be played."""


def writer_of(run: RunDir, config: Config) -> ModelConfig | None:
    """Who writes, if it is not MGPO's policy. Raises Failure where there is neither."""
    if config.synthesize.proposer is not None:
        return config.synthesize.proposer
    if config.proposer.endpoint is not None:
        return config.proposer
    if run.result("mgpo") is None:
        raise Failure(
            f"run directory {run.root}: no trained proposer; run `propose mgpo` first, or name one in "
            "synthesize.proposer: {path: a checkpoint} or {endpoint: {base_url: …, model: …}}"
        )
    return None


def skills_of(run: RunDir, config: Config) -> Path:
    """The skill library that is offered. Raises Failure where there is none."""
    given = config.synthesize.skills
    if given is not None:
        return domains.of(config.domain).resolve(given)
    if not run.path("skills").is_dir():
        raise Failure(
            f"run directory {run.root}: no skill library; run `propose acquire` first, or name one in synthesize.skills"
        )
    return run.path("skills")


@dataclass(frozen=True)
class _Source:
    """Who writes, of what tasks."""

    config: Config
    """The run's, with whoever writes as its proposer."""
    tasks: Tasks
    categories: Collection[str]
    prober: str
    """The first that is asked."""
    playing: Callable[[], Awaitable[Any]]
    """Starts the pool that plays the tasks."""
    played_by: tuple[Any, ...] = ()
    """Sections of whoever plays, if it is no policy."""


def _agent(context: Context) -> _Source:
    """The proposer, over skills."""
    run, cluster = context.run, context.cluster
    writer, skills = writer_of(run, context.config), skills_of(run, context.config)
    config = context.config if writer is None else context.config.model_copy(update={"proposer": writer})
    curriculum, ladder = make_curriculum(context, skills), probing.Ladder()
    if trained := run.steps("mgpo"):
        state = state_of(trained[-1])
        if writer is None:  # others are probed from the weakest on
            ladder = probing.Ladder.model_validate(state["ladder"])
        if context.config.synthesize.skills is None:
            curriculum.restore(state["curriculum"])

    def playing() -> Awaitable[Any]:
        return cluster.writer(writer) if writer else cluster.proposer(Path(context.result_of("mgpo")["checkpoint"]))

    size = config.synthesize.in_flight
    tasks = partial(make_tasks, context, curriculum, "synthesize", groups=size, size=1)
    return _Source(config, tasks, curriculum.proficiency, probing.prober(ladder, config.prober), playing)


def _rewriting(context: Context) -> _Source:
    """The teacher, over seed problems; probed from the weakest prober on."""
    config, size = context.config, context.config.synthesize.in_flight
    found = seeds.read(config, context.domain)

    return _Source(
        config,
        partial(make_seed_tasks, context, found, "synthesize", size=size),
        {seed.category for seed in found.values()},
        probing.prober(probing.Ladder(), config.prober),
        context.cluster.seed_writer,
        tuple(section for _, section in config.teacher.each().values()),
    )


async def _fill(context: Context, source: _Source) -> None:
    config, target = source.config, source.config.synthesize.target
    if unknown := sorted(config.synthesize.categories.keys() - set(source.categories)):
        raise Failure(
            f"synthesize.categories.{unknown[0]}: no skill or seed that is written from is of it; expected of "
            f"{', '.join(sorted(source.categories))}"
        )

    done = context.run.steps("synthesize")
    context.metrics.log("synthesize-ledger", len(done), accounts.check(context.run, "synthesize"))
    await asyncio.to_thread(_foreign, config.synthesize.avoid or ())  # it may be downloaded
    selection, _ = _read(context.run, context.config)
    if ended_by(config.synthesize, selection, Spent.of(context.run)):
        close_begun(context.run, "synthesize")
        return
    cluster = context.cluster
    proposer, committee, pool = await asyncio.gather(source.playing(), cluster.committee(), cluster.prober())
    isolation = await context.cluster.sandbox_stats()
    assert isolation is not None  # the committee has it
    stream = Stream(config, proposer, committee, pool, context.cluster.buffer(), played_by=source.played_by)
    with context.progress.stage("synthesize", target, "problem", len(selection.chosen)) as progress:
        async with (
            watching("synthesize", config.watchdog_s) as watchdog,
            showing(context.metrics, "synthesize-now", lambda: stream.now() | watchdog.now()),
        ):
            watchdog.queues = stream.queues
            level = isolation["level"]
            writing = Synthesis(context, stream, source.tasks, source.prober, selection, level, watchdog, progress)
            await writing.run()
    await stream.clear()
    close_begun(context.run, "synthesize")
    steps = len(context.run.steps("synthesize"))
    context.metrics.log("synthesize-ledger", steps, accounts.check(context.run, "synthesize"))
    if not ended_by(config.synthesize, selection, writing.spent):
        raise _Enough(
            f"{len(selection.chosen)} of {target} problems after synthesize.max_episodes "
            f"({config.synthesize.max_episodes}; {_left_out(selection)} left out), raise it, or train the proposer "
            "further"
        )


@cache
def _foreign(places: tuple[str, ...]) -> Foreign:
    others: dict[str, list[str]] = {}
    for place in places:  # two may have one name
        others.setdefault(references.called(place), []).extend(references.questions(place))
    return Foreign(others)


def accepted(run: RunDir, config: Config) -> list[Problem]:
    """The problems that a data set of the steps on disk has: of a run that was killed before it wrote any."""
    selection, _ = _read(run, config)
    return _problems(selection.chosen[: config.synthesize.target])


def _problems(judged: list[Judged]) -> list[Problem]:
    return [j.problem for j in judged if j.problem]


def _read(run: RunDir, config: Config, until: float | None = None) -> tuple[Selection, list[tuple[Judged, str]]]:
    """Everything on disk, in the order of the tasks, each with the level of the sandbox that it was judged with, and
    what is chosen of it; what the stages before have written is new to nobody. Raises Failure for what is not read by
    `until` (`time.monotonic`)."""
    wanted = config.synthesize
    selection = Selection(
        domains.of(config.domain),
        register_of(run, config, ("sft", "mgpo")),
        _foreign(wanted.avoid or ()),
        shares=shares_of(wanted),
        unfiltered=wanted.filter == "none",
        never_solved=wanted.never_solved == "keep",
        always_solved=wanted.always_solved == "keep",
    )
    played: list[tuple[Judged, str]] = []
    for step in run.steps("synthesize"):
        if until is not None and time.monotonic() > until:
            raise Failure("there is no time to read them all")
        judged, level = list(judged_in(step)), state_of(step)["sandbox_level"]
        selection.take(judged)
        played += [(j, level) for j in judged]
    return selection, played


def export(run: RunDir, config: Config, until: float | None = None) -> dict[str, Any]:
    """Write the data set of the steps on disk, and the manifest that names what it was made from; returns the stage's
    result. Raises Failure where the steps are not read by `until`."""
    selection, played = _read(run, config, until)
    levels = {j.key: level for j, level in played}
    chosen = selection.chosen[: config.synthesize.target]
    marked = {UNUSED.name: n} if (n := sum(unused(j) for j in chosen)) else {}
    identities = [selection.seen.identify(j.problem.question) for j in chosen if j.problem]
    models, prompts = origin.models(config), origin.prompts_digest(run)
    origins = [
        {
            **_provenance(j, levels[j.key], identity.skeleton),
            "proposer": models["proposer"],
            "prompts": prompts,
            **_rewritten(config, j),
        }
        for j, identity in zip(chosen, identities, strict=True)
    ]
    counts: dict[str, dict[str, int]] = {
        "Gates": {
            "episodes": len(played), "accepted by the committee": sum(j.accepted for j, _ in played),
            **({"rows that it accepted": sum(j.accepted for j in chosen)} if selection.unfiltered else {}),
            **{f"left out: {name}": n for name, n in sorted(selection.left_out.items())},
            "left out: solved by no prober above chance": len(selection.unsolved),
            "left out: beyond the target": len(selection.chosen) - len(chosen), "in the data set": len(chosen),
            **{f"of them marked: {name}": n for name, n in marked.items()},
        },
        "Categories": dict(sorted(Counter(j.episode.task.category for j in chosen).items())),
        "Kinds of answers": dict(sorted(Counter(str(j.problem.answer_kind) for j in chosen if j.problem).items())),
        "Difficulty (Pass@k of the prober)": _histogram([j.probe.pass_at_k for j in chosen if j.probe]),
    }  # fmt: skip
    folder.publish(
        run.path("dataset"), _problems(chosen), _problems(selection.unsolved), origins,
        origin.about(config, len(chosen), counts, models, prompts),
        run=identity_of(config), made_from=_made_from(run),
    )  # fmt: skip
    facts, spent = summarize([j for j, _ in played]), Spent.of(run)
    varied = diversity(identities)
    return {
        "accepted": len(chosen),
        "ended_by": ended_by(config.synthesize, selection, spent),
        "tokens": selection.tokens,
        "tokens_per_problem": selection.tokens / len(chosen) if chosen else None,
        "seconds_per_problem": spent.seconds / len(chosen) if chosen else None,
        "usd_per_problem": spent.usd / len(chosen) if chosen and spent.usd else None,
        "unsolved": len(selection.unsolved),
        "left_out": dict(sorted(selection.left_out.items())),
        "marked": marked,
        "examples": selection.examples,
        "guessable": sum(j.probe.chance >= 0.5 for j in chosen if j.probe),
        **{name: varied[name] for name in ("skeletons", "skeleton_entropy", "skeleton_top_share")},
        "episodes": len(played),
        "validity": facts["accepted_rate"],
        "prune_rate": facts["prune_rate"],
        "mean_pass_at_k": mean([j.probe.pass_at_k for j in chosen if j.probe]),
        "mean_pass_rate": mean([j.probe.rate for j in chosen if j.probe]),
        "mean_difficulty": mean([1 - j.probe.pass_at_k for j in chosen if j.probe]),
        "by_category": dict(sorted(Counter(j.episode.task.category for j in chosen).items())),
    }


def _histogram(shares: list[float]) -> dict[str, int]:
    """Problems by Pass@k, in fifths; 0 and 1 apart."""
    bands = {"0": 0, "up to 0.2": 0, "up to 0.4": 0, "up to 0.6": 0, "up to 0.8": 0, "below 1": 0, "1": 0}
    names = list(bands)
    for share in shares:
        bands[names[0] if share <= 0 else names[-1] if share >= 1 else names[1 + min(int(share * 5 - 1e-9), 4)]] += 1
    return bands


def _left_out(selection: Selection) -> str:
    counts = {"unsolved": len(selection.unsolved)} | selection.left_out
    return ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "none"


def _made_from(run: RunDir) -> dict[str, str]:
    """Digests of the manifests of what the data set follows from: skills, proposer, steps."""
    made = [run.path("skills", MANIFEST), *(step / MANIFEST for step in run.steps("synthesize"))]
    done = run.result("mgpo")
    if done is not None:
        made += sorted(Path(done["result"]["checkpoint"]).glob("trainer/manifest-*.json"))
    return {_within(run, path): digest_once(path)[1] for path in made if path.is_file()}


def _within(run: RunDir, path: Path) -> str:
    return path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path)


def _rewritten(config: Config, j: Judged) -> dict[str, Any]:
    """Of a problem that was written from another one."""
    asked = config.synthesize.rewrite
    if asked is None:
        return {}
    operations = asked.load()(asked, {}).plan(j.episode.task.seed)
    return {"seed": j.episode.task.group_id.removeprefix("seed-"), "operations": [asked.kind, *operations]}


def _provenance(j: Judged, sandbox_level: str, skeleton: str) -> dict[str, Any]:
    """Where a row comes from; what a problem that nobody accepted has no figures of is null."""
    assert j.episode.submitted is not None and j.verdict is not None
    return {
        "id": j.episode.submitted.id,
        "category": j.episode.task.category,
        "answer_kind": j.episode.submitted.answer_kind,
        "skills": [s.id for s in j.episode.task.skills],
        "active": list(j.episode.active),
        "used": list(j.used),
        "skeleton": skeleton,
        "episode_id": j.episode.id,
        "policy_versions": list(j.episode.policy_versions),
        "decision": j.verdict.decision,
        **_probed(j.probe),
        "votes": [v.model_dump(mode="json") for v in j.verdict.votes],
        "pruned": pruned(j.episode),
        "turns": len(j.episode.turns),
        "sandbox_level": sandbox_level,
    }


def _probed(probe: Probe | None) -> dict[str, Any]:
    """What the probers found; null where nobody asked them."""
    if probe is None:
        return dict.fromkeys(_PROBED)
    values = (
        probe.prober, probe.n, probe.correct, probe.k, [probe.low, probe.high],
        [attempts.prober for attempts in probe.weaker], probe.pass_at_k, probe.rate,
        [probe.rate_low, probe.rate_high], probe.chance, probe.solution,
    )  # fmt: skip
    return dict(zip(_PROBED, values, strict=True))
