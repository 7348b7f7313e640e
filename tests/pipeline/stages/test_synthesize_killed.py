"""Synthesis, killed at any moment, twenty times: every file that is there is whole, and the data set is in the end that
of a run that nobody disturbed."""

import multiprocessing
import random
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.commands import dataset
from pipeline.dataset import folder
from pipeline.store import accounts
from pipeline.store.rundir import RunDir
from tests.pipeline.stages.test_synthesize import Pools, by_hand, problems, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TARGET = 60
KILLS = 20


def number(n):
    return n // 2


def work(root):
    run(Path(root), Pools(number), TARGET)


def rows(found):
    return [(row["question"], row["answer"]) for row in found]


def whole_files(root):
    for path in root.rglob("*.parquet"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            pq.read_table(path)


def test_nothing_is_lost_or_doubled(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    root, rng, kills, longest = tmp_path / "run", random.Random(27), 0, 1.0
    expected = rows(by_hand(number, TARGET))
    while kills < KILLS:
        process, begun = context.Process(target=work, args=(str(root),)), time.monotonic()
        process.start()
        process.join(rng.uniform(0.0, longest))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        longest = max(longest, 1.2 * (time.monotonic() - begun))
        if not (root / "config.yaml").is_file():
            continue
        whole_files(root)
        if (root / "steps" / "synthesize").is_dir():
            so_far = [(p.question, p.answer) for p in dataset.problems_of(root)]
            assert so_far == expected[: len(so_far)]
        if (root / "dataset").is_dir():
            assert rows(folder.rows_of(root)) == expected, "a data set is there whole or not at all"
    work(root)
    assert rows(problems(root)) == expected and len({q for q, _ in expected}) == TARGET
    found = accounts.audit(RunDir.look(root))["findings"]
    assert [line for line in found if not line.startswith("mgpo")] == [], "mgpo's step is a name alone here"
