"""What came of one task: its episode, the committee's verdict on it, and the prober's probe."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records import Episode, Probe, Problem, Verdict


@dataclass(frozen=True)
class Judged:
    episode: Episode
    verdict: Verdict | None
    """None if nothing was submitted, or the episode failed."""
    probe: Probe | None
    """None unless the verdict is accepted and probing was asked for."""

    @property
    def key(self) -> tuple[str, int]:
        return self.episode.id, self.episode.attempt

    @property
    def accepted(self) -> bool:
        return self.verdict is not None and self.verdict.accepted

    @property
    def problem(self) -> Problem | None:
        """What was submitted; once it is accepted, with the answer in the form that the committee gives it."""
        submitted, verdict = self.episode.submitted, self.verdict
        if submitted is None or verdict is None or verdict.answer is None:
            return submitted
        return submitted.model_copy(update={"answer": verdict.answer})

    @property
    def solved(self) -> bool:
        """Accepted, and a prober solves it above chance, where it was probed: a success."""
        return self.accepted and (self.probe is None or self.probe.solved)

    @property
    def used(self) -> tuple[str, ...]:
        """Skills that the problem uses, as the verifiers read it; where none can tell, those that were active."""
        told = self.verdict.used_skills if self.verdict else None
        return self.episode.active if told is None else told

    @property
    def failed(self) -> bool:
        """No reward can be derived: infrastructure failed, or the committee could not decide."""
        undecided = self.verdict is not None and self.verdict.decision == "undecided"
        return undecided or self.episode.outcome.kind not in ("ok", "model_error")

    @property
    def failed_by_infra(self) -> bool:
        """Failed in all attempts, and not because of what the model or the data were."""
        lost = self.verdict is not None and lacks_votes(self.verdict)
        return lost or self.episode.outcome.kind == "infra_error"


def lacks_votes(verdict: Verdict) -> bool:
    """Undecided because votes were lost to infrastructure."""
    return verdict.decision == "undecided" and any(vote.outcome.kind == "infra_error" for vote in verdict.votes)
