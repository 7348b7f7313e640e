"""Tasks: what the curriculum asks of the proposer, or which seed problem is rewritten, with ids and seeds that depend
on nothing but the config.

Invariant: task n of step s of a stage is the same task on every run, given the curriculum's state, so a stage that is
interrupted and run again does the same work under the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.flow.context import Context
from pipeline.records import Task
from pipeline.scoring.seeds import Seed
from pipeline.skills.curriculum import Curriculum
from pipeline.skills.extraction import SkillLibrary


def make_curriculum(context: Context, skills: Path | None = None) -> Curriculum:
    """Over a skill library, the run's own if none is given; what the domain holds out is never offered."""
    library = SkillLibrary.load(skills or context.run.path("skills"))
    curriculum = Curriculum(list(library), context.config.mgpo.curriculum, excluded=context.domain.is_heldout)
    if curriculum.too_small:
        fewest = f"fewer skills than mgpo.curriculum.min_skills ({context.config.mgpo.curriculum.min_skills})"
        context.progress.say("curriculum", f"never offered, {fewest}: {', '.join(curriculum.too_small)}")
    if curriculum.held_out:
        context.progress.say("curriculum", f"never offered, all held out: {', '.join(curriculum.held_out)}")
    return curriculum


def make_heldout(context: Context) -> Curriculum:
    """Over the held-out skill combinations alone, to measure with."""
    library, domain = SkillLibrary.load(context.run.path("skills")), context.domain
    return Curriculum(list(library), context.config.mgpo.curriculum, excluded=lambda ids: not domain.is_heldout(ids))


def make_tasks(context: Context, curriculum: Curriculum, stage: str, step: int, groups: int, size: int) -> list[Task]:
    """`groups` skill prompts of `size` tasks each; the tasks of a group differ in seed only."""
    tasks = []
    for g in range(groups):
        group = f"{stage}-{step:06d}-{g:04d}"
        category, skills = curriculum.sample(context.rng(group))
        if not context.config.episode.show_skills:
            skills = ()
        for i in range(size):
            name = f"{group}-{i:02d}"
            tasks.append(Task(id=name, group_id=group, category=category, skills=skills, seed=context.seed(name)))
    return tasks


def make_seed_tasks(context: Context, seeds: Mapping[str, Seed], stage: str, step: int, size: int) -> list[Task]:
    """`size` tasks, one a seed problem: over the steps seeds come in shuffled epochs, each once an epoch."""
    groups, tasks = list(seeds), []
    for g in range(size):
        epoch, place = divmod((step - 1) * size + g, len(groups))
        group = context.rng(stage, "seeds", epoch).sample(groups, len(groups))[place]
        name = f"{stage}-{step:06d}-{g:04d}-00"
        seed = context.seed(name)
        tasks.append(Task(id=name, group_id=group, category=seeds[group].category, skills=(), seed=seed))
    return tasks
