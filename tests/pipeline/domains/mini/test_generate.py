"""Problems are sound by a second reading of the language; conflicts and the held-out split by enumeration."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, permutations
from random import Random

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from actors.verifiers.mini import controlled
from pipeline import domains
from pipeline.domains.mini.combinations import feasible, heldout_pairs, is_heldout, largest_feasible, needs
from pipeline.domains.mini.domain import CATEGORIES, SKILL_IDS, skills_in
from pipeline.domains.mini.generate import combinations_of, draft, evaluate, heldout_benchmark, read, write
from pipeline.records import Failure
from tests.mini import MINI
from tests.pipeline.domains.mini.oracle import solve

WORLD = domains.of(MINI.domain)


def conflicts() -> list[tuple[str, str]]:
    """Pairs of skills of one category that no problem can use together."""
    pairs = [pair for category in CATEGORIES for pair in combinations(sorted(skills_in(category)), 2)]
    return [pair for pair in pairs if not feasible(frozenset(pair))]


combos = st.sampled_from([(c, k) for c in CATEGORIES for k in combinations_of(c, False)])


@given(combos, st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=120, deadline=None)
def test_what_is_written_holds_by_another_reading(combo, seed, level, extra):
    category, skills = combo
    text = draft(skills, Random(seed), level, extra)
    answer, used = solve(text.question)
    assert (answer, used) == (text.answer, set(text.skills))
    assert skills <= used and text.category == category
    assert text.working.endswith(f"\\boxed{{{answer}}}")
    assert text.problem.answer_kind == ("choice" if answer in ("even", "odd", "yes", "no") else "math")
    assert draft(skills, Random(seed), level, extra) == text, "the same seed gives the same problem"


@given(combos, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_reading_is_the_inverse_of_writing_and_the_committee_reads_it_too(combo, seed):
    text = draft(combo[1], Random(seed))
    again = read(text.question)
    assert again is not None and again.question == text.question
    assert (again.sentences, again.values, again.kinds) == (text.sentences, text.values, text.kinds)
    reading = controlled.read(text.question)
    assert isinstance(reading, controlled.Reading) and reading.skills() == text.skills


@given(combos, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_every_line_of_the_working_is_true(combo, seed):
    text = draft(combo[1], Random(seed))
    for line in text.working.split("\n")[:-1]:
        left, equals, right = line.rpartition(" = ")
        if equals and not left[0].isalpha() and "[" not in left and "mod" not in left and " km" not in line[:8]:
            numbers = left.split()
            if len(numbers) == 3:
                a, op, b = int(numbers[0]), numbers[1], int(numbers[2])
                value = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b or 1)}[op]
                assert value == int(right.split()[0]), line


@given(combos, st.integers(0, 10**6), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_what_is_written_has_substance_and_what_is_drafted_holds_at_least(combo, seed, level):
    """Checked with twins of its own: an answer that no number at the start moves, or a step that can go, is none."""
    try:
        text = write(combo[1], Random(seed), level)
    except Failure:
        assert combo[1] <= draft(combo[1], Random(seed), level).skills
        reject()
    opening, *rest = text.sentences
    twins = {i: evaluate("Mia", "coins", [replace(opening, args=a), *rest]) for i, a in enumerate(near(opening, seed))}
    twins = {i: twin for i, twin in twins.items() if not twin.fault}
    assume(len(twins) >= 12)
    assert len({twin.answer for twin in twins.values()} | {text.answer}) > 1
    for at, sentence in enumerate(rest, start=1):
        if sentence.rule.role == "step":
            fewer = {i: evaluate("", "", [s for j, s in enumerate(t.sentences) if j != at]) for i, t in twins.items()}
            fewer[-1] = evaluate("", "", [s for j, s in enumerate(text.sentences) if j != at])
            whole = {**twins, -1: text}
            assert any(fewer[i].fault or fewer[i].kinds[-1] != whole[i].kinds[-1] or fewer[i].answer != whole[i].answer
                       for i in fewer), (text.question, sentence.rule.id)  # fmt: skip


def near(opening, seed):
    rng = Random(seed)
    for _ in range(300):
        given = opening.args
        if opening.rule.id == "list":
            given = [given, given[1:], (*given, given[0])][rng.randrange(3 if 2 < len(given) < 9 else 1)]
        yield tuple(rng.randint(max(1, n // 2), 2 * n + 9) for n in given)


def test_no_problem_is_written_where_none_exists():
    for pair in conflicts():
        with pytest.raises(Failure, match="no problem uses all"):
            write(pair, Random(0))


# ---------------------------------------------------------------- conflicts, by enumeration of type chains

TYPES = {
    "maths": {**dict.fromkeys(skills_in("maths"), ("N", "N")), "parity": ("N", "end"), "multiple": ("N", "end")},
    "code": {
        **dict.fromkeys(("keep_even", "keep_above", "add_each"), ("L", "L")),
        **dict.fromkeys(("list_sum", "list_max", "list_min", "count", "position"), ("L", "N")),
        **dict.fromkeys(("double", "modulo"), ("N", "N")),
    },
    "science": {
        "distance": ("", "km"), "mass": ("", "g"), "duration": ("", "h"), "km_to_m": ("km", "m"),
        "g_to_mg": ("g", "mg"), "h_to_min": ("h", "min"), "travel_more": ("m", "m"), "add_mass": ("g", "g"),
        "fuel": ("km", "kJ"),
        "part": ("*", "*"), "repeat": ("*", "*"),
    },
}  # fmt: skip
"""Read off the tables of LANGUAGE.md: what each skill takes and gives."""


POINTLESS = ("keep_above", "list_max")
"""An order exists, but what is dropped is never the largest."""


def possible(category: str, skills: tuple[str, ...]) -> bool:
    """Some order of the skills, padded with up to two others, is a chain of types from an opening."""
    table = TYPES[category]
    start = {"maths": "N", "code": "L", "science": ""}[category]
    others = [s for s in table if s not in skills]
    paddings = [p for n in range(3) for p in combinations(others, n)] if category != "maths" else [()]
    for padding in paddings:
        for chain in permutations((*skills, *padding)):
            kind = start
            for skill in chain:
                takes, gives = table[skill]
                if takes != kind and not (takes == "*" and kind not in ("", "end")):
                    break
                kind = kind if gives == "*" else gives
            else:
                return True
    return False


@pytest.mark.parametrize("category", CATEGORIES)
def test_pairs_conflict_exactly_where_no_order_exists(category):
    pairs = list(combinations(skills_in(category), 2))
    found = {tuple(sorted(p)) for p in pairs if tuple(sorted(p)) in set(conflicts())}
    assert found == {tuple(sorted(p)) for p in pairs if not possible(category, p) or p == POINTLESS}


def test_triples_are_feasible_exactly_where_an_order_exists():
    rng = Random(0)
    for category in CATEGORIES:
        for triple in rng.sample(list(combinations(skills_in(category), 3)), 40):
            assert feasible(frozenset(triple)) == (possible(category, triple) and not {*POINTLESS} <= {*triple}), triple


def test_skills_of_two_categories_never_go_together():
    assert not feasible(frozenset(("add", "double")))


def test_the_conflicts_the_language_names():
    named = [("distance", "mass"), ("list_max", "list_sum"), ("multiple", "parity"), ("fuel", "km_to_m"),
             ("fuel", "travel_more"), ("distance", "g_to_mg"), ("add_mass", "duration")]  # fmt: skip
    assert set(named) <= set(conflicts())
    assert len(SKILL_IDS) >= 16


@given(st.sampled_from(CATEGORIES).flatmap(lambda c: st.sets(st.sampled_from(skills_in(c)), min_size=1, max_size=5)))
@settings(max_examples=100, deadline=None)
def test_the_largest_feasible_subset_is_feasible_and_none_is_larger(skills):
    best = largest_feasible(skills)
    assert all(b <= skills and feasible(b) for b in best)
    larger = [frozenset(s) for s in combinations(sorted(skills), len(best[0]) + 1)]
    assert not any(feasible(s) for s in larger)


# ---------------------------------------------------------------- the held-out split


@given(st.sampled_from(CATEGORIES).flatmap(lambda c: st.sets(st.sampled_from(skills_in(c)), min_size=2, max_size=6)))
@settings(max_examples=40, deadline=None)
def test_pruning_never_leads_into_the_heldout_side(skills):
    if not is_heldout(skills):
        assert not any(is_heldout(skills - {s}) for s in skills)


def test_the_split_is_fixed_disjoint_and_leaves_every_skill_trainable():
    assert is_heldout(["gcd", "lcm"]) and is_heldout(("lcm", "add", "gcd")), "the split must not change between runs"
    assert not is_heldout(["add", "subtract"])
    for category in CATEGORIES:
        inside, outside = set(combinations_of(category, False)), set(combinations_of(category, True))
        assert inside and outside and not inside & outside
        assert set().union(*inside) == set(skills_in(category))
    for pair in heldout_pairs():
        a, b = pair
        assert a not in needs(b) and b not in needs(a)


@given(combos, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_no_written_problem_crosses_the_split(combo, seed):
    assert not is_heldout(solve(draft(combo[1], Random(seed), extra=1).question)[1])


def test_the_benchmark_is_sound_distinct_heldout_and_as_shipped():
    rows = [json.loads(line) for line in WORLD.resolve("mini:heldout").read_text().splitlines()]
    assert len({r["question"] for r in rows}) == len(rows) == 480
    assert {r["steps"] for r in rows} == {1, 2, 3, 4} and {r["category"] for r in rows} == set(CATEGORIES)
    for row in rows:
        answer, used = solve(row["question"])
        assert answer == row["answer"] and is_heldout(used)
        assert len(row["question"].split(". ")) - 2 == row["steps"]
    assert all(read(row["question"]).has_substance for row in rows[::8])
    assert heldout_benchmark(12, 0) == rows[:12] != heldout_benchmark(12, 1)
