"""The committee: several verifiers of different nature decide whether a submitted problem is valid, V(q).

Consumes a problem and the agent's trace; produces a Verdict. It waits for all verifiers side by side, each with its own
deadline, which stands still while a question waits for its turn at an endpoint; who unblocks it: their votes, or their
deadlines. A verifier that hangs, dies or speaks garbage abstains, with the reason in its vote: it costs its vote, never
the run. Abstention is not a vote.

The decision (PAPER, the committee), in this order:
1. below `quorum` votes: rejected, unless the votes of verifiers whose infrastructure failed could still make up the
   number: then undecided. So what no verifier can read or decide is a fault of the problem, and no way out of a reward;
2. a disqualifying flag of any vote: rejected;
3. fewer than `required` valid votes: rejected, unless the votes of verifiers whose infrastructure failed could still
   make up the number: then undecided;
4. all votes name the submitted answer: accepted; else the second audit decides.

The second audit, where `required` votes are valid but some answer differs, or some verifier had no majority for any.
Answers come in two kinds. A *derived* one (symbolic, executing) follows from the statement: if one differs, the
statement can be read otherwise or the answer is wrong, and nothing overrules it. A *sampled* one (a model's majority)
also differs where the model is too weak, and on just the problems that are worth having it is. So dissent among samples
is resolved in favour of the submission if `required` derivations confirm it independently. Where there are fewer (a
committee of models), the auditor solves the problem, is shown which answers were found, and decides. Without an
auditor, those who differ solve it once more, with new seeds and twice the samples: it is resolved if each of them then
agrees. The votes of the audit stand in the verdict, marked `second`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors import meters
from actors.calls import SolverPool
from actors.execution import Executor
from actors.queueing import work_timeout
from actors.verifiers import make
from actors.verifiers.base import Asked, Verifier, abstention
from pipeline import config
from pipeline.records import Decision, Episode, Failure, Halt, Problem, Verdict, Vote

TRACE_CHARS = 80_000
"""Characters of the agent's work that verifiers are shown, from its end: all of an episode of 20,000 tokens."""


