"""For all tests: no example of hypothesis has a deadline, because a busy machine is no failure; and what a test starts
can be interrupted, though a shell's background job, which the tests may be, hands its children SIGINT ignored.

The whole pipeline goes first: it takes longest, and where two files run at a time nothing waits for it at the end.
"""

import signal

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)
