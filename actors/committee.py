"""The committee: several verifiers of different nature decide whether a submitted problem is valid, V(q).

Consumes a problem and the agent's trace; produces a Verdict. It waits for all verifiers side by side, each with its own
deadline, which stands still while a question waits for its turn at an endpoint; who unblocks it: their votes, or their
deadlines. A verifier that hangs, dies or speaks garbage abstains, with the reason in its vote: it costs its vote, never
the run. Abstention is not a vote.

The decision (PAPER, the committee), in this order:
1. below `quorum` votes: undecided, never accepted;
2. a disqualifying flag of any vote: rejected;
3. fewer than `required` valid votes: rejected, unless the votes of verifiers whose infrastructure failed could still
   make up the number: then undecided;
4. all votes name the submitted answer: accepted; else the second audit decides.

The second audit, where `required` votes are valid but some answer differs. Answers come in two kinds. A *derived* one
(symbolic, executing) follows from the statement: if one differs, the statement can be read otherwise or the answer is
wrong, and nothing overrules it. A *sampled* one (a model's majority) also differs where the model is too weak, and
on just the problems that are worth having it is. So dissent among samples is resolved in favour of the
submission if `required` derivations confirm it independently. Where there are fewer (a committee of models), the
dissenters solve the problem once more, with new seeds and twice the samples: it is resolved if each of them
then agrees, and not if one of them abstains or dissents again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from actors.execution import Executor
from actors.queueing import work_timeout
from actors.verifiers import make
from actors.verifiers.base import Verifier, abstention
from pipeline import config
from pipeline.records import Episode, Failure, Halt, Problem, Verdict, Vote

TRACE_CHARS = 8_000
"""Characters of the agent's work that verifiers are shown, from its end."""


