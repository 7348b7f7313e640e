"""A trainer looks for notices that a node is about to go: all ranks together, now and then; once told, it stays so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainers import loop
from trainers.ranks import Ranks


class Counted(Ranks):
    """Ranks whose first says what another rank is told."""

    def first(self, make: Any) -> Any:
        return ANSWERS.pop(0) if self.rank else super().first(make)


ANSWERS: list[bool] = []


@pytest.fixture
def ray_says(monkeypatch: pytest.MonkeyPatch) -> Any:
    told: dict[str, Any] = {"info": None, "asked": 0, "now": 100.0}

    def info() -> Any:
        told["asked"] += 1
        return told["info"]

    monkeypatch.setattr(loop.ray.train, "get_preemption_info", info)
    monkeypatch.setattr(loop.time, "monotonic", lambda: told["now"])
    return told


def test_it_is_asked_now_and_then_and_a_notice_stays(ray_says: dict[str, Any]) -> None:
    noticed = loop._notices(Ranks(0, 1, torch.device("cpu")))
    found = []
    for second in range(12):
        ray_says["now"] = 100.0 + second
        ray_says["info"] = "node" if second >= 3 else None
        found.append(noticed())
    assert found == [False] * 5 + [True] * 7 and ray_says["asked"] == 2


def test_another_rank_asks_when_the_first_does_whatever_its_clock_says(ray_says: dict[str, Any]) -> None:
    """Asking is a barrier: a rank that asked alone would wait for ever."""
    ANSWERS[:] = [False, True, False, True]
    noticed = loop._notices(Counted(1, 1, torch.device("cpu")))
    asked = []
    for _ in range(4):
        noticed()
        asked.append(ray_says["asked"])
    assert asked == [0, 1, 1, 2]
