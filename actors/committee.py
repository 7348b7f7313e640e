"""The verifier committee: V(q), decided by several verifiers of different nature (PAPER, verifier committee).

    problem, trace, active skills ──► verifiers side by side ──votes──► decide ──(answers differ)──► audit ──► Verdict

A replica judges any number of problems at once. It waits for its verifiers, each for its own `timeout_s`; a verifier
that hangs, dies or answers nonsense abstains, which costs its vote and nothing else.

Accepted only if all hold: at least `quorum` verifiers voted (abstentions are no votes), at least `required` of them
vote valid, no disqualifying flag was raised, and the answers agree with the submitted one or a second audit resolves
the difference. Below the quorum a problem is undecided, never accepted.

The second audit (the paper leaves it open): two derivations that agree with the submitted answer outweigh a sampled
one, since a model that fails a hard problem says little about it. Otherwise each dissenter looks again, with more
samples; the problem stands if none of them dissents a second time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from actors.execution import Executor
from actors.verifiers import Verifier, make_verifiers
from pipeline import config
from pipeline.records import Episode, Failure, Outcome, Problem, Verdict, Vote

_DERIVATIONS = 2
"""Agreeing derivations that outweigh a sampled answer."""


class Committee:
    """Serve replica. `sandbox`: the sandbox pool · `solver`: a pool that answers questions, for model verifiers."""

    def __init__(self, config: config.Committee, sandbox: Any, solver: Any | None):
        self._config = config
        self._verifiers = make_verifiers(config.verifiers, Executor(sandbox.run_batch.remote), solver)

    async def judge(self, problem: Problem, episode: Episode | None, active: tuple[str, ...]) -> Verdict:
        """The verdict on a submitted problem; `active` are the skills it must use."""
        trace = "\n\n".join(turn.text for turn in episode.turns) if episode else ""
        votes = await asyncio.gather(*(_vote(v, problem, trace, active) for v in self._verifiers))
        decision, reason = decide(votes, self._config)
        audit = None
        if decision == "accepted" and (dissent := _dissent(votes)):
            if not self._config.audit:
                decision, reason = "rejected", f"{', '.join(dissent)} found another answer"
            else:
                stands, audit = await self._audit(problem, trace, active, votes, dissent)
                if not stands:
                    decision, reason = "rejected", audit
        flags = tuple(sorted({f for v in votes for f in v.flags}))
        return Verdict(
            problem_id=problem.id, votes=tuple(votes), flags=flags, decision=decision, reason=reason, audit=audit
        )  # fmt: skip

    async def _audit(
        self, problem: Problem, trace: str, active: tuple[str, ...], votes: list[Vote], dissent: list[str]
    ) -> tuple[bool, str]:
        """(the problem stands, why)."""
        deriving = {v.name for v in self._verifiers if v.derives}
        agree = sum(v.valid is True for v in votes if v.verifier in deriving)
        if agree >= _DERIVATIONS and not deriving & set(dissent):
            return True, f"{agree} derivations agree, {', '.join(dissent)} only sampled another answer"
        again = await asyncio.gather(
            *(_vote(v, problem, trace, active, again=True) for v in self._verifiers if v.name in dissent)
        )
        still = [v.verifier for v in again if v.valid is not True]
        if still:
            return False, f"{', '.join(still)} found another answer again"
        return True, f"{', '.join(dissent)} agreed on a second look"

    async def check_health(self) -> None:
        """Nothing of its own to fail: verifiers' failures are abstentions."""


def decide(votes: list[Vote], settings: config.Committee) -> tuple[Any, str]:
    """(decision, reason) from the votes alone, before any audit."""
    cast = [v for v in votes if v.valid is not None]
    valid = [v for v in cast if v.valid]
    flags = sorted({f for v in votes for f in v.flags if f in settings.disqualifying})
    if len(cast) < settings.quorum:
        silent = ", ".join(f"{v.verifier} ({v.outcome.reason or v.rationale})" for v in votes if v.valid is None)
        return "undecided", f"{len(cast)} votes, quorum {settings.quorum}; abstained: {silent}"
    if flags:
        return "rejected", f"flagged {', '.join(flags)}"
    if len(valid) < settings.required:
        against = "; ".join(f"{v.verifier}: {v.rationale}" for v in cast if not v.valid)
        return "rejected", f"{len(valid)} of {settings.required} valid votes; {against}"
    return "accepted", f"{len(valid)} of {len(votes)} vote valid"


def _dissent(votes: list[Vote]) -> list[str]:
    return [v.verifier for v in votes if v.valid is False]


async def _vote(verifier: Verifier, problem: Problem, trace: str, active: tuple[str, ...], again: bool = False) -> Vote:
    """A vote within the verifier's deadline, or its abstention."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(verifier.timeout_s):
            return await verifier.vote(problem, trace, active, again)
    except TimeoutError:
        outcome = Outcome(kind="infra_error", reason=f"no vote within {verifier.timeout_s:g} s")
    except Failure as e:
        outcome = Outcome(kind=e.kind, reason=str(e))
    except Exception as e:  # whatever a verifier dies of costs its vote, not the run
        outcome = Outcome(kind="infra_error", reason=f"{type(e).__name__}: {str(e)[:200]}")
    return Vote(
        verifier=verifier.name, valid=None, rationale="abstains", outcome=outcome, wall_s=time.monotonic() - began
    )