class Committee:
    """A Serve replica. `sandbox` and `solver` are handles of their pools."""

    def __init__(self, config: config.CommitteeConfig, sandbox: Any, solver: Any | None = None):
        executor = Executor(sandbox.run_batch.remote)
        self._setup(config, [make(section, i, executor, solver) for i, section in enumerate(config.verifiers)])

    @classmethod
    def of(cls, config: config.CommitteeConfig, verifiers: Sequence[Verifier]) -> Committee:
        """A committee of ready-made verifiers."""
        committee = cls.__new__(cls)
        committee._setup(config, verifiers)
        return committee

    def _setup(self, config: config.CommitteeConfig, verifiers: Sequence[Verifier]) -> None:
        self._config = config
        self._verifiers = list(verifiers)
        self._late: set[asyncio.Task[Vote]] = set()
        self._counts = {"judged": 0, "accepted": 0, "rejected": 0, "undecided": 0, "abstentions": 0, "audits": 0}

    async def judge(self, problem: Problem, episode: Episode | None, active: Sequence[str]) -> Verdict:
        trace = _trace_of(episode)
        votes = await asyncio.gather(*(self._vote(v, problem, trace, active, 0) for v in self._verifiers))
        verdict = await self._decide(problem, trace, active, votes)
        self._counts["judged"] += 1
        self._counts[verdict.decision] += 1
        self._counts["abstentions"] += sum(v.valid is None for v in votes)
        self._counts["audits"] += verdict.audit is not None
        return verdict

    async def judge_many(self, cases: Sequence[tuple[Problem, Episode | None, Sequence[str]]]) -> list[Verdict]:
        """One call for many problems; they share the verifiers' batches."""
        return list(await asyncio.gather(*(self.judge(*case) for case in cases)))

    async def stats(self) -> dict[str, float]:
        return {k: float(v) for k, v in self._counts.items()}

    # ---------------------------------------------------------------- votes

    async def _vote(
        self, verifier: Verifier, problem: Problem, trace: str, active: Sequence[str], attempt: int
    ) -> Vote:
        """A verifier's vote, or its abstention, within its deadline. Raises Halt alone."""
        began = time.monotonic()
        try:
            async with work_timeout(verifier.timeout_s):
                task = asyncio.ensure_future(verifier.vote(problem, trace, active, attempt))
                # `wait` and not the task itself: a verifier that will not be cancelled must not hold the committee up.
                await asyncio.wait([task])
            vote = _result(verifier.name, task)
        except TimeoutError:
            task.cancel()
            self._late.add(task)
            task.add_done_callback(self._forget)
            vote = abstention(verifier.name, f"no vote within {verifier.timeout_s:g} s", "infra_error")
        return vote.model_copy(update={"wall_s": time.monotonic() - began})

    def _forget(self, task: asyncio.Task[Vote]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # it was late; what it ended with no longer matters, and must not be logged as unseen

    # ---------------------------------------------------------------- the decision

    async def _decide(self, problem: Problem, trace: str, active: Sequence[str], votes: Sequence[Vote]) -> Verdict:
        c = self._config
        cast = [v for v in votes if v.valid is not None]
        valid = [v for v in cast if v.valid]
        flags = sorted({flag for v in cast for flag in v.flags})
        barred = [flag for flag in flags if flag in c.disqualifying]
        missing = sum(v.valid is None and v.outcome.kind == "infra_error" for v in votes)

        def verdict(decision: str, reason: str, audit: str | None = None) -> Verdict:
            fields = {"problem_id": problem.id, "votes": votes, "flags": flags, "decision": decision}
            return Verdict.model_validate({**fields, "reason": reason, "audit": audit})

        if len(cast) < c.quorum:
            return verdict("undecided", f"{len(cast)} votes, the quorum is {c.quorum}")
        if barred:
            return verdict("rejected", f"flagged {', '.join(barred)}")
        if len(valid) < c.required:
            reason = f"{len(valid)} of {len(votes)} vote valid, {c.required} are needed"
            if len(valid) + missing >= c.required:
                return verdict("undecided", f"{reason}, and {missing} could not vote")
            return verdict("rejected", reason)
        dissent = [v for v in cast if not v.valid]
        if not dissent:
            return verdict("accepted", f"{len(valid)} of {len(votes)} vote valid")
        if not c.audit:
            return verdict("rejected", "the answers differ")
        resolved, said = await self._audit(problem, trace, active, valid, dissent)
        return verdict(
            "accepted" if resolved else "rejected", f"{len(valid)} of {len(votes)} vote valid, audited", said
        )

    async def _audit(
        self, problem: Problem, trace: str, active: Sequence[str], valid: Sequence[Vote], dissent: Sequence[Vote]
    ) -> tuple[bool, str]:
        """Whether the differing answers are resolved in favour of the submission, and why."""
        by_name = {v.name: v for v in self._verifiers}
        derived = [v.verifier for v in dissent if by_name[v.verifier].derived]
        if derived:
            return False, f"{', '.join(derived)} derives another answer"
        confirming = [v.verifier for v in valid if by_name[v.verifier].derived]
        if len(confirming) >= self._config.required:
            return True, f"{' and '.join(confirming)} derive the submitted answer independently; samples differ"
        second = await asyncio.gather(
            *(self._vote(by_name[v.verifier], problem, trace, active, 1) for v in dissent),
        )
        stubborn = [v.verifier for v in second if not v.valid]
        if stubborn:
            return False, f"{', '.join(stubborn)} did not come round when asked again"
        return True, f"{', '.join(v.verifier for v in second)} found the submitted answer when asked again"


def _result(name: str, task: asyncio.Task[Vote]) -> Vote:
    """What a finished verifier said, if it is a vote of its own. Raises Halt."""
    if task.cancelled():
        return abstention(name, "cancelled", "infra_error")
    error = task.exception()
    if isinstance(error, Halt):
        raise error
    if isinstance(error, Failure):
        return abstention(name, str(error), error.kind)
    if error is not None:
        return abstention(name, f"{type(error).__name__}: {str(error)[:200]}", "infra_error")
    vote = task.result()
    if not isinstance(vote, Vote):
        return abstention(name, f"answered with {type(vote).__name__}, expected a vote", "model_error")
    return vote.model_copy(update={"verifier": name})


def _trace_of(episode: Episode | None) -> str:
    """The agent's turns and what its tools answered, as text. The last one is left out: its statement is shown anyway,
    and its answer is for the verifiers to find."""
    if episode is None:
        return ""
    parts = []
    for turn in episode.turns:
        if turn.action == "submit":
            continue
        parts.append(turn.text)
        if turn.tool is not None:
            parts.append(f"-> {turn.tool.content}")
    return "\n".join(parts)[-TRACE_CHARS:]
