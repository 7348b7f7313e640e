"""Episodes, verdicts and rollouts for tests of what the driver does with them."""

import numpy as np

from pipeline.records import Episode, Outcome, Probe, Problem, Rollout, Skill, Task, Turn, Verdict

SKILLS = tuple(
    Skill(id=n, category="maths", intent="i", method="m", difficulty="d", tool_hint="t", score=0.9, source="s")
    for n in ("first", "second")
)


def task(name="g-00", group="g", seed=7):
    return Task(id=name, group_id=group, category="maths", skills=SKILLS, seed=seed)


def episode(of=None, attempt=1, question="What is 1 + 1?", answer="2", outcome=None, turns=1, active=None):
    """One that submitted, unless `question` is None or it has another outcome."""
    of = of or task()
    return Episode(
        id=of.id, attempt=attempt, task=of,
        turns=(Turn(stage="finalize", action="submit", start=0, end=1, text="t"),) * turns,
        active=tuple(s.id for s in SKILLS) if active is None else active,
        submitted=Problem.make(question, answer) if question is not None and outcome is None else None,
        outcome=outcome or Outcome(kind="ok"), policy_versions=(0,), prompt_tokens=1, sampled_tokens=10, wall_s=0.1,
    )  # fmt: skip


def verdict(of, decision="accepted"):
    return Verdict(problem_id=of.submitted.id, votes=(), flags=(), decision=decision, reason="")


def probe(of, pass_at_k=0.5):
    return Probe(
        problem_id=of.submitted.id, n=8, correct=4, k=4, pass_at_k=pass_at_k, low=0.1, high=0.9, prober="mini:solver"
    )


def rollout(name="g-00", attempt=1, group="g", tokens=4, actions=1):
    rng = np.random.default_rng(tokens)
    return Rollout(
        episode_id=name, attempt=attempt, group_id=group,
        token_ids=tuple(int(t) for t in rng.integers(0, 100, tokens)), loss_mask=(1,) * tokens,
        logprobs=(-0.5,) * tokens, versions=(0,) * tokens,
        action_index=tuple(min(i, actions - 1) for i in range(tokens)),
        action_stage=(0,) * actions, action_kind=(0,) * actions,
        process_rewards=(0.0,) * actions, terminal_reward=0.0,
    )  # fmt: skip


class Remote:
    """A coroutine function as a handle's method: `.remote(...)`, and a record of the calls."""

    def __init__(self, function):
        self._function, self.calls = function, []

    def remote(self, *args):
        self.calls.append(args)
        return self._function(*args)
