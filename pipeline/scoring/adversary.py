"""An adversary that stays: a seeded search for problems that are paid and that should not be.

    first generation ─► play ─► committee ─► (reach of a solver) ─► rewards ─► faults, by the domain's truth
          ▲                                                                       │ what was paid, the faulty first
          └────────── mutation, composition ◄─────────────────────────────────────┘

It plays episodes through the environment, the judges and the rewards of a run; only the policy and the prober are
others: a solver is played by how often a capable one gets the question right (`Adversary.reach`), with guesses by
chance.py. An *exploit* is a try with a fault that is paid all the same, or spared a punishment. Faults: those that the
domain names of what would be exported · `guessable`, solved by guessers alone · `overlong`, paid and solved by nobody
at all · `copied`, paid though something was paid before that asks the same, by the domain's truth · `undecided`, left
out of its group · `mislabelled`, an action under another stage · `idle_credit` and `blame`, process rewards that a turn
does not deserve.

Invariant: what is found depends on the seed and the code alone. Neither Ray nor an engine is needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from actors.chat import ChatFormat
from actors.committee import Committee
from actors.episode import Environment, mark_checks
from actors.execution import Executor
from actors.passk import estimate
from actors.sandbox_pool import SandboxPool
from actors.tools import SandboxTools
from actors.verifiers import make
from pipeline.config import Config
from pipeline.domains.base import Adversary, Attack, Domain
from pipeline.records import Episode, Failure, Outcome, Probe, Problem, Skill, Task, Turn
from pipeline.scoring import chance, rewards
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.summary import copies

EACH = 12
"""Members of each kind in the first generation."""
_BATCH = 64
_ELITE = 200
_SHOWN = 3
_UNPUNISHED = {"undecided", "mislabelled"}
"""Faults that spare an episode what it has earned: they need no pay to be an exploit."""


@dataclass(frozen=True)
class Try:
    attack: Attack
    paid: float
    accepted: bool
    exported: bool
    faults: frozenset[str]

    @property
    def exploit(self) -> bool:
        return bool(self.faults) and (self.paid > 0 or not self.faults.isdisjoint(_UNPUNISHED))


@dataclass
class Search:
    """What was tried so far."""

    tries: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    exported: Counter[str] = field(default_factory=Counter)
    of_kind: Counter[str] = field(default_factory=Counter)
    exploits: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Try]] = field(default_factory=dict)

    def take(self, found: Sequence[Try]) -> None:
        for t in found:
            kind = t.attack.kind
            self.tries += 1
            self.of_kind[kind] += 1
            self.accepted[kind] += t.accepted
            self.paid[kind] += t.paid > 0
            self.exported[kind] += t.exported
            if t.exploit:
                self.exploits[kind] += 1
                self.by_fault.update(t.faults)
                for fault in t.faults:
                    shown = self.examples.setdefault(fault, [])
                    shown.append(t)
                    shown.sort(key=lambda one: -one.paid)
                    del shown[_SHOWN:]

    def figures(self) -> dict[str, Any]:
        """Counts and shares, with examples as text."""
        n = max(self.tries, 1)
        return {
            "tries": self.tries,
            "accepted": sum(self.accepted.values()),
            "paid": sum(self.paid.values()),
            "exported": sum(self.exported.values()),
            "exploits": sum(self.exploits.values()),
            "exploit_share": sum(self.exploits.values()) / n,
            "by_fault": {fault: count / n for fault, count in sorted(self.by_fault.items())},
            "by_kind": {
                kind: {
                    "tries": tried,
                    "accepted": self.accepted[kind],
                    "paid": self.paid[kind],
                    "exported": self.exported[kind],
                    "exploits": self.exploits[kind],
                }
                for kind, tried in sorted(self.of_kind.items())
            },
            "examples": {fault: [_told(t) for t in found] for fault, found in sorted(self.examples.items())},
        }


def _told(t: Try) -> dict[str, Any]:
    a = t.attack
    told = {"kind": a.kind, "paid": round(t.paid, 3), "question": a.question, "answer": a.answer}
    return told | {"offered": list(a.offered), "dropped": list(a.dropped), "turns": list(a.turns)}


async def search(config: Config, domain: Domain, tries: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Try so many attacks. Raises Failure for a domain without a truth, or a committee that derives too little."""
    adversary = domain.adversary()
    pool = SandboxPool(slots=config.sandbox.slots, minimum=config.sandbox.minimum)
    try:
        judge = _Judge(config, domain, adversary, pool)
        rng, found, elite = Random(f"adversary {seed}"), Search(), list[Try]()
        waiting = adversary.first(rng, EACH)
        while found.tries < tries:
            size = min(_BATCH, tries - found.tries)
            batch, waiting = waiting[:size], waiting[size:]
            while len(batch) < size:
                batch.append(_child(adversary, elite, rng))
            results = await judge.judged(batch, found.tries)
            found.take(results)
            elite = _best([*elite, *results])
            if found.tries % (_BATCH * 16) < size:
                say(f"{found.tries} of {tries} tries, {sum(found.exploits.values())} exploits")
        return found.figures()
    finally:
        pool.close()


def _child(adversary: Adversary, elite: Sequence[Try], rng: Random) -> Attack:
    one, other = (rng.choice(elite).attack for _ in range(2))
    return adversary.composed(one, other, rng) if rng.random() < 0.25 else adversary.mutated(one, rng)


def _best(tried: Sequence[Try]) -> list[Try]:
    """Those to go on from, so many of each kind: exploits first, then what was accepted, the newest of equals."""
    kinds: dict[str, list[Try]] = {}
    for t in tried:
        kinds.setdefault(t.attack.kind, []).append(t)
    best, share = list[Try](), _ELITE // len(kinds)
    for found in kinds.values():
        found.reverse()
        ranked = sorted(found, key=lambda t: (not t.exploit, not t.accepted, -t.paid))
        best += ranked[:share]
    return best


