"""Seed problems, which others are written from (`synthesize.rewrite`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.domains.base import Domain
from pipeline.records import Failure, Problem
from pipeline.scoring import problems


@dataclass(frozen=True)
class Seed:
    problem: Problem
    category: str
    """"" where the file says none."""


def read(config: Config, domain: Domain) -> Mapping[str, Seed]:
    """By the `group_id` of the tasks that are made of them, in the file's order, each question once. Raises Failure
    where the file holds none that can be rewritten."""
    asked = config.synthesize.rewrite
    assert asked is not None, "asked for where it is configured"
    path = domain.resolve(asked.seeds)
    found: dict[str, Seed] = {}
    for row in problems.read(path, seed=config.seed):
        problem = problems.of_row(row)
        if problem.answer_kind != "code":
            found[f"seed-{problem.id}"] = Seed(problem, row.get("category", ""))
    if not found:
        raise Failure(
            f"synthesize.rewrite.seeds {path}: every answer is a program, whose tests no rewriting carries over; "
            "expected answers of another kind"
        )
    return found
