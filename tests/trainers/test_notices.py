"""A trainer looks for notices that a node is about to go: all ranks together, now and then; once told, it stays so, and
a rank that loses another one waits for what was announced."""

from __future__ import annotations

from types import SimpleNamespace
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
    notices = loop.Notices(Ranks(0, 1, torch.device("cpu")))
    found = []
    for second in range(12):
        ray_says["now"] = 100.0 + second
        ray_says["info"] = "node" if second >= 3 else None
        found.append(notices.given())
    assert found == [False] * 5 + [True] * 7 and ray_says["asked"] == 2


def test_another_rank_asks_when_the_first_does_whatever_its_clock_says(ray_says: dict[str, Any]) -> None:
    """Asking is a barrier: a rank that asked alone would wait for ever."""
    ANSWERS[:] = [False, True, False, True]
    notices = loop.Notices(Counted(1, 1, torch.device("cpu")))
    asked = []
    for _ in range(4):
        notices.given()
        asked.append(ray_says["asked"])
    assert asked == [0, 1, 1, 2]


@pytest.mark.parametrize(("deadline_ms", "waits_s"), [(130_000, 30 + 5), (None, 120 + 5), (90_000, 5)])
def test_a_rank_that_loses_another_after_a_notice_fails_when_that_node_is_gone(
    ray_says: dict[str, Any], monkeypatch: pytest.MonkeyPatch, deadline_ms: int | None, waits_s: float
) -> None:
    notices = loop.Notices(Ranks(0, 1, torch.device("cpu")))
    monkeypatch.setattr(loop.time, "time", lambda: 100.0)
    assert notices.until_gone_s() == 0, "without a notice it fails at once"
    ray_says["info"] = SimpleNamespace(deadline_ms=deadline_ms)
    assert notices.given() and notices.until_gone_s() == waits_s
