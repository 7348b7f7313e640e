"""What a set of judged episodes amounts to: rates, difficulty and yield, as the report and the metrics name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from pipeline.records import Episode, Failure
from pipeline.scoring import chance
from pipeline.scoring.agreement import judges_kappa
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.store.ledger import End, Key


def pruned(episode: Episode) -> bool:
    """The agent dropped at least one of the skills it was offered."""
    return len(episode.active) < len(episode.task.skills)


def copies(
    judged: Iterable[Judged], seen: Register, counts: Callable[[Judged], bool] = lambda j: j.accepted
) -> set[Key]:
    """The episodes that count (the accepted ones) whose problem was seen before. `seen` grows by the others: of several
    episodes with one problem, the first in this order is no copy."""
    found = set()
    for j in judged:
        if counts(j) and j.problem:
            identity = seen.identify(j.problem.question)
            if seen.known(identity):
                found.add(j.key)
            seen.add(identity)
    return found


def summarize(judged: Sequence[Judged], copied: Collection[Key] = ()) -> dict[str, float]:
    """Metrics of one step (names as in metrics.jsonl). Failed episodes are counted, and left out of every rate. An
    episode in `copied` counts as valid and adds nothing to the yield.

    `solved_yield_per_1k` is the hard yield of what a prober solves above chance, as the reward counts, and
    `solved_difficulty` the mean of what it pays for; `unsolved_rate` says how many of the accepted none does, for which
    rho says nothing, `guessable_rate` how many a guess gets right one time in two. `rate_width` is the mean width of
    the 95 % interval of the prober's rate.
    `judges_kappa` is how far verifiers agree beyond chance, and not there where one of them always says the same."""
    played = [j for j in judged if not j.failed]
    accepted = [j for j in played if j.accepted]
    probes = [j.probe for j in accepted if j.probe]
    rho = [p.pass_at_k for p in probes]
    own = [j.probe for j in accepted if j.probe and j.key not in copied]
    sampled = sum(j.episode.sampled_tokens for j in played)
    turns = [t for j in played for t in j.episode.turns]
    repeated = [t for t in turns if "repeated" in t.notes]
    execs = [t for j in played for t in j.episode.turns if t.action == "exec" and t.tool]
    return {
        "episodes": len(judged),
        "failed": len(judged) - len(played),
        "submitted_rate": mean([float(j.episode.submitted is not None) for j in played]),
        "accepted_rate": mean([float(j.accepted) for j in played]),
        "undecided_rate": mean([float(j.verdict is not None and j.verdict.decision == "undecided") for j in judged]),
        "pass_at_k": mean(rho),
        "difficulty": mean([1 - r for r in rho]),
        "hard_yield_per_1k": 1000 * sum(1 - p.pass_at_k for p in own) / max(sampled, 1),
        "solved_yield_per_1k": 1000 * sum(chance.difficulty(p) for p in own if p.solved) / max(sampled, 1),
        "solved_difficulty": mean([chance.difficulty(p) for p in probes if p.solved]),
        "unsolved_rate": mean([float(not p.solved) for p in probes]),
        "guessable_rate": mean([float(p.chance >= 0.5) for p in probes]),
        "pass_rate": mean([p.rate for p in probes]),
        "rate_width": mean([p.rate_high - p.rate_low for p in probes]),
        "probe_samples": sum(p.n + sum(w.judged + w.unknown for w in p.weaker) for p in probes),
        "probe_samples_spared": sum(p.spared for p in probes),
        "probe_tokens": sum(p.tokens + sum(w.tokens for w in p.weaker) for p in probes),
        "probe_tokens_spared": sum(p.tokens_spared for p in probes),
        "prune_rate": mean([float(pruned(j.episode)) for j in played]),
        "turns": mean([float(len(j.episode.turns)) for j in played]),
        "sampled_tokens": sampled,
        "exec_error_rate": mean([float(t.tool.status != "ok") for t in execs if t.tool]),
        "repaired_calls": sum(bool(t.repairs) for j in played for t in j.episode.turns),
        "malformed_calls": sum(
            t.tool is not None and t.tool.status == "malformed" for j in played for t in j.episode.turns
        ),
        "headless_turns": sum("no header" in t.notes for t in turns),
        "repeated_turns": len(repeated),
        "repeated_tokens": sum(t.end - t.start for t in repeated),
        "duplicate_rate": len(copied) / max(len(accepted), 1),
        **judges_kappa(j.verdict for j in played if j.verdict),
    }


def staleness(judged: Sequence[Judged], step: int) -> dict[str, float]:
    """Histogram: how many rollouts have a token that is so many versions older than the policy that step `step` trains
    (`step` - 1), by their oldest token. {"staleness/0": n, "staleness/1": n, ...}"""
    ages = Counter(step - 1 - j.episode.policy_versions[0] for j in judged if j.episode.policy_versions)
    return {f"staleness/{age}": float(n) for age, n in sorted(ages.items())}


def raise_if_all_failed(stage: str, judged: Sequence[Judged]) -> None:
    """A step of which nothing could be judged has no meaning: raises Failure with the commonest cause."""
    if judged and all(j.failed for j in judged):
        raise Failure(
            f"{stage}: all {len(judged)} episodes of a step failed; {commonest_failure(judged)}", "infra_error"
        )


def commonest_failure(judged: Sequence[Judged]) -> str:
    """Why most of those that failed did: "<n> of them: <reason>"."""
    reasons = Counter(j.verdict.reason if j.verdict else j.episode.outcome.reason for j in judged if j.failed)
    return "".join(f"{count} of them: {reason}" for reason, count in reasons.most_common(1))


def ends(judged: Sequence[Judged], trained: Iterable[Key]) -> dict[Key, End]:
    """The end of each episode of a step. Raises Failure if one is to be trained that failed or was not played."""
    found: dict[Key, End] = {j.key: "failed" if j.failed else "filtered" for j in judged}
    for key in trained:
        if found.get(key) != "filtered":
            raise Failure(f"ledger: {key[0]} (attempt {key[1]}) cannot be trained: it is {found.get(key, 'unknown')}")
        found[key] = "trained"
    return found
