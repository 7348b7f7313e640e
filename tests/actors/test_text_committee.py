"""The committee for free text on problems with known truth: real prompts over HTTP, real programs in the real sandbox,
judges with stated errors. What it accepts is what the rule says of their errors, problem by problem, and how often is
what theory says; perfect judges make no mistake."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import pytest

from actors.committee import Committee
from pipeline import config
from pipeline.records import Verdict
from pipeline.scoring.audit import figures
from tests.actors.endpoint import endpoint
from tests.actors.text_bank import Item, bank, spoiled
from tests.actors.text_judges import JUDGES, Judges, Rates, accepts, chance, drawn

_CHUNK = 24


def committee(url: str, pool: object, samples: int) -> Committee:
    asked = {"base_url": url, "samples": samples, "timeout_s": 300}
    section = config.CommitteeConfig.model_validate(
        {
            "verifiers": [
                {"kind": "program", "style": "python", "model": "plain", **asked},
                {"kind": "program", "style": "sympy", "model": "symbolic", **asked},
                {"kind": "model", "model": "reviewer", **asked},
            ],
            "auditor": {"kind": "model", "model": "auditor", "structured": True, **asked},
        }
    )
    return Committee(section, pool)


async def judged(items: Sequence[Item], rates: Rates, seed: int, pool: object, samples: int) -> list[Verdict]:
    verdicts: list[Verdict] = []
    judges = Judges(items, rates, seed, 0.3 if samples > 2 else 0.0)
    async with endpoint(judges) as requests:
        court = committee(requests.url, pool, samples)
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            verdicts += await court.judge_many([(item.problem, None, item.active) for item in chunk])
    # The last of them is the auditor, whom nobody calls where nobody errs.
    assert judges.asked.keys() == set(JUDGES if rates != PERFECT else JUDGES[:-1])
    return verdicts


def problems(n: int) -> list[Item]:
    """Half of them spoiled."""
    items = bank(n, 0)
    return [*items[: n // 2], *spoiled(items[n // 2 :], 1)]


PERFECT = Rates()
INDEPENDENT = Rates(slip=0.15, alarm=0.05, miss=0.3)
CORRELATED = Rates(slip=0.15, alarm=0.05, miss=0.3, shared=0.6)
ALIKE = Rates(slip=0.15, alarm=0.05, miss=0.3, shared=1.0)


@pytest.mark.parametrize("rates", [PERFECT, CORRELATED], ids=["perfect", "correlated"])
def test_a_few_problems_are_judged_as_the_rule_says(pool, rates):
    items = problems(16)[4:12] if rates is PERFECT else problems(16)
    verdicts = asyncio.run(judged(items, rates, 3, pool, 1))
    for item, verdict in zip(items, verdicts, strict=True):
        assert verdict.accepted is accepts(item, drawn(item, rates, 3)), (item, verdict)
        assert verdict.decision != "undecided"


def test_theory_is_that_of_the_draws():
    """`chance` enumerates, `drawn` draws: of many seeds the share is the chance."""
    for item in problems(24)[::6]:
        for rates in (INDEPENDENT, CORRELATED, ALIKE):
            share = sum(accepts(item, drawn(item, rates, seed)) for seed in range(500)) / 500
            assert abs(share - chance(item, rates)) < 0.08  # four standard deviations of a half
        assert chance(item, PERFECT) == (0.0 if item.defect else 1.0)


def _row(name: str, wrong: int, n: int, expected: float, spread: float) -> str:
    return f"{name:34s} {wrong:4d} of {n}  {wrong / n:7.1%}   theory {expected / n:6.1%} +- {spread / n:.1%}"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "rates"),
    [("perfect", PERFECT), ("independent", INDEPENDENT), ("correlated 0.6", CORRELATED)],
)
def test_false_accepts_and_false_rejects_are_those_of_theory(pool, name, rates, capsys):
    items = problems(240)
    began = time.monotonic()
    verdicts = asyncio.run(judged(items, rates, 3, pool, 3))
    lines = [f"judges {name}: {rates}, {len(items)} problems, {time.monotonic() - began:.0f} s"]
    for item, verdict in zip(items, verdicts, strict=True):
        assert verdict.accepted is accepts(item, drawn(item, rates, 3)), (item, verdict)
    for group, wrong in (("sound, rejected", False), ("spoiled, accepted", True)):
        chosen = [(i, v) for i, v in zip(items, verdicts, strict=True) if bool(i.defect) is wrong]
        odds = [chance(i, rates) if wrong else 1 - chance(i, rates) for i, _ in chosen]
        found = sum(v.accepted is wrong for _, v in chosen)
        expected, spread = sum(odds), math.sqrt(sum(p * (1 - p) for p in odds))
        lines.append(_row(group, found, len(chosen), expected, spread))
        assert abs(found - expected) <= 4 * spread + 1e-9
    measured = figures(
        [v for i, v in zip(items, verdicts, strict=True) if not i.defect],
        [(i.defect, v) for i, v in zip(items, verdicts, strict=True) if i.defect],
    )
    lines += [f"  {k}: {v}" for k, v in measured["by_defect"].items()]
    lines.append(f"  kappa of errors: { {k: round(v, 2) for k, v in measured['error_kappa'].items()} }")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