class _Judge:
    """A run's own judges and rewards, in this process."""

    def __init__(self, config: Config, domain: Domain, adversary: Adversary, pool: SandboxPool):
        self._config, self._domain, self._adversary = config, domain, adversary
        self._sandbox = SimpleNamespace(
            **{name: SimpleNamespace(remote=getattr(pool, name)) for name in ("session_run", "close_session")}
        )
        executor = Executor(pool.run_batch)
        deriving = [v for v in config.committee.verifiers if getattr(v.load(), "derived", False)]
        verifiers = [make(v, i, executor, None) for i, v in enumerate(deriving)]
        if len(verifiers) < config.committee.required:
            raise Failure(
                f"audit-verifiers --adversary: {len(verifiers)} of committee.verifiers derive answers without a model; "
                f"expected committee.required ({config.committee.required}) or more"
            )
        self._committee = Committee.of(config.committee, verifiers)
        self._chat = ChatFormat(domain.model(config.proposer.path))
        self._seen = Register(domain.identity)
        self._paid_for: set[str] = set()

    async def judged(self, attacks: Sequence[Attack], before: int) -> list[Try]:
        """What becomes of the attacks of one step, in their order."""
        episodes = await asyncio.gather(*(self._played(a, before + i) for i, a in enumerate(attacks)))
        verdicts = await self._committee.judge_many([(e.submitted, e, e.active) for e in episodes if e.submitted])
        rest = iter(verdicts)
        judged = [Judged(e, next(rest) if e.submitted else None, None) for e in episodes]
        self._seen.fade(self._config.reward.memory)
        copied = copies(judged, self._seen)
        return [
            self._tried(a, j, j.key in copied, before + i) for i, (a, j) in enumerate(zip(attacks, judged, strict=True))
        ]

    async def _played(self, attack: Attack, number: int) -> Episode:
        """The attack as an episode, in the environment that a policy would meet."""
        skills = tuple(
            Skill(
                id=i, category=attack.category, intent="", method="", difficulty="", tool_hint="", score=1.0, source=""
            )
            for i in attack.offered
        )
        name = f"try-{number}"
        task = Task(id=name, group_id=name, category=attack.category, skills=skills, seed=number)
        limits = self._config.episode.limits
        environment = Environment(task, SandboxTools(self._sandbox), limits, self._domain.answer_kind, self._chat)
        turns: list[Turn] = []
        try:
            for words in attack.texts():
                answer = await environment.answer(words)
                turns.append(Turn(start=0, end=1, text=words, **vars(answer)))
            if environment.submitted is not None:
                await mark_checks(turns, environment.submitted, environment.again, limits.wall_s)
        finally:
            await environment.close()
        submitted = environment.submitted
        outcome = Outcome(kind="ok") if submitted else Outcome(kind="model_error", reason="no submission")
        return Episode(
            id=name, attempt=1, task=task, turns=tuple(turns), active=tuple(environment.active), submitted=submitted,
            outcome=outcome, policy_versions=(0,), prompt_tokens=0, sampled_tokens=1, wall_s=0.0,
        )  # fmt: skip

    def _tried(self, attack: Attack, j: Judged, copied: bool, number: int) -> Try:
        """What a step of MGPO makes of it, once the whole step is known, and what is wrong with that."""
        reward, problem = self._config.reward, j.problem
        paid, faults = 0.0, set[str]()
        if j.failed:
            faults.add("undecided")
        elif j.accepted and problem is not None:
            probe, reach, guess = self._probed(problem, number)
            j = Judged(j.episode, j.verdict, probe)
            paid = rewards.paid(j, copied, self._seen, reward)
            faults |= self._adversary.faults(attack, problem)
            if not reach:
                faults.add("guessable" if guess > 0 else "overlong")
            if paid > 0:
                asks = self._adversary.asks(problem.question)
                faults |= {"copied"} if asks in self._paid_for else set()
                self._paid_for.add(asks)
        if problem is not None and not j.failed:
            paid += self._undeserved(attack, j, faults)
        exported = j.solved and not copied and not self._domain.is_heldout(j.used)
        return Try(attack, paid, j.accepted, exported, frozenset(faults))

    def _probed(self, problem: Problem, number: int) -> tuple[Probe, float, float]:
        """As if a capable solver had been asked, who guesses where he cannot; how often he can; a guess's chance."""
        c, rng = self._config.prober, Random(f"probe {number}")
        reach = self._adversary.reach(problem.question)
        guess = chance.baseline(problem, self._domain.twins(problem.question))
        correct = sum(rng.random() < reach + (1 - reach) * guess for _ in range(c.n))
        probe = estimate(problem.id, correct, c.n - correct, 0, c.k, "reach")
        return chance.measured(probe, guess, self._config.reward), reach, guess

    def _undeserved(self, attack: Attack, j: Judged, faults: set[str]) -> float:
        """Process rewards above what the turns deserve; names them in `faults`."""
        process = rewards.process(j.episode, self._config.reward, j.verdict)
        more = 0.0
        first = len(attack.dropped) > 0
        for i in attack.idle:
            if process[i + first] > 0:
                faults.add("idle_credit")
                more += process[i + first]
        for i in attack.blameless:
            if process[i + first] < 0:
                faults.add("blame")
                more -= process[i + first]
        by_action = {"exec": "check", "submit": "finalize"}
        if any(by_action.get(turn.action, turn.stage) != turn.stage for turn in j.episode.turns):
            faults.add("mislabelled")
        return more
