import pytest

from actors.passk import estimate
from pipeline.config import ModelConfig
from pipeline.records import Attempts
from pipeline.skills.probing import Ladder, observe, prober
from tests.mini import MINI, changed

CONFIG = changed(
    MINI.prober,
    n=4,
    k=2,
    window=3,
    ema=0.5,
    settled=0.05,
    threshold=0.3,
    ladder=(ModelConfig(path="small"), ModelConfig(path="large")),
)


def probes(name, *correct, unknown=0):
    return [estimate(f"p{i}", c, 4 - c - unknown, unknown, 2, name) for i, c in enumerate(correct)]


def run(state, probes):
    switches = []
    for probe in probes:
        state, switch = observe(state, probe, CONFIG)
        switches += [switch] if switch else []
    return state, switches


def test_nothing_happens_within_a_window():
    state, switches = run(Ladder(), probes("small", 0, 0))
    assert (state.average, state.problems, switches) == (None, 2, [])


def test_average_starts_at_the_first_window_and_then_moves_by_ema():
    state, _ = run(Ladder(), probes("small", 4, 4, 4))
    assert state.average == 1.0
    state, _ = run(state, probes("small", 2, 2, 2))
    assert state.average == pytest.approx(0.75)
    assert (state.problems, state.correct, state.judged) == (0, 0, 0)


def test_a_low_average_that_still_moves_does_not_switch():
    state, _ = run(Ladder(), probes("small", 2, 2, 2))
    state, switches = run(state, probes("small", 0, 0, 0))  # 0.50 -> 0.25: low, but moving
    assert state.average == pytest.approx(0.25) and not switches


def test_settled_below_the_threshold_hands_over_once_and_starts_anew():
    state, switches = run(Ladder(), probes("small", 1, 1, 1) * 2)  # 0.25, 0.25
    (switch,) = switches
    assert (switch.from_prober, switch.to_prober, switch.average) == ("small", "large", pytest.approx(0.25))
    assert state == Ladder(rung=1)
    assert prober(state, CONFIG) == "large"


def test_settled_above_the_threshold_stays():
    state, switches = run(Ladder(), probes("small", 2, 2, 2) * 4)
    assert not switches and state.rung == 0


def test_the_last_rung_stays():
    state, switches = run(Ladder(rung=1), probes("large", 0, 0, 0) * 4)
    assert not switches and state.rung == 1


def test_probes_of_another_prober_are_ignored():
    state, switches = run(Ladder(rung=1), probes("small", 0, 0, 0, 0))
    assert state == Ladder(rung=1) and not switches


def test_unknown_samples_are_in_neither_count():
    state, _ = run(Ladder(), probes("small", 2, 2, unknown=2))
    assert (state.correct, state.judged) == (4, 4)


def test_state_survives_being_saved():
    state, _ = run(Ladder(), probes("small", 1, 2, 3, 1))
    assert Ladder.model_validate_json(state.model_dump_json()) == state


def test_a_problem_that_a_stronger_prober_solved_counts_as_the_current_one_did():
    """Else the current one would only be seen where it succeeds, and never hand over."""
    (probe,) = probes("large", 4)
    weaker = (Attempts(prober="small", correct=1, judged=4),)
    state, _ = observe(Ladder(), probe.model_copy(update={"weaker": weaker}), CONFIG)
    assert (state.problems, state.correct, state.judged) == (1, 1, 4)
    assert observe(Ladder(), probe, CONFIG)[0] == Ladder()


def test_probes_that_ended_early_weigh_as_much_as_others():
    """Two of three problems are solved each time and ended after half of their samples: the average is 2/3, not 1/2."""
    early = estimate("p", 2, 0, 0, 2, "small").model_copy(update={"spared": 2})
    state, _ = run(Ladder(), [early, *probes("small", 0), early])
    assert state.average == pytest.approx(2 / 3)
