"""Experiment trackers beside TensorBoard: Weights & Biases and MLflow, by their own clients.

Which ones is the config's; where they send is what their own variables say (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, and their keys), so both work offline as their users know it. A run that is
resumed goes on as the same run there.

Invariants: a tracker never holds a stage up, because one thread opens it and sends what stages log; and never fails a
run, because what a tracker did not take is counted and told, and `metrics.jsonl` has it. Only that its client is
installed is asked first. At the process's own end W&B's client may still wait for its server, as its settings say.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.records import Failure

_CLOSE_S = 5.0
"""What is left after a run's end has so long to be sent."""

Row = tuple[str, int, Mapping[str, float]]
"""(stage, step, figures)."""


class Tracker(Protocol):
    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...
    def close(self, whole: bool) -> None:
        """`whole`: the run came to its end."""


class Wandb:
    """Offline (WANDB_MODE=offline) it writes below `folder`, for `wandb sync`."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]):
        wandb = importlib.import_module("wandb")
        settings = wandb.Settings(console="off", silent=True)  # stdout and stderr stay as they are
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            id=name, name=name, dir=str(folder), config=dict(config), resume="allow", settings=settings
        )

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        # W&B takes steps that ascend over all stages alone; so each stage has its own.
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def close(self, whole: bool) -> None:
        self._run.finish(exit_code=0 if whole else 1)


class MLflow:
    """Offline it writes where MLFLOW_TRACKING_URI says, by default into `folder`."""

    _TAG = "propose.run"

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]):
        mlflow = importlib.import_module("mlflow")
        uri = None
        if not mlflow.is_tracking_uri_set():
            uri = (folder / "mlruns").absolute().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # files are all that its light client can write
        self._client = mlflow.MlflowClient(uri)
        title = mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get() or "propose"
        known = self._client.get_experiment_by_name(title)
        experiment = self._client.create_experiment(title) if known is None else known.experiment_id
        before = self._client.search_runs([experiment], f"tags.`{self._TAG}` = '{name}'")
        run = before[0] if before else self._client.create_run(experiment, run_name=name, tags={self._TAG: name})
        self._id, self._metric = run.info.run_id, mlflow.entities.Metric
        if not before:
            for key, value in config.items():
                self._client.log_param(self._id, key, value)

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        named = {re.sub(r"[^\w./ -]+|(?<=/)/", "_", f"{stage}/{name}"): value for name, value in values.items()}
        self._client.log_batch(self._id, [self._metric(name, value, now, step) for name, value in named.items()])

    def close(self, whole: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if whole else "FAILED")


TRACKERS: dict[str, Callable[[str, Path, Mapping[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": MLflow}
"""By the name of the client's module."""


class Sending:
    """One tracker, and the thread that opens it and sends to it."""

    def __init__(self, kind: str, opening: Callable[[], Tracker]):
        self._kind, self._opening = kind, opening
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._logged = self._taken = 0
        self._cause = ""
        self._whole = False
        self._thread = threading.Thread(target=self._send, name=kind, daemon=True)
        self._thread.start()

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._logged += 1
        self._rows.put((stage, step, values))

    def close(self, whole: bool) -> str:
        """What was not taken, in words; "" where all was. `whole`: the run came to its end."""
        self._whole = whole
        self._rows.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._cause = f"it has not ended within {_CLOSE_S:g} s"
        if not self._cause:
            return ""
        return f"{self._kind}: took {self._taken} of {self._logged} rows: {self._cause}; metrics.jsonl has them all"

    def _send(self) -> None:
        try:
            tracker = self._opening()
        except Exception as e:  # of a client that is not ours
            self._cause = _cause(e)
            return
        while (row := self._rows.get()) is not None:
            try:
                tracker.log(*row)
                self._taken += 1
            except Exception as e:  # of a client that is not ours
                self._cause = _cause(e)
        try:
            tracker.close(self._whole)
        except Exception as e:
            self._cause = _cause(e)


@contextlib.contextmanager
def tracking(
    kinds: Sequence[str], name: str, folder: Path, config: Mapping[str, Any], say: Callable[[str, str], None]
) -> Iterator[list[Sending]]:
    """The trackers of a run while the block runs. Raises Failure where the client of one is not installed."""
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise Failure(
                f"trackers: {kind} is not installed; expected it, as `pip install 'agentic-proposing[{kind}]'` does"
            )
    opened = [Sending(kind, functools.partial(TRACKERS[kind], name, folder, config)) for kind in kinds]
    whole = False
    try:
        yield opened
        whole = True
    finally:
        for line in filter(None, [sending.close(whole) for sending in opened]):
            say("trackers", line)


def _cause(e: Exception) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
