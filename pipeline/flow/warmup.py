"""SFT of the solver on worked solutions, before GRPO begins (`solve.warmup`).

    problems ──► their solutions ──► solutions/warmup.parquet ──► trainer ──► checkpoints/solve.warmup

Invariant: a solution is by somebody who saw the question alone, or stands in a file of the user's; it ends in the
problem's answer, in a box where an answer is no program; none is of a dev problem. What is learned follows from the
files and the config, so a warm-up that was interrupted goes on from its last checkpoint; one that is done
(`stages/solve.warmup.json`) is not done again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from actors.answers import compare
from actors.answers.code import called
from actors.answers.replies import extract_boxed, extract_program
from actors.calls import within
from actors.chat import solver_messages, system_prompt
from actors.chat_templates import chat_format
from pipeline.config import WarmupConfig
from pipeline.flow import trajectories
from pipeline.flow.context import Context
from pipeline.flow.training import spec_for, train_with_progress
from pipeline.pools.loaders import DatasetLoader
from pipeline.records import Failure, Problem, Rollout
from pipeline.scoring import problems
from pipeline.store import metrics
from pipeline.store.manifest import verified
from pipeline.store.rundir import RunDir

NAME = "solve.warmup"
_LOGGED = "solve-warmup"
NO_SOLUTION, ANOTHER, TOO_LONG = "no solution", "comes to another answer", "longer than solve.sampling.max_tokens"


async def warmed(context: Context, base: Path, posed: Sequence[Problem], dev: Sequence[Problem]) -> Path:
    """The model that GRPO begins with: `base`, or where a warm-up is asked for `base` after it. `posed` are the
    problems that GRPO learns from. Raises Failure where none has a solution that can be learned from."""
    asked = context.config.solve.warmup
    if asked is None:
        return base
    if context.run.result(NAME) is None:
        began = time.monotonic()
        context.run.finish(NAME, await _train(context, asked, base, posed, dev), time.monotonic() - began)
    return begun_with(context.run, base)


def begun_with(run: RunDir, base: Path) -> Path:
    """The model that GRPO of this run began with, where `base` is that of the config."""
    done = run.result(NAME)
    return base if done is None else Path(done["result"]["checkpoint"])


def told(run: RunDir) -> dict[str, Any] | None:
    """What the warm-up came to; None where there was none."""
    done = run.result(NAME)
    return None if done is None else done["result"]


async def _train(
    context: Context, asked: WarmupConfig, base: Path, posed: Sequence[Problem], dev: Sequence[Problem]
) -> dict[str, Any]:
    known: dict[str, str] = {}
    for place in _places(context):
        known |= _known(context, place)
    if asked.data is not None:
        posed = _others(context, asked.data, {problem.id for problem in dev})
    lessons, left_out = _lessons(context, base, posed, known)
    if not lessons:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise Failure(
            f"solve.warmup: none of {len(posed)} problems has a worked solution to learn from ({why}); expected a "
            "column `solution` in the file, or a data set whose provenance has them, as synthesis writes it"
        )
    if left_out:
        context.progress.say(
            "solve", f"warm-up on {len(lessons)} of {len(posed)} problems; left out: {_list(left_out)}"
        )
    file = trajectories.write(context.run, "solve", "warmup", lessons)
    seed = context.seed("solve", "warmup")
    loader = context.cluster.actor(DatasetLoader, [str(file)], asked.batch, asked.epochs, seed)
    total = await within(loader.steps.remote(), "dataset loader", 60)
    spec = spec_for(context, NAME, base, total)
    summary = await train_with_progress(context, _LOGGED, spec, loader, total)
    losses = [row["loss"] for row in metrics.read(context.run)[_LOGGED]]
    return {
        "solutions": len(lessons),
        "left_out": dict(left_out),
        "steps": total,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "checkpoint": str(summary.checkpoint),
    }


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _places(context: Context) -> list[str | None]:
    """Where solutions stand; None: in the run's own data set."""
    solve = context.config.solve
    if solve.warmup is not None and solve.warmup.data is not None:
        return [solve.warmup.data]
    return [source.path for source in solve.mixture] or [solve.data]


def _known(context: Context, place: str | None) -> dict[str, str]:
    """Problem -> solution."""
    if place is not None:
        return problems.solutions(context.domain.resolve(place), context.config.seed)
    lines = verified(context.run.path("dataset", "provenance.jsonl")).read_text(encoding="utf-8").split("\n")
    origins = [json.loads(line) for line in lines if line]
    return {origin["id"]: origin["solution"] for origin in origins if origin.get("solution")}


def _others(context: Context, place: str, but: Collection[str]) -> list[Problem]:
    rows = problems.read(context.domain.resolve(place), seed=context.config.seed)
    return [problem for problem in map(problems.of_row, rows) if problem.id not in but]


def _lessons(
    context: Context, base: Path, posed: Sequence[Problem], known: dict[str, str]
) -> tuple[list[Rollout], Counter[str]]:
    """What is learned, each problem once, and what is not, by why."""
    chat, prompts = chat_format(base), context.domain.prompts.solvers()
    most, left_out = context.config.solve.sampling.max_tokens, Counter[str]()
    found: list[Rollout] = []
    for problem in {problem.id: problem for problem in posed}.values():
        if problem.id not in known:
            left_out[NO_SOLUTION] += 1
        elif (text := taught(problem, known[problem.id])) is None:
            left_out[ANOTHER] += 1
        else:
            told = system_prompt(base, prompts[problem.answer_kind])
            said = {"role": "assistant", "content": text}
            name = f"warmup-{len(found):06d}"
            lesson = trajectories.rollout_of(name, [*solver_messages(problem.question, told), said], chat)
            if sum(lesson.loss_mask) > most:
                left_out[TOO_LONG] += 1
            else:
                found.append(lesson)
    return found, left_out


def taught(problem: Problem, solution: str) -> str | None:
    """A solution as the solver is to write it: with its answer in a box at the end. None where it comes to another
    answer, or holds no program where one is asked for."""
    if problem.answer_kind == "code":
        return solution if extract_program(solution, called(problem.checks)) is not None else None
    boxed = extract_boxed(solution)
    if boxed is None:
        return f"{solution.rstrip()}\n\\boxed{{{problem.answer}}}"
    return None if compare(problem.answer_kind, problem.answer, boxed) == "different" else solution
