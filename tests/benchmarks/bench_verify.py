"""What digests cost: of a step while it is written, and of a whole run when it is verified.

    python -m tests.benchmarks.bench_verify [--rollouts 1000000] [--run DIR]

A synthetic MGPO run of `--rollouts` rollouts of 500 tokens, 128 a step, with as many figures a step as a real one, is
written and then verified; with `--run` it is kept there, and one that was interrupted gone on with. A run that is
finished is only verified. A step here has neither engines nor a trainer: hold the milliseconds of its digests against a
real step's seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.loading import load
from pipeline.records import Episode, Probe, Record, Rollout, Verdict
from pipeline.store import metrics, verify
from pipeline.store.digests import digest, files_below
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import of_lines
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import Key, write_keyed
from tests.pipeline.judged import episode, probe, rollout, task, verdict

SIZE, TOKENS, TURNS, FIGURES = 128, 500, 6, 80


class Step:
    """The tables of a step, made once; of each step only the ids are others."""

    def __init__(self) -> None:
        made = [episode(task(str(i)), 1, f"What is {i} + 1?" * 8, turns=TURNS) for i in range(SIZE)]
        keys = {(e.id, e.attempt): e for e in made}
        self._tables = {
            "rollouts": pa.Table.from_batches([Rollout.to_arrow([_sampled(e.id, i) for i, e in enumerate(made)])]),
            "episodes": pa.Table.from_batches([Episode.to_arrow(made)]),
            "verdicts": _keyed({key: verdict(e) for key, e in keys.items()}, Verdict),
            "probes": _keyed({key: probe(e) for key, e in keys.items()}, Probe),
        }

    def write(self, run: RunDir, ledger: Ledger, number: int) -> tuple[float, float]:
        """Returns the seconds of the step and, of them, of its manifest."""
        began = time.perf_counter()
        ledger.begin(number)
        names = [f"mgpo-{number:06d}-{i}" for i in range(SIZE)]
        keys = [(name, ledger.issue(name)) for name in names]
        with run.new_step("mgpo", number) as folder:
            for file, table in self._tables.items():
                field = table.schema.field(0)
                named = table.set_column(0, field, pa.array(names, field.type))
                pq.write_table(named, folder / f"{file}.parquet", compression="zstd")
            account = ledger.segment(folder, dict.fromkeys(keys, "trained"))
            (folder / "state.json").write_text(json.dumps({"ledger": account}))
        ledger.commit(account)
        total = time.perf_counter() - began
        again = time.perf_counter()  # what the manifest alone costs
        for name in files_below(folder.parent / f"{number:06d}"):
            digest(folder.parent / f"{number:06d}" / name)
        if run.path(metrics.FILE).exists():  # the step vouches for all the lines so far
            of_lines(run.path(metrics.FILE))
        return total, time.perf_counter() - again


def _keyed(records: dict[Key, Record], of: type[Record]) -> pa.Table:
    """As a step holds them."""
    with tempfile.TemporaryDirectory() as folder:
        write_keyed(Path(folder, "table"), records, of)
        return pq.read_table(Path(folder, "table"))


def _sampled(name: str, seed: int) -> Rollout:
    """Tokens and their log-probabilities are what compresses least."""
    rng = np.random.default_rng(seed)
    tokens, logprobs = rng.integers(0, 150_000, TOKENS), -rng.exponential(size=TOKENS)
    return rollout(name, 1, tokens=TOKENS).model_copy(
        update={"token_ids": tuple(tokens.tolist()), "logprobs": tuple(logprobs.tolist())}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    parser.add_argument("--run", type=Path, metavar="DIR")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as folder:
        root = args.run or Path(folder, "run")
        if not (root / "stages").exists():
            synthetic(root, -(-args.rollouts // SIZE))
        size = sum((root / name).stat().st_size for name in files_below(root))
        wall, cpu = time.perf_counter(), time.process_time()
        findings = verify.verify(RunDir(root))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"verified {len(files_below(root))} files, {size / 1e6:.1f} MB: {wall:.2f} s, {cpu:.2f} s of CPU, "
              f"{len(findings)} findings, {os.cpu_count()} cores, at most {peak:.0f} MB resident")  # fmt: skip


def synthetic(root: Path, steps: int) -> None:
    run = RunDir.open(root, load(None, [f"mgpo.steps={steps}"]))
    ledger = Ledger(run, "mgpo")
    step = Step()
    begun = len(run.steps("mgpo"))
    took = []
    with Metrics(run) as log:
        for number in range(begun + 1, steps + 1):
            took.append(step.write(run, ledger, number))
            log.log("mgpo", number, {f"figure/{i}": number / (i + 1) for i in range(FIGURES)})
    ledger.close()
    run.close()
    if took:
        total, digests = (sum(x) for x in zip(*took, strict=True))
        last = [sum(x) / len(took[-100:]) * 1e3 for x in zip(*took[-100:], strict=True)]
        print(f"wrote {len(took)} steps of {SIZE} rollouts: {total / len(took) * 1e3:.1f} ms a step, of which digests "
              f"{digests / len(took) * 1e3:.2f} ms ({digests / total:.1%}); of the last hundred {last[1]:.2f} of "
              f"{last[0]:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
