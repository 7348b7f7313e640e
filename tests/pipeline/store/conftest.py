"""For tests of a mirror: a machine that is in a hurry."""

import pytest

from pipeline.store import mirror, remote


@pytest.fixture
def impatient(monkeypatch):
    """Beats and pauses as short as they can be."""
    monkeypatch.setattr(remote, "_PAUSE_S", 0.001)
    monkeypatch.setattr(mirror, "_AGAIN_S", 0.001)