class Committee:
    """A Serve replica. `sandbox` and `solver` are handles of their pools, `prompts` the domain's own for verifiers."""

    def __init__(
        self,
        config: config.CommitteeConfig,
        sandbox: Any,
        solver: SolverPool | None = None,
        prompts: Mapping[str, str] | None = None,
    ):
        executor = Executor(sandbox.run_batch.remote)
        verifiers = [make(section, i, executor, solver, prompts) for i, section in enumerate(config.verifiers)]
        auditor = make(config.auditor, "auditor", executor, solver, prompts) if config.auditor else None
        self._setup(config, verifiers, auditor)

    @classmethod
    def of(
        cls, config: config.CommitteeConfig, verifiers: Sequence[Verifier], auditor: Verifier | None = None
    ) -> Committee:
        """A committee of ready-made verifiers."""
        committee = cls.__new__(cls)
        committee._setup(config, verifiers, auditor)
        return committee

    def _setup(self, config: config.CommitteeConfig, verifiers: Sequence[Verifier], auditor: Verifier | None) -> None:
        self._config = config
        self._verifiers = list(verifiers)
        self._auditor = auditor
        self._late: set[asyncio.Task[Vote]] = set()
        self._counts = {"judged": 0, "accepted": 0, "rejected": 0, "undecided": 0, "abstentions": 0, "audits": 0}

    async def judge(self, problem: Problem, episode: Episode | None, active: Sequence[str]) -> Verdict:
        """The verdict on a problem that the episode handed in with these skills active; without an episode, on one
        that was asked for with them."""
        began = time.monotonic()
        trace, asked = _trace_of(episode), _asked(episode, active)
        votes = await asyncio.gather(*(self._vote(v, problem, trace, asked, 0) for v in self._verifiers))
        verdict = await self._decide(problem, trace, asked, votes)
        self._counts["judged"] += 1
        self._counts[verdict.decision] += 1
        self._counts["abstentions"] += sum(v.valid is None for v in votes)
        self._counts["audits"] += verdict.audit is not None
        meters.judged(verdict, time.monotonic() - began)
        return verdict

    async def judge_many(self, cases: Sequence[tuple[Problem, Episode | None, Sequence[str]]]) -> list[Verdict]:
        """One call for many problems; they share the verifiers' batches."""
        return list(await asyncio.gather(*(self.judge(*case) for case in cases)))

    async def stats(self) -> dict[str, float]:
        return {k: float(v) for k, v in self._counts.items()}

    # ---------------------------------------------------------------- votes

    async def _vote(self, verifier: Verifier, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        """A verifier's vote, or its abstention, within its deadline. Raises Halt alone."""
        began = time.monotonic()
        try:
            async with work_timeout(verifier.timeout_s):
                task = asyncio.ensure_future(verifier.vote(problem, trace, asked, attempt))
                # `wait` and not the task itself: a verifier that will not be cancelled must not hold the committee up.
                await asyncio.wait([task])
            vote = _result(verifier.name, task)
        except TimeoutError:
            task.cancel()
            self._late.add(task)
            task.add_done_callback(self._forget)
            vote = abstention(verifier.name, f"no vote within {verifier.timeout_s:g} s", "infra_error")
        vote = vote.model_copy(update={"wall_s": time.monotonic() - began})
        meters.voted(vote)
        return vote

    def _forget(self, task: asyncio.Task[Vote]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # it was late; what it ended with no longer matters, and must not be logged as unseen

    # ---------------------------------------------------------------- the decision

    async def _decide(self, problem: Problem, trace: str, asked: Asked, votes: Sequence[Vote]) -> Verdict:
        c = self._config
        cast = [v for v in votes if v.valid is not None]
        valid = [v for v in cast if v.valid]
        silent = [v for v in votes if v.valid is None]
        barred = self._barred(cast)
        missing = sum(v.outcome.kind == "infra_error" for v in silent)

        def verdict(decision: Decision, reason: str, audit: str | None = None, second: Sequence[Vote] = ()) -> Verdict:
            return Verdict(
                problem_id=problem.id,
                votes=(*votes, *second),
                flags=tuple(sorted({flag for v in (*cast, *second) for flag in v.flags})),
                decision=decision,
                reason=reason,
                audit=audit,
                answer=self._canonical(problem, valid) if decision == "accepted" else None,
                **_told(cast),
            )

        if len(cast) < c.quorum:
            reason = f"{len(cast)} votes, the quorum is {c.quorum}, {missing} could not vote"
            return verdict("undecided" if len(cast) + missing >= c.quorum else "rejected", reason)
        if barred:
            return verdict("rejected", f"flagged {', '.join(barred)}")
        if len(valid) < c.required:
            reason = f"{len(valid)} of {len(votes)} vote valid, {c.required} are needed"
            if len(valid) + missing >= c.required:
                return verdict("undecided", f"{reason}, and {missing} could not vote")
            return verdict("rejected", reason)
        reason = f"{len(valid)} of {len(votes)} vote valid"
        confirming = [v.verifier for v in valid if self._derives(v)]
        confirmed = len(confirming) >= c.required
        dissent = [v for v in cast if not v.valid]
        no_majority = [] if confirmed else [v for v in silent if v.outcome.kind == "model_error"]
        if not dissent and not no_majority:
            return verdict("accepted", reason)
        if not c.audit:
            return verdict("rejected", "the answers differ")
        reason = f"{reason}, audited"
        if derived := [v.verifier for v in dissent if self._derives(v)]:
            return verdict("rejected", reason, f"{', '.join(derived)} derives another answer")
        if confirmed:
            said = f"{' and '.join(confirming)} derive the submitted answer independently; samples differ"
            return verdict("accepted", reason, said)
        second = await self._audit(problem, trace, asked, votes, [*dissent, *no_majority])
        decision, said = self._outcome(second)
        return verdict(decision, reason, said, second)

    def _canonical(self, problem: Problem, valid: Sequence[Vote]) -> str:
        """The answer of an accepted problem: as a derivation gives it, else in the form that was confirmed."""
        derived_first = sorted(valid, key=lambda v: not self._derives(v))
        return next((v.answer for v in derived_first if v.answer), problem.answer)

    async def _audit(
        self, problem: Problem, trace: str, asked: Asked, votes: Sequence[Vote], differing: Sequence[Vote]
    ) -> list[Vote]:
        """The votes of the second audit: the auditor's, who is shown the answers that were found, or else those of the
        verifiers that differ, asked again."""
        if self._auditor is not None:
            shown = "\n".join(part for part in (trace, _found(problem, votes)) if part)
            second = [await self._vote(self._auditor, problem, shown, asked, 1)]
        else:
            by_name = {v.name: v for v in self._verifiers}
            second = await asyncio.gather(
                *(self._vote(by_name[v.verifier], problem, trace, asked, 1) for v in differing)
            )
        return [vote.model_copy(update={"second": True}) for vote in second]

    def _outcome(self, second: Sequence[Vote]) -> tuple[Decision, str]:
        """What follows from the votes of the second audit, and why."""
        lost = [v for v in second if v.valid is None and v.outcome.kind == "infra_error"]
        against = [v for v in second if not v.valid and v not in lost]
        if against:
            return "rejected", f"{_names(against)} did not come round: {against[0].rationale}"
        if lost:
            return "undecided", f"{_names(lost)} could not vote: {lost[0].outcome.reason}"
        if barred := self._barred(second):
            return "rejected", f"flagged {', '.join(barred)}"
        return "accepted", f"{_names(second)} found the submitted answer"

    def _barred(self, votes: Sequence[Vote]) -> list[str]:
        """The disqualifying flags of these votes."""
        return sorted({flag for vote in votes for flag in vote.flags} & set(self._config.disqualifying))

    def _derives(self, vote: Vote) -> bool:
        return next(v.derived for v in self._verifiers if v.name == vote.verifier)


def _names(votes: Sequence[Vote]) -> str:
    return ", ".join(vote.verifier for vote in votes)


def _found(problem: Problem, votes: Sequence[Vote]) -> str:
    """The answers that were found, the submitted one among them, without saying whose they are."""
    answers = sorted({problem.answer, *(vote.answer for vote in votes if vote.answer)})
    return "Answers that were found:\n" + "\n".join(f"- {answer[:500]}" for answer in answers)


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


def _asked(episode: Episode | None, active: Sequence[str]) -> Asked:
    if episode is None:
        return Asked(None, tuple(active), tuple(active))
    skills = episode.task.skills
    intents = tuple((skill.id, skill.intent) for skill in skills)
    return Asked(episode.task.category or None, tuple(skill.id for skill in skills), tuple(active), intents)


def _told(votes: Sequence[Vote]) -> dict[str, Any]:
    """What the votes say of the problem itself: what all that can tell have in common."""
    used = [set(v.used_skills) for v in votes if v.used_skills is not None]
    categories = {v.category for v in votes if v.category is not None}
    adherent = [v.adherent for v in votes if v.adherent is not None]
    return {
        "used_skills": tuple(sorted(set.intersection(*used))) if used else None,
        "category": categories.pop() if len(categories) == 1 else None,
        "adherent": all(adherent) if adherent else None,
    }


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
