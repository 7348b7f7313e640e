"""The curriculum of probers: when the current one is too weak to tell hard from impossible, the next takes over.

A pure state machine: `observe` takes the state and one probe and returns the next state, with the switch if there was
one. The caller saves the state with the run and logs the switch.

Rule (the paper gives the average every 500 problems and the 30 %; the rest is our choice): accuracy is the share of
right answers among the judged samples of a window of `window` problems. The first window of a prober sets its average,
each later one moves it by `ema`. A probe that ended early stands for as many samples as any other, else easy problems
would count less. The average has settled when a window moves it by less than `settled`. A prober whose
average has settled below `threshold` hands over; the next starts with an empty average. The last one stays.
Probes made by another prober than the current one (in flight during a switch) say nothing about it and are ignored.
"""

from __future__ import annotations

from pipeline.config import ProberConfig
from pipeline.records import Attempts, Probe, Record


class Ladder(Record):
    """Where the curriculum of probers stands."""

    rung: int = 0
    """Index of the current prober in `config.ladder`."""
    average: float | None = None
    """Accuracy average of the current prober; None before its first full window."""
    problems: int = 0
    """Problems in the open window."""
    correct: int = 0
    judged: int = 0


class Switch(Record):
    """A stronger prober took over."""

    from_prober: str
    to_prober: str
    average: float


def prober(state: Ladder, config: ProberConfig) -> str:
    """Name of the prober to use now."""
    return config.ladder[state.rung].path


def observe(state: Ladder, probe: Probe, config: ProberConfig) -> tuple[Ladder, Switch | None]:
    """Count one probe; at the end of a window move the average and switch if it has settled too low."""
    own = Attempts(prober=probe.prober, correct=probe.correct, judged=probe.n - probe.unknown)
    if probe.spared:
        own = own.model_copy(update={"correct": round(probe.rate * config.n), "judged": config.n})
    attempts = (*probe.weaker, own)[0]
    if attempts.prober != prober(state, config):  # of what a weaker one has failed, the current one sees too little
        return state, None
    state = state.model_copy(
        update={
            "problems": state.problems + 1,
            "correct": state.correct + attempts.correct,
            "judged": state.judged + attempts.judged,
        }
    )
    if state.problems < config.window:
        return state, None

    accuracy = state.correct / max(state.judged, 1)
    before = state.average
    average = accuracy if before is None else before + config.ema * (accuracy - before)
    settled = before is not None and abs(average - before) < config.settled
    if settled and average < config.threshold and state.rung + 1 < len(config.ladder):
        successor = Ladder(rung=state.rung + 1)
        switch = Switch(from_prober=prober(state, config), to_prober=prober(successor, config), average=average)
        return successor, switch
    return Ladder(rung=state.rung, average=average), None
