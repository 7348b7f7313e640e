"""The figures of a run that Prometheus sees, by the part of a stage that they belong to: the one table of their names.

What `metrics.jsonl` calls `reward` of stage `mgpo` is `propose_step_reward{stage="mgpo"}`; `train/loss` of `mgpo-train`
is `propose_train_loss{stage="mgpo"}`; what stands behind a slash is the tag `of`: `propose_now_depth{of="proposer"}`. A
figure that is not in the table is a gauge too; boards and alerts name only what is in it.

Invariant: of one name there is one kind of metric, whoever shows it.
"""

from __future__ import annotations

import re

from actors.meters import OF_REPLICAS, Meter

TAGS = ("run", "stage", "job", "of")

_GAUGES: dict[str, dict[str, str]] = {
    "stage": {
        "running": "1 while the stage runs",
        "disk_free_bytes": "free on the disk of the run directory",
        "disk_bytes": "size of the disk of the run directory",
        "restarts": "times that it began again because a process was gone, or it stalled",
    },
    "now": {
        "depth": "tasks at each pool (of)",
        "oldest_s": "how long the oldest of them has been where it is",
        "quiet_s": "time since the last progress",
        "patience_s": "time without progress after which the watchdog ends the stage",
        "usd": "spent at an endpoint (of), in dollars",
        "budget_usd": "what may be spent at an endpoint (of)",
        "tokens": "spent at an endpoint (of), in tokens",
        "budget_tokens": "what may be spent at an endpoint (of)",
    },
    "step": {
        "accepted_rate": "share of episodes whose problem the committee accepted",
        "submitted_rate": "share of episodes that handed a problem in",
        "undecided_rate": "share of episodes that the committee could not judge",
        "duplicate_rate": "share of accepted problems that were seen before",
        "exec_error_rate": "share of tool calls that failed",
        "prune_rate": "share of episodes that dropped a skill",
        "unsolved_rate": "share of accepted problems that the prober never solved",
        "pass_at_k": "how often the prober solved an accepted problem",
        "difficulty": "1 - pass_at_k",
        "reward": "mean reward of an episode",
        "turns": "turns of an episode",
        "episodes": "episodes of the step",
        "failed": "episodes of the step that infrastructure or data failed",
        "retries": "attempts of the step after the first",
        "sampled_tokens_per_s": "sampled in the step",
        "rollout_s": "time to sample and judge the step",
        "hard_yield_per_1k": "hard accepted problems for a thousand episodes",
        "tokens_per_problem": "sampled for a row of the data set, by proposer and probers",
        "seconds_per_problem": "time for a row of the data set",
        "usd_per_problem": "spent at endpoints for a row of the data set",
        "left_s": "until the first target of synthesis is reached, at this pace",
        "canaries_leaked": "secrets that were about to be shown to a judge",
        "staleness": "rollouts by how many versions old they are (of)",
    },
    "ledger": {"live": "attempts under way"},
    "train": {
        "loss": "of the objective",
        "entropy": "of the policy",
        "engine_kl": "divergence of the trainer's probabilities from the engine's",
        "ref_kl": "divergence of the policy from the reference",
        "lr": "learning rate",
        "workers": "of the trainer, each with the GPU that it holds",
        "tokens_per_s": "of the trainer",
        "time": "seconds of a step by what they went to (of)",
        "degenerate_groups": "groups without a difference to learn from",
    },
    "weights": {
        "sync_s": "from a version's publication to its use everywhere",
        "held_s": "how long generation stood still for it",
        "replicas": "that serve the newest version",
    },
}
_COUNTERS: dict[str, dict[str, str]] = {
    "now": {"lost_s": "task-seconds of calls whose replica's process was gone, at a pool (of)"},
    "ledger": {
        "issued": "attempts begun",
        "trained": "attempts that were trained on",
        "filtered": "attempts that were judged and are not trained on",
        "failed": "attempts that infrastructure or data failed",
        "interrupted": "attempts that an interrupt cut off",
        "not_needed": "attempts that were under way when their stage had enough",
        "tasks": "tasks begun",
    },
}


def _made() -> dict[tuple[str, str], Meter]:
    tables = (("gauge", _GAUGES), ("counter", _COUNTERS))
    return {
        (part, family): Meter(f"propose_{part}_{family}", kind, tells, TAGS)  # type: ignore[arg-type]
        for kind, table in tables
        for part, families in table.items()
        for family, tells in families.items()
    }


FIGURES = _made()
ALL = (*FIGURES.values(), *OF_REPLICAS)
"""Every metric of the project's own that boards and alerts may name."""


def meter_of(label: str, figure: str) -> tuple[str, Meter, str]:
    """(stage, meter, `of`) of a figure, as `metrics.jsonl` labels and names it."""
    stage, _, part = label.partition("-")
    part = part or ("train" if stage == "sft" else "step")  # sft's steps are its trainer's
    family, _, of = (figure.removeprefix("train/") if part == "train" else figure).partition("/")
    if part == "now" and (("ledger", family) in FIGURES):
        part = "ledger"
    return stage, FIGURES.get((part, family)) or _unlisted(part, family), of


def _unlisted(part: str, family: str) -> Meter:
    name = re.sub(r"\W", "_", f"propose_{part}_{family}")
    return Meter(name, "gauge", "as in metrics.jsonl", TAGS)
