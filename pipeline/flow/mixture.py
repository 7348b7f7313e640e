"""Problems to train on, of one source or of several with weights, in an order that is known beforehand.

Invariant: what stands at a position depends on the sources and the position alone, so that a run that was killed goes
on where it was. Within a source problems come in seeded epochs, each once an epoch. A source is never a whole problem
ahead of its share: a small one with a large weight is repeated, a large one with a small weight not read to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from pipeline.records import Problem


@dataclass(frozen=True)
class Source:
    name: str
    weight: float
    problems: Sequence[Problem]


class Mixture:
    def __init__(self, sources: Sequence[Source], rng: Callable[..., Random]):
        """`rng`: a generator by names and numbers."""
        self._sources, self._rng = sources, rng
        whole = sum(source.weight for source in sources)
        self._shares = [source.weight / whole for source in sources]
        self._given = [0] * len(sources)
        self._turns: list[tuple[int, int]] = []
        """Position -> (source, how many it has given before)."""
        self._orders: dict[int, tuple[int, list[int]]] = {}
        """Source -> (epoch, order), of the latest epoch that was asked for."""

    def at(self, position: int) -> Problem:
        while len(self._turns) <= position:
            behind = [
                share * (len(self._turns) + 1) - given for share, given in zip(self._shares, self._given, strict=True)
            ]
            source = behind.index(max(behind))
            self._turns.append((source, self._given[source]))
            self._given[source] += 1
        source, number = self._turns[position]
        problems = self._sources[source].problems
        epoch, index = divmod(number, len(problems))
        return problems[self._order(source, epoch)[index]]

    def asked(self, count: int) -> dict[str, int]:
        """How many of the first so many problems are of each source."""
        if count:
            self.at(count - 1)
        return {source.name: sum(of == i for of, _ in self._turns[:count]) for i, source in enumerate(self._sources)}

    def _order(self, source: int, epoch: int) -> list[int]:
        known = self._orders.get(source)
        if known is None or known[0] != epoch:
            order = list(range(len(self._sources[source].problems)))
            self._rng("solve", "epoch", epoch, *(("source", source) if source else ())).shuffle(order)
            known = self._orders[source] = (epoch, order)
        return known[1]
