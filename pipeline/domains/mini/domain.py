"""The mini world as data: every opening, step and question of LANGUAGE.md.

Invariant: a `Rule` is the only place that knows a sentence's wording, type and value. Conditions on numbers are raised
as `Contradiction` by the rule's own `value`.
"""

from __future__ import annotations

from pipeline.domains.mini.rules.base import Rule
from pipeline.domains.mini.rules.code import CODE
from pipeline.domains.mini.rules.maths import MATHS
from pipeline.domains.mini.rules.science import SCIENCE

CATEGORIES = ("maths", "code", "science")
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Ida", "Max", "Zoe", "Sam", "Lea", "Jon")
THINGS = ("stones", "coins", "apples", "cards", "books", "shells", "stamps", "pens", "cups", "nuts", "beads", "keys")

RULES: tuple[Rule, ...] = (*MATHS, *CODE, *SCIENCE)

BY_ID = {rule.id: rule for rule in RULES}
SKILLS = tuple(rule for rule in RULES if rule.skill)
SKILL_IDS = tuple(rule.id for rule in SKILLS)


def skills_in(category: str) -> tuple[str, ...]:
    return tuple(rule.id for rule in SKILLS if rule.category == category)
