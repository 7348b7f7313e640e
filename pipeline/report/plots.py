"""Which metrics the report plots, by stage. A new metric is shown by one more entry."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records import COGNITIVE_STAGES


@dataclass(frozen=True)
class Plot:
    """Curves of one stage's metrics over its steps."""

    title: str
    series: tuple[tuple[str, str], ...]
    """(metric, label) of each curve."""
    caption: str
    percent: bool = False
    zero: bool = True


MGPO = (
    Plot("Hard yield", (("hard_yield_per_1k", "hard yield"), ("solved_yield_per_1k", "of what the prober solves")),
         "Accepted problems, each weighted by 1 − Pass@k, per 1,000 sampled tokens: valid and hard, for its cost. The "
         "second curve leaves out those that no prober solves above chance, as the reward does."),
    Plot("Validity", (("accepted_rate", "accepted"), ("submitted_rate", "submitted"), ("undecided_rate", "undecided")),
         "Share of episodes.", percent=True),
    Plot("Difficulty", (("difficulty", "1 − Pass@k"), ("solved_difficulty", "1 − ρ, of what is solved")),
         "Mean over accepted problems, as the prober finds them. The second curve is what the reward pays for: above "
         "chance, and without what no prober solves.", percent=True),
    Plot("Probes", (("probe_samples", "samples"), ("probe_samples_spared", "not asked for")),
         "Samples that measure difficulty, and those that were not needed because the problem is easy."),
    Plot("Reward", (("reward", "terminal reward"),), "Mean terminal reward of the episodes trained on.", zero=False),
    Plot("How it works", (("prune_rate", "dropped a skill"), ("exec_error_rate", "failing code"),
                          ("duplicate_rate", "duplicates")),
         "Share of episodes, of exec calls, of accepted problems.", percent=True),
    Plot("Nothing new", (("skeleton_top_share", "share of the commonest skeleton"),
                         ("skeleton_entropy", "entropy of skeletons"), ("near_duplicates", "copies within the step")),
         "A skeleton is a problem without its numbers, names and wordings. Entropy is 1 where all differ; a fall, "
         "or a rise of the others, is a proposer that has found one thing that pays.", percent=True),
    Plot("What nobody solves, what a guess solves", (("unsolved_rate", "unsolved"), ("guessable_rate", "guessable")),
         "Of accepted problems: solved above chance by no prober, and right one time in two by guessing.",
         percent=True),
    Plot("Committee on trial", (("planted", "spoiled on purpose"), ("planted_accepted", "accepted all the same")),
         "Problems with a known defect, judged among the others: the second curve should stay at zero."),
    Plot("Turns", (("turns", "turns"),), "Mean turns of an episode."),
    Plot("Trainer: loss", (("train/loss", "loss"),), "", zero=False),
    Plot("Trainer: KL", (("train/ref_kl", "to the reference"), ("train/engine_kl", "to the sampling engine")),
         "The first is how far the policy has moved; the second is engine against trainer."),
    Plot("Trainer: gate", (("train/gate", "mean gate"), ("train/gate_below_1", "acts (gate < 0.99)"),
                           ("train/gate_saturated", "saturated (gate < ½)")),
         "The asymmetric gate of the objective, over tokens. It acts where the policy has moved since it sampled: with "
         "mini-batches, several passes or staleness.", percent=True),
    Plot("Trainer: gradient", (("train/grad_norm", "norm before clipping"),), "", zero=True),
    Plot("Trainer: discouraged", tuple((f"train/discouraged/{s}", s) for s in COGNITIVE_STAGES),
         "Share of the tokens of each cognitive stage whose weight is negative.", percent=True),
    Plot("Trainer: nothing to prefer", (("train/degenerate_groups", "groups with equal rewards"),
                                        ("train/stage_advantage_zero", "actions without a stage advantage")),
         "Where the advantages are zero by definition, and a step teaches nothing.", percent=True),
    Plot("Trainer: stage advantage", tuple((f"train/stage_advantage/{s}_rms", s) for s in COGNITIVE_STAGES),
         "Root mean square of A_S, by cognitive stage.", zero=True),
    Plot("Trainer: length", (("train/response_tokens", "tokens"),), "The agent's own tokens of an episode."),
    Plot("Trainer: entropy", (("train/entropy", "entropy"),), "Nats a token."),
    Plot("Speed", (("sampled_tokens_per_s", "tokens/s"),),
         "Sampled tokens a second of rollout, tools and judges included."),
)  # fmt: skip
SFT = (Plot("Loss", (("loss", "loss"),), "Negative log-likelihood of the agent's own tokens."),)
SOLVE = (
    Plot("Accuracy in training", (("reward", "reward"),), "Share of right answers on the data set's problems.",
         percent=True),
    Plot("Length", (("response_tokens", "tokens"),), "Tokens of an answer."),
    Plot("Loss", (("train/loss", "loss"),), "", zero=False),
    Plot("Groups", (("groups", "asked"), ("groups_that_teach", "of them both right and wrong")),
         "With solve.refill others are asked in place of those that are all right or all wrong."),
    Plot("Clipped", (("train/clip_share", "tokens"), ("train/grad_clipped", "gradients")),
         "Share of tokens whose ratio is clipped, and of updates whose gradient is cut to trainer.grad_clip.",
         percent=True),
    Plot("Gradient", (("train/grad_norm", "norm before clipping"),), ""),
)  # fmt: skip
