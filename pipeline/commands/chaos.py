"""`propose chaos`: kill every kind of process of a real MGPO run at seeded moments, and measure what that costs.

    propose mgpo (a child) ──► processes and files ──► watched from outside ──► SIGKILL ──► table, audit

Consumes what any operator sees: the process table, the ledger's journals, `metrics.jsonl`, `events.jsonl`, the exit
    propose mgpo (a child) ──► processes and files ──► watched from outside ──► SIGKILL ──► table, audit
checkpoint against the config. It waits for the run, each time at most `patience_s`.

Invariant: only descendants of the child are killed, one at a time, each once the run is at full rate: every kind of
process is there, and something has come back since they all were. So the cost of one kill is not mixed with another's.

A run whose driver is killed, or which ends by itself, is started again by the same command.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from pipeline.config import Config, loading
from pipeline.flow.steps import judged_in
from pipeline.records import Failure
from pipeline.store import accounts, events, metrics
from pipeline.store.ledger import Journal
from pipeline.store.rundir import RunDir, step_folders

KINDS = {
    "proposer": "ray::ServeReplica:*-proposer:",
    "engine": "VLLM::EngineCore",
    "sandbox": "ray::ServeReplica:*-sandbox:",
    "committee": "ray::ServeReplica:*-committee:",
    "prober": "ray::ServeReplica:*-prober:",
    "solver": "ray::ServeReplica:*-solver-0:",
    "solver-engine": "VLLM::EngineCore",
    "buffer": "ray::RolloutBuffer",
    "weights": "ray::WeightStore",
    "loader": "ray::StepLoader",
    "launcher": "ray::Launcher",
    "train-controller": "ray::TrainController",
    "train-worker": "ray::RayTrainWorker",
    "serve-controller": "ray::ServeController",
    "gcs": "gcs_server",
    "raylet": "raylet",
    "driver": "",
}
"""Kind -> what its process title has, * for the run's name; the driver is the child itself."""
ENGINES = {"engine": "proposer", "solver-engine": "solver"}
"""An engine's kind -> that of the replica whose child it is, and which gives itself up without it."""
TRAINING = ("weights", "loader", "launcher", "train-controller", "train-worker")
"""Kinds without which samples may still come back: after such a death, full rate is when a step has been trained."""
HOLDING = ("buffer", "weights", "loader", "launcher", "train-controller", "gcs", "raylet")
"""Kinds that hold a stage's state. The run has noticed such a death when its events say that the stage was restarted. A
new process proves nothing: Ray may have started it while the stage goes on without knowing."""
_LOOK_S = 0.1
_MOMENT_S = 3.0
"""A kill comes at a random moment within so long after the run is at full rate."""


@dataclass(frozen=True)
class Kill:
    kind: str
    step: int
    """The step that was being made."""
    detect_s: float
    """Until the run shows that it noticed: a restart, its end; or, of kinds that are replaced by themselves, a new
    process, a failed attempt."""
    full_rate_s: float
    """Until all kinds of process are there again and a rollout (of the trainer's: a trained step) has come since."""
    tokens_wasted: int
    """Sampled for attempts that the kill ended; one that never came back is taken for an average attempt."""
    how: str
    """replaced: the one process · restarted: the stage, by itself · resumed: by the same command again."""


