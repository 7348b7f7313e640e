"""A corpus that streams through `acquire`, killed three times on its way (tests/benchmarks/bench_acquire.py; by hand
with a gigabyte): the library is what the documents say, whoever was killed, and memory stays where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.bench_acquire import measured

MEGABYTES = 64


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_corpus_streams_through_and_ends_with_the_same_library_after_three_kills(tmp_path: Path) -> None:
    found = measured(tmp_path, MEGABYTES, kills=3, chars=100_000)
    print(found)
    assert found["killed"] == [-9] * 3
    assert found["as_expected"] and found["same_library"] and found["same_candidates"]
    assert found["calls_of_second_run"] <= 1  # of preflight
    assert max(found["peak_mb"]) < 1000
    assert found["shards"] <= found["documents"] // 32 + 1
