"""The answers of reasoning-gym's generators: each is itself however it is wrapped, and no two that its own scorer
tells apart are the same to us.

The kind of each generator's answers is said here, as a benchmark's rows would. Where we say unknown, the answers are
sentences, which may say one thing in two ways.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from itertools import combinations

import pytest

from actors.answers import compare_many
from actors.execution import Executor
from pipeline.records import AnswerKind
from tests.actors.pools import sandbox

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

_MATHS = """
aiw base_conversion basic_arithmetic binary_alternation binary_matrix bitwise_arithmetic boxnet
calendar_arithmetic chain_sum complex_arithmetic count_bits count_primes countdown course_schedule cryptarithm
decimal_arithmetic decimal_chain_sum dice fraction_simplification gcd gsm_symbolic intermediate_integration
largest_island lcm leg_counting letter_counting list_functions manipulate_matrix number_format number_sequence
polynomial_equations polynomial_multiplication pool_matrix power_function prime_factorization products rectangle_count
rotate_matrix rotten_oranges simple_equations simple_geometry simple_integration spiral_matrix time_intervals
"""
KINDS: dict[str, AnswerKind] = dict.fromkeys(_MATHS.split(), "math")
"""Generators whose answers are numbers and formulas; all others' are text."""

SENTENCES = {
    "caesar_cipher", "emoji_mystery", "knights_knaves", "letter_jumble", "sentence_reordering", "tower_of_hanoi",
    "needle_haystack",
}  # fmt: skip
"""Generators whose answers are sentences: told apart only where no word is shared."""

EQUAL_ALL_THE_SAME: dict[str, str] = {}
"""Generator -> why two answers that its scorer tells apart are the same to us."""

SMALL = ["chain_sum", "complex_arithmetic", "number_sorting", "shortest_path", "simple_integration", "time_intervals"]


def judged(names, size):
    """name -> (outcomes of an answer against itself, wrapped; of two that the scorer tells apart)."""
    pairs, owners = [], []
    for name in names:
        data = reasoning_gym.create_dataset(name, size=size, seed=7)
        rows = [row for row in (data[i] for i in range(size)) if row["answer"] is not None]
        kind = KINDS.get(name, "text")
        for answer in dict.fromkeys(str(row["answer"]) for row in rows):
            wrapped = (answer, f"${answer}$", rf"\boxed{{{answer}}}")
            pairs += [(kind, answer, text) for text in wrapped]
            owners += [(name, "itself")] * len(wrapped)
        for one, other in combinations(rows, 2):
            if str(one["answer"]) != str(other["answer"]) and data.score_answer(str(other["answer"]), one) < 1:
                pairs.append((kind, str(one["answer"]), str(other["answer"])))
                owners.append((name, "apart"))
    pool, handle = sandbox()

    async def main():
        return await compare_many(pairs, Executor(handle.run_batch.remote))

    try:
        outcomes = asyncio.run(main())
    finally:
        pool.close()
    found = {name: (Counter(), Counter()) for name in names}
    for (name, what), outcome in zip(owners, outcomes, strict=True):
        found[name][what == "apart"][outcome] += 1
    return found


def hold(found):
    for name, (itself, apart) in found.items():
        assert set(itself) <= {"equal"}, (name, itself)
        assert not apart["equal"] or name in EQUAL_ALL_THE_SAME, (name, apart)
    decidable = Counter()
    for name, (_, apart) in found.items():
        decidable += apart if name not in SENTENCES else Counter()
    assert decidable["unknown"] <= 0.05 * decidable.total(), found


def test_some_generators():
    hold(judged(SMALL, 3))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_generator():
    assert KINDS.keys() | SENTENCES | EQUAL_ALL_THE_SAME.keys() <= DATASETS.keys()
    found = judged(sorted(set(DATASETS) - {"composite"}), 8)
    for name, (itself, apart) in found.items():
        print(f"{name:28} {KINDS.get(name, 'text'):5} itself {dict(itself)} apart {dict(apart)}")
    hold(found)