def chaos(
    config: Config,
    root: Path,
    schedule: Sequence[tuple[int, str]],
    seed: int,
    patience_s: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run MGPO in `root` (up to it undisturbed) and kill as `plan` says; returns the result of `--json`.

    A run that ends before all kills are done leaves `kills` below `planned`. Raises Failure if it does not come back
    within `patience_s`, and for a directory that is no run's of this config, nor new.
    """
    RunDir.open(root, config).close()  # a run before there is anything else in it
    folder = root / "chaos"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(loading.dump(config))
    for stage in ("acquire", "sft"):
        say(f"{stage} first, undisturbed")
        _undisturbed(stage, root, folder)
    victim = Victim(root, folder, patience_s)
    done: list[Kill] = []
    began = time.monotonic()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C: no run is left behind
    try:
        victim.start()
        for step, kind in schedule:
            moment = random.Random(f"{seed}/{len(done)}").uniform(0, _MOMENT_S)
            if (kill := victim.kill(kind, step, moment)) is None:
                say(f"the run ended after {len(done)} of {len(schedule)} kills; expected more mgpo.steps")
                break
            done.append(kill)
            say(f"{len(done)}/{len(schedule)} {_line(kill)}")
        victim.finish()
    finally:
        orphans = victim.close()
        signal.signal(signal.SIGTERM, before)
    run, _ = RunDir.read(root)
    wall_s = time.monotonic() - began
    return {"planned": len(schedule)} | _result(config, run, done, orphans, wall_s, victim.resumed)


def plan(kinds: Sequence[str], kills: int, driver_kills: int, steps: int, seed: int) -> list[tuple[int, str]]:
    """(step at which, kind) of each kill, in order: every kind in turn, in seeded order, spread over the steps."""
    rng = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < kills:
        turn = list(kinds)
        rng.shuffle(turn)
        chosen += turn
    chosen = chosen[:kills]
    for _ in range(driver_kills):
        chosen.insert(rng.randint(0, len(chosen)), "driver")
    at = sorted(rng.randint(1, max(1, steps * 3 // 4)) for _ in chosen)  # each takes the run some way further
    return list(zip(at, chosen, strict=True))


class Victim:
    """The run that is watched and killed."""

    def __init__(self, root: Path, folder: Path, patience_s: float):
        self._root, self._folder, self._patience_s = root, folder, patience_s
        self._run = RunDir(root)
        self._journals = root / "ledger" / "mgpo"
        self._family: dict[int, float] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self.resumed = 0

    def start(self) -> None:
        with (self._folder / "driver.log").open("ab") as log:
            self._child = subprocess.Popen(
                _command("mgpo", self._root, self._folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def step(self) -> int:
        """The step that is being made, counted from what is on disk."""
        return len(step_folders(self._root / "steps" / "mgpo")) + 1

    def at_full_rate(self, step: int = 0, trained: bool = False) -> bool:
        """Wait until every kind is there, something came back after that, and `step` is being made; False if the run is
        finished."""
        deadline, reached = time.monotonic() + self._patience_s, self.step()
        complete_since: float | None = None
        while True:
            if not self._alive():
                return False
            if self.step() > reached:
                deadline, reached = time.monotonic() + self._patience_s, self.step()
            if complete_since is None:
                complete_since = time.time() if self._found().keys() >= KINDS.keys() else None
            elif reached >= step and self._came_back(complete_since, trained):
                return True
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(KINDS.keys() - self._found().keys())) or "none"
                raise Failure(f"chaos: not at full rate within {self._patience_s:g} s; missing kinds: {missing}")
            time.sleep(_LOOK_S)

    def kill(self, kind: str, step: int, moment_s: float) -> Kill | None:
        """Kill one process of a kind, `moment_s` after the run is at full rate in `step` or later, and see it through.
        None if the run ends before."""
        found: dict[str, list[psutil.Process]] = {}
        while kind not in found:  # the moment may be one at which it is being replaced
            if not self.at_full_rate(step):
                return None
            time.sleep(moment_s)
            found = self._found()
        victim = found[kind][0]
        step = self.step()
        known = {p.pid for p in found[kind]}
        if kind in ENGINES:
            known |= {p.pid for p in found[ENGINES[kind]]}
        killed, moment = time.time(), time.monotonic()
        resumed = self.resumed
        victim.send_signal(signal.SIGKILL)
        while not self._noticed(kind, known, killed):
            if time.monotonic() - moment > self._patience_s:
                raise Failure(f"chaos: nobody noticed in {self._patience_s:g} s that {kind} was killed")
            time.sleep(_LOOK_S)
        detected = time.monotonic() - moment
        self.at_full_rate(trained=kind in TRAINING)
        back = time.monotonic() - moment
        how = "replaced"
        if self.resumed > resumed:
            how = "resumed"
        elif self._restarted(killed):
            how = "restarted"
        return Kill(kind, step, round(detected, 2), round(back, 2), self._wasted(killed), how)

    def finish(self) -> None:
        """Wait for the run's end."""
        deadline = time.monotonic() + self._patience_s
        before = self.step()
        while self._alive():
            if self.step() > before:
                before, deadline = self.step(), time.monotonic() + self._patience_s
            if time.monotonic() > deadline:
                raise Failure(f"chaos: no step for {self._patience_s:g} s after the last kill")
            time.sleep(_LOOK_S)

    def close(self) -> int:
        """End what is left; returns how many processes outlived their run."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()  # its driver ends what it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(60)
        left = list(self._left())
        for process in left:
            process.kill()
        return len(left)

    # ------------------------------------------------------------ looking

    def _alive(self) -> bool:
        """Whether the run goes on. One that ended without having finished is started again."""
        assert self._child is not None
        code = self._child.poll()
        if code is None:
            return True
        if code == 0:
            return False
        self.resumed += 1
        self.start()
        return True

    def _found(self) -> dict[str, list[psutil.Process]]:
        """Kind -> its processes among the descendants of the child."""
        assert self._child is not None
        found: dict[str, list[psutil.Process]] = {}
        try:
            driver = psutil.Process(self._child.pid)
            descendants = driver.children(recursive=True)
        except psutil.Error:
            return found
        found["driver"] = [driver]
        for process in descendants:
            try:
                self._family[process.pid] = process.create_time()
                title = " ".join(process.cmdline()[:1])
                parent = process.ppid()
            except psutil.Error:
                continue
            for kind, pattern in KINDS.items():
                head, _, tail = pattern.partition("*")
                if kind == "driver" or not (_base(title).startswith(head) and tail in title):
                    continue
                # A parent comes before its children.
                if kind not in ENGINES or parent in {p.pid for p in found.get(ENGINES[kind], [])}:
                    found.setdefault(kind, []).append(process)
        return found

    def _left(self) -> Iterator[psutil.Process]:
        """Processes of the family that are still there."""
        time.sleep(2)
        for pid, created in self._family.items():
            try:
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except psutil.Error:
                pass

    def _restarted(self, since: float) -> bool:
        """Whether the stage has begun again, by itself, after a moment."""
        return bool(events.read(self._run, "stage_restarted", since))

    def _attempts(self, since: float) -> list[dict[str, Any]]:
        """Journal lines after a moment, of the last two steps."""
        paths = sorted(self._journals.glob("*.jsonl"))[-2:]
        return [e for p in paths for e in Journal.read(p).events if e["time"] > since]

    def _noticed(self, kind: str, known: set[int], killed: float) -> bool:
        assert self._child is not None
        if self._child.poll() is not None or self._restarted(killed):
            return True
        if kind == "driver" or kind in HOLDING:
            return False
        found = self._found()
        kinds = (kind, ENGINES[kind]) if kind in ENGINES else (kind,)
        there = {p.pid for k in kinds for p in found.get(k, [])}
        given_up = kind in ENGINES and not there & known
        failed = any(e["event"] == "fail" for e in self._attempts(killed))
        return bool(there - known) or given_up or failed

    def _came_back(self, since: float, trained: bool) -> bool:
        if trained:
            rows = metrics.read(self._run).get("mgpo-train", [])
            return any(row["time"] > since for row in rows)
        return any(e["event"] in ("judged", "commit") for e in self._attempts(since))

    def _wasted(self, since: float) -> int:
        """Tokens of the attempts that failed after a moment."""
        tokens: dict[tuple[str, int], int] = {}
        failed: set[tuple[str, int]] = set()
        for path in sorted(self._journals.glob("*.jsonl"))[-3:]:
            for e in Journal.read(path).events:
                if e["event"] == "judged":
                    tokens[e["id"], e["attempt"]] = e["tokens"]
                elif e["event"] == "fail" and e["time"] > since:
                    failed.add((e["id"], e["attempt"]))
        usual = sum(tokens.values()) / max(len(tokens), 1)
        return round(sum(tokens.get(key, usual) for key in failed))


def _undisturbed(stage: str, root: Path, folder: Path) -> None:
    done = subprocess.run(_command(stage, root, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Failure(f"chaos: {stage} failed before anything was killed: {lines[-1]}")


def _command(stage: str, root: Path, folder: Path) -> Sequence[str]:
    options = ["--config", str(folder / "config.yaml"), "--run-dir", str(root)]
    return [sys.executable, "-m", "pipeline.cli", stage, *options]


def _base(title: str) -> str:
    return title if title.startswith("ray::") else title.rpartition("/")[2]


def _result(
    config: Config, run: RunDir, kills: list[Kill], orphans: int, wall_s: float, resumed: int
) -> dict[str, Any]:
    found = accounts.audit(run)
    stage = found["stages"]["mgpo"]
    totals = stage["totals"]
    checkpoint = max(stage["checkpoints"], key=lambda c: c["step"], default={"step": 0, "rollouts": 0})
    wanted = config.mgpo.steps * config.mgpo.groups * config.mgpo.group_size
    ended = sum(row["tasks"] for row in stage["steps"] if row["on_disk"])
    ends = {end: totals[end] for end in ("trained", "filtered")}
    return {
        "kills": len(kills),
        "lost": wanted - ended,
        "failed_by_infra": sum(j.failed_by_infra for folder in run.steps("mgpo") for j in judged_in(folder)),
        "trained_twice": max(0, checkpoint["rollouts"] - totals["trained"]) + stage["trained_twice"],
        "findings": found["findings"],
        "orphans": orphans,
        "resumed": resumed,
        "checkpoint": checkpoint,
        "expected": {"step": config.mgpo.steps, "rollouts": wanted - ended + totals["trained"], "tasks": wanted},
        "ends": ends | {"failed": ended - sum(ends.values())},
        "tokens_wasted": sum(k.tokens_wasted for k in kills),
        "wall_s": round(wall_s, 1),
        "kinds": {
            kind: {
                "kills": len(mine),
                "detect_s": median(k.detect_s for k in mine),
                "full_rate_s": median(k.full_rate_s for k in mine),
                "tokens_wasted": median(k.tokens_wasted for k in mine),
                "how": sorted({k.how for k in mine}),
            }
            for kind in KINDS
            if (mine := [k for k in kills if k.kind == kind])
        },
        "each": [asdict(k) for k in kills],
    }


def sound(result: dict[str, Any]) -> bool:
    """Nothing lost, no task given up for what was killed under it, nothing trained twice, the ledger adds up, and the
    checkpoint is that of an undisturbed run.

    A task that the committee could not decide on for its own reasons has failed too, as it does in an undisturbed run.
    """
    same = all(result["checkpoint"][name] == result["expected"][name] for name in ("step", "rollouts"))
    all_done = result["kills"] == result["planned"]
    faults = ("lost", "failed_by_infra", "trained_twice", "findings", "orphans")
    return all_done and same and not any(result[fault] for fault in faults)


def render(result: dict[str, Any]) -> str:
    """The table, for people."""
    lines = [
        f"{'kind':<17}{'kills':>6}{'detect s':>10}{'full rate s':>13}{'tokens wasted':>15}  how (medians of a kind)"
    ]
    for kind, row in result["kinds"].items():
        lines.append(
            f"{kind:<17}{row['kills']:>6}{row['detect_s']:>10.2f}{row['full_rate_s']:>13.1f}"
            f"{row['tokens_wasted']:>15.0f}  {', '.join(row['how'])}"
        )
    lines.append(
        f"{result['kills']} kills in {result['wall_s']:.0f} s · lost {result['lost']} · failed by infrastructure "
        f"{result['failed_by_infra']} · trained twice {result['trained_twice']} · orphans {result['orphans']} · "
        f"ledger findings {len(result['findings'])}"
    )
    lines.append(f"checkpoint {result['checkpoint']}, expected {result['expected']} · ends {result['ends']}")
    return "\n".join(lines)


def _line(kill: Kill) -> str:
    return (
        f"{kill.kind} at step {kill.step}: noticed {kill.detect_s:.1f} s, full rate {kill.full_rate_s:.1f} s after, "
        f"{kill.tokens_wasted} tokens wasted, {kill.how}"
    )
