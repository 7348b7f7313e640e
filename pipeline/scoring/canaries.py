"""The live check that answers stay with those who may see them: accepted problems of a step are judged and probed once
more with secrets in place of their answers (`actors/canary.py`), on the ways that the real ones took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from actors.calls import within
from actors.canary import Leak, planted
from pipeline.records import Failure
from pipeline.scoring.judged import Judged


async def look(
    committee: Any,
    prober: Any | None,
    judged: Sequence[Judged],
    n: int,
    seed: int,
    deadlines: tuple[float | None, float | None] = (None, None),
) -> dict[str, float]:
    """canaries: secrets planted · leaked: of them shown to a judge or a prober · unfinished: of them whose way could
    not be followed to its end, because infrastructure failed. {} where no problem was accepted. `deadlines`: of
    committee and prober, where they keep none themselves."""
    judging_s, probing_s = deadlines
    accepted = [j for j in judged if j.accepted and j.verdict is not None]
    chosen = Random(seed).sample(accepted, min(n, len(accepted)))
    if not chosen:
        return {}

    async def follow(number: int, j: Judged) -> str:
        episode = planted(j.episode, (seed, number))
        assert episode.submitted is not None
        try:
            case = (episode.submitted, episode, episode.active)
            await within(committee.judge_many.remote([case]), "committee", judging_s)
            if prober is not None and j.probe is not None:
                probing = prober.probe.remote(episode.submitted, j.probe.prober, episode.task.seed)
                await within(probing, "prober", probing_s)
        except Leak:
            return "leaked"
        except Failure:
            return "unfinished"
        return "kept"

    ends = await asyncio.gather(*(follow(i, j) for i, j in enumerate(chosen)))
    return {
        "canaries": float(len(chosen)),
        "canaries_leaked": float(ends.count("leaked")),
        "canaries_unfinished": float(ends.count("unfinished")),
    }
