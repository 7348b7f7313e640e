"""Problems of several sources: each as often as its weight says, in an order that positions alone decide."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.mixture import Mixture, Source
from pipeline.records import Problem


def rng(*names):
    return Random(repr(names))


def source(name, size, weight=1.0):
    return Source(name, weight, [Problem.make(f"{name} {i}?", "1") for i in range(size)])


def of(problem):
    return problem.question.split()[0]


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 9)), min_size=1, max_size=6), st.integers(1, 300))
def test_shares_hold_from_the_first_problem_on(given_, count):
    sources = [source(f"s{i}", size, weight) for i, (weight, size) in enumerate(given_)]
    mixture = Mixture(sources, rng)
    seen, whole = Counter(), sum(weight for weight, _ in given_)
    for position in range(count):
        seen[of(mixture.at(position))] += 1
        for s in sources:
            share = s.weight / whole * (position + 1)
            assert share - len(sources) < seen[s.name] < share + 1
    assert mixture.asked(count) == {s.name: seen[s.name] for s in sources}


def test_a_source_is_read_in_epochs_and_another_order_each():
    mixture = Mixture([source("a", 6, 2), source("b", 50)], rng)
    asked = [mixture.at(i) for i in range(90)]
    a = [p for p in asked if of(p) == "a"]
    epochs = [a[i : i + 6] for i in range(0, 60, 6)]
    assert all(len(set(epoch)) == 6 for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 5
    b = [p for p in asked if of(p) == "b"]
    assert len(b) == 30 == len(set(b))


def test_a_position_is_what_it_is_whatever_was_asked_before():
    sources = [source("a", 5, 3), source("b", 7), source("c", 2, 0.5)]
    whole = [Mixture(sources, rng).at(i) for i in range(100)]
    mixture = Mixture(sources, rng)
    places = list(range(100))
    Random(1).shuffle(places)
    assert [mixture.at(i) for i in places] == [whole[i] for i in places]
    assert [Mixture(sources, rng).at(99)] == whole[99:]


def test_one_source_is_its_seeded_epochs():
    (a,) = [source("a", 8)]
    order = list(range(8))
    rng("solve", "epoch", 1).shuffle(order)
    mixture = Mixture([a], rng)
    assert [mixture.at(8 + i) for i in range(8)] == [a.problems[i] for i in order]
