"""How far the committee can be trusted: problems with known defects planted among sound ones, and what became of them.

The domain says which problems are sound and how they are spoiled. `figures` is pure; `run_audit` asks a committee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any

from actors.calls import within
from actors.passk import wilson
from pipeline.domains.base import Planted, Sound
from pipeline.records import Verdict, Vote
from pipeline.scoring.agreement import pairwise

_CHUNK = 64
_CHUNK_TIMEOUT_S = 600.0


def figures(sound: Sequence[Verdict], planted: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    """What the verdicts on sound and on planted problems say about the committee and each verifier.

    false_accept: accepted (or voted valid) share of the planted; false_reject: rejected share of the sound; abstention:
    share of all without a decision (a vote); disagreement: of the committee, share of all on which votes differ; of a
    verifier, share of its votes that differ from the committee's decision; latency_s: of a vote; for the committee, of
    the slowest vote. *_high is the upper end of the 95 % interval. kappa: how far each pair of verifiers agrees beyond
    chance; error_kappa: the same of their errors, which judges of different minds do not have in common.
    """
    verdicts = [*sound, *(v for _, v in planted)]
    bad = [v for _, v in planted]
    names = list(dict.fromkeys(vote.verifier for verdict in verdicts for vote in verdict.votes))
    by_defect = {}
    for defect in sorted({d for d, _ in planted}):
        kind = [v for d, v in planted if d == defect]
        by_defect[defect] = {"n": len(kind), "accepted": sum(v.accepted for v in kind)}
    return {
        "sound": len(sound),
        "planted": len(planted),
        "committee": {
            **_rate("false_accept", sum(v.accepted for v in bad), len(bad)),
            **_rate("false_reject", sum(v.decision == "rejected" for v in sound), len(sound)),
            "abstention": _share(sum(v.decision == "undecided" for v in verdicts), len(verdicts)),
            "disagreement": _share(sum(len(_cast(v)) > 1 for v in verdicts), len(verdicts)),
            **_latency([max((vote.wall_s for vote in v.votes), default=0.0) for v in verdicts]),
        },
        "verifiers": {name: _verifier(name, sound, bad) for name in names},
        "kappa": pairwise(verdicts),
        "error_kappa": pairwise(verdicts, [True] * len(sound) + [False] * len(bad)),
        "injections_accepted": by_defect.get("injection", {"accepted": 0})["accepted"],
        "by_defect": by_defect,
    }


def _verifier(name: str, sound: Sequence[Verdict], planted: Sequence[Verdict]) -> dict[str, float]:
    good, bad = ([(v, vote) for v in verdicts if (vote := _first(v, name))] for verdicts in (sound, planted))
    both = [*good, *bad]
    cast = [(verdict, vote) for verdict, vote in both if vote.valid is not None and verdict.decision != "undecided"]
    return {
        **_rate("false_accept", sum(vote.valid is True for _, vote in bad), len(bad)),
        **_rate("false_reject", sum(vote.valid is False for _, vote in good), len(good)),
        "abstention": _share(sum(vote.valid is None for _, vote in both), len(both)),
        "disagreement": _share(sum(vote.valid != verdict.accepted for verdict, vote in cast), len(cast)),
        **_latency([vote.wall_s for _, vote in both]),
    }


def _first(verdict: Verdict, name: str) -> Vote | None:
    """Its vote before the second audit; of an auditor, who has none, the one in it."""
    own = sorted((vote for vote in verdict.votes if vote.verifier == name), key=lambda vote: vote.second)
    return own[0] if own else None


def _cast(verdict: Verdict) -> set[bool]:
    return {vote.valid for vote in verdict.votes if vote.valid is not None and not vote.second}


def _rate(name: str, count: int, total: int) -> dict[str, float]:
    return {name: _share(count, total), f"{name}_high": wilson(total, count)[1] if total else 1.0}


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {"latency_s": median(ordered), "latency_p95_s": ordered[int(0.95 * (len(ordered) - 1))]}


# ---------------------------------------------------------------- asking a committee


async def run_audit(
    committee: Any,
    sound: Sequence[Sound],
    planted: Sequence[Planted],
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge sound and planted problems by `committee` (a handle), shuffled together, and count; tells how far it is."""
    cases = [("", problem, active) for problem, active in sound] + [(p.defect, p.problem, p.active) for p in planted]
    Random(seed).shuffle(cases)
    verdicts: list[Verdict] = []
    for start in range(0, len(cases), _CHUNK):
        chunk = [(problem, None, active) for _, problem, active in cases[start : start + _CHUNK]]
        verdicts += await within(committee.judge_many.remote(chunk), "committee", _CHUNK_TIMEOUT_S)
        tell(f"{len(verdicts)}/{len(cases)} problems judged")
    judged = list(zip([defect for defect, _, _ in cases], verdicts, strict=True))
    return figures([v for defect, v in judged if not defect], [(defect, v) for defect, v in judged if defect])


async def spot_check(
    committee: Any,
    accepted: Sequence[Sound],
    plant: Callable[[Sequence[Sound], int], list[Planted]],
    n: int,
    seed: int,
    deadline_s: float | None,
) -> dict[str, float]:
    """Spoil up to n accepted problems by `plant` and judge them again: how many were accepted, {} if there is none.
    `deadline_s`: None for a committee that keeps one itself."""
    if not n or not accepted:
        return {}
    planted = plant(Random(seed).sample(list(accepted), min(n, len(accepted))), seed)
    cases = [(p.problem, None, p.active) for p in planted]
    verdicts: list[Verdict] = await within(committee.judge_many.remote(cases), "committee", deadline_s)
    return {"planted": float(len(verdicts)), "planted_accepted": float(sum(v.accepted for v in verdicts))}
