"""What difficulty pays, in closed form and as the code pays it; the table of deploy/REWARD.md is one of these figures.
`python -m tests.pipeline.scoring.test_bonus` prints it.

With p the prober's chance to be right, n samples and R_base, lambda of the config, the bonus of a valid problem is
lambda 1[c > 0] (1 - rho) for c right samples, and its mean

    rate          (1 - p) - (1 - p)^n
    Pass@k        (1 - p)^k - (1 - p)^n

because both estimates are unbiased, and a problem without a right sample (probability (1 - p)^n, estimate 0) is paid no
bonus.
"""

import math
import re
from functools import cache
from pathlib import Path
from random import Random

import pytest

from actors.passk import easy, estimate
from pipeline.config import RewardConfig
from pipeline.records import Verdict
from pipeline.scoring import chance
from pipeline.scoring.rewards import terminal
from tests.mini import MINI

PAGE = Path(__file__).parents[3] / "deploy" / "REWARD.md"
VALID = Verdict(problem_id="p", votes=(), flags=(), decision="accepted", reason="")
P = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
COLUMNS = (("pass_at_k", 8, 4), ("pass_at_k", 32, 16), ("rate", 8, 4), ("rate", 16, 4))
"""(reading, n, k)"""


def closed_form(p, reading, n, k):
    return (1 - p) ** (1 if reading == "rate" else k) - (1 - p) ** n


@cache
def bonus(correct, taken, reading, k):
    """As the code pays it, in units of lambda."""
    reward = RewardConfig(base=1.0, difficulty=1.0, rho=reading, unsolved=1.0)
    found = estimate("p", correct, taken - correct, 0, k, "m")
    return terminal(VALID, chance.measured(found, 0.0, reward), reward) - 1.0


def moments(p, reading, n, k):
    """Mean and standard deviation over all outcomes."""
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    paid = [bonus(c, n, reading, k) for c in range(n + 1)]
    mean = sum(w * b for w, b in zip(weights, paid, strict=True))
    return mean, math.sqrt(max(0.0, sum(w * (b - mean) ** 2 for w, b in zip(weights, paid, strict=True))))


def table():
    heads = [f"{'rate' if r == 'rate' else f'Pass@{k}'} of {n}" for r, n, k in COLUMNS]
    lines = ["| p | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for p in P:
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in (moments(p, *column) for column in COLUMNS)]
        lines.append(f"| {p:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@pytest.mark.parametrize("column", COLUMNS, ids=str)
@pytest.mark.parametrize("p", P)
def test_the_bonus_that_is_paid_has_the_mean_of_the_closed_form(p, column):
    assert moments(p, *column)[0] == pytest.approx(closed_form(p, *column), abs=1e-12)


@pytest.mark.parametrize("column", COLUMNS, ids=str)
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_and_so_it_has_in_a_brute_force_simulation(p, column):
    reading, n, k = column
    rng, draws = Random(f"{p} {column}"), 6000
    paid = [bonus(sum(rng.random() < p for _ in range(n)), n, reading, k) for _ in range(draws)]
    mean, spread = sum(paid) / draws, moments(p, *column)[1]
    assert mean == pytest.approx(closed_form(p, *column), abs=4.5 * spread / math.sqrt(draws) + 1e-9)


@pytest.mark.parametrize("p", P)
def test_ending_early_costs_little_of_the_bonus(p):
    """The mini world's probes: by less than 0.03 lambda, in all outcomes together."""
    n, first, k, above = MINI.prober.n, MINI.prober.first, MINI.prober.k, MINI.prober.easy
    mean = 0.0
    for c in range(first + 1):
        taken = first if easy(first, c, above) else n
        for more in range(taken - first + 1):
            ways = math.comb(first, c) * math.comb(taken - first, more)
            mean += ways * p ** (c + more) * (1 - p) ** (taken - c - more) * bonus(c + more, taken, "rate", k)
    assert closed_form(p, "rate", n, k) - 0.03 < mean <= closed_form(p, "rate", n, k) + 1e-9


def test_the_page_shows_these_figures():
    page = PAGE.read_text(encoding="utf-8")
    assert table() in page
    rows = [[float(x) for x in re.findall(r"\d\.\d+|\d", row)] for row in re.findall(r"^\| 0\.\d+ \|.*$", page, re.M)]
    assert [row[0] for row in rows] == list(P)
    for p, *cells in rows:  # mean and deviation of each column
        for column, mean in zip(COLUMNS, cells[::2], strict=True):
            assert mean == pytest.approx(closed_form(p, *column), abs=5.1e-4)


if __name__ == "__main__":
    print(table())
