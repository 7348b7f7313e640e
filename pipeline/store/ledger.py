"""The ledger: every attempt at a task, from the moment it is issued to its one end.

    issue ──► judged ──► commit: trained | filtered | failed      in steps/<stage>/NNNNNN/ledger.parquet
      └─────────────────► fail (retried, lost, or the run ended)   in the journal

A stage's step has a journal, `ledger/<stage>/NNNNNN.jsonl`: a line before an attempt is sent anywhere, a line when
it has come back, a line when it failed, a line when it is put into quarantine. The ends of the others are the step's
segment, `ledger.parquet`, which becomes visible together with its rollouts, because both are in the step's directory.

Invariant: an attempt number of a task is issued once, whatever crashes: what an earlier process left open is closed
as failed before anything is issued again. Each line carries a checksum over itself and all lines before it, so only a
loss of the last lines, which is what a crash does, goes unnoticed here, and is found in the segment (`accounts`).

`trained` is said when the step is written, which is before the optimizer has taken it: the rollout is one that the
trainer will see with that step. That it counts exactly once is the trainer's part: it takes the steps in order, its
checkpoint says which it holds, and after a crash those that follow are read from the disk again, under weights that
have not seen them.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.records import Failure, Record
from pipeline.store import chained
from pipeline.store.digests import MANIFEST
from pipeline.store.files import APPENDING, writing
from pipeline.store.manifest import Damage, cause, digest_once
from pipeline.store.rundir import RunDir
from pipeline.store.tables import Key, write_records

End = Literal["trained", "filtered", "failed"]
"""Released to the trainer with its step · judged, and not for the trainer · no reward can be derived."""
ENDS: tuple[End, ...] = ("trained", "filtered", "failed")

SEGMENT = "ledger.parquet"
INTERRUPTED = "the run ended before its step did"
NOT_NEEDED = "its stage had enough without it"


class Entry(Record):
    """How one attempt ended; the rows of a segment."""

    id: str
    attempt: int
    end: End


class Ledger:
    """One stage's. `begin` a step, then issue; `segment` inside the step's directory, `commit` when that is whole.
    Steps that are under way side by side have one each."""

    def __init__(self, run: RunDir, stage: str):
        self._run, self._stage = run, stage
        self._file, self._path, self._chain = -1, Path(), 0
        self._step = 0
        self._last: dict[str, int] = {}
        self._open: set[Key] = set()

    def begin(self, step: int) -> None:
        """Open the journal of a step that is not on disk yet. What an earlier process issued for it has failed."""
        before = self._run.path("steps", self._stage, f"{step - 1:06d}")
        if before.is_dir() and not self._reopen(step - 1).committed:
            # That process died between the directory's rename and this line.
            self._append("commit", None, **_of(before))
        journal = self._reopen(step)
        self._step = step
        self._last, self._open = journal.last_attempts(), set()
        for key in sorted(journal.open()):
            self._append("fail", key, reason=INTERRUPTED)

    @property
    def live(self) -> int:
        """Attempts that were issued and have no end yet."""
        return len(self._open)

    def _reopen(self, step: int) -> Journal:
        self.close()
        path = journal_path(self._run, self._stage, step)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, APPENDING, 0o644)
            content = path.read_bytes()
            journal = Journal.of(content)
            if journal.broken is not None:
                raise Failure(
                    f"{path}:{journal.broken}: does not follow from the lines before it; see `propose verify "
                    f"{self._run.root}`"
                )
            if len(content) > (whole := content.rfind(b"\n") + 1):
                os.ftruncate(self._file, whole)
        self._path, self._chain = path, journal.chain
        return journal

    def issue(self, name: str) -> int:
        """The number of the next attempt at a task. It is written down before it is used."""
        attempt = self._last.get(name, 0) + 1
        self._append("issue", (name, attempt))
        self._last[name] = attempt
        self._open.add((name, attempt))
        return attempt

    def judged(self, key: Key, tokens: int, spent: Mapping[str, float] | None = None) -> None:
        """It has come back, and waits for its step; `tokens` were sampled for it. `spent`: pool -> seconds there, as
        the driver saw it, one pool after another from when it was issued."""
        times = {f"{pool}_s": round(seconds, 3) for pool, seconds in (spent or {}).items()}
        self._append("judged", key, tokens=tokens, **times)

    def fail(self, key: Key, reason: str) -> None:
        """It has ended without a result. Another attempt may follow."""
        self._append("fail", key, reason=reason)
        self._open.discard(key)

    def abandon(self, needed: Collection[Key]) -> int:
        """Nobody waits for the other attempts that are open: they have failed. Returns how many they are."""
        others = sorted(self._open.difference(needed))
        for key in others:
            self.fail(key, NOT_NEEDED)
        return len(others)

    def quarantine(self, key: Key, record: Mapping[str, Any]) -> None:
        """Save what a worker died of, to be looked at: quarantine/<stage>/<id>.json."""
        told = {"id": key[0], "attempt": key[1], **record}
        self._run.write_sealed(f"quarantine/{self._stage}/{key[0]}.json", told)
        self._append("quarantine", key)

    def segment(self, folder: Path, ends: Mapping[Key, End]) -> dict[str, int]:
        """Write the step's segment into its directory; returns the step's account.

        Raises Failure unless `ends` are those of all open attempts.
        """
        if wrong := sorted(self._open ^ ends.keys()):
            what = "has no end" if wrong[0] in self._open else "was not issued"
            raise Failure(f"ledger: {wrong[0][0]} (attempt {wrong[0][1]}) {what}, and {len(wrong) - 1} more")
        write_records(folder / SEGMENT, [Entry(id=i, attempt=a, end=end) for (i, a), end in ends.items()], Entry)
        os.fsync(self._file)  # before the directory has its name: a step on disk has its journal
        counts = list(ends.values())
        return {"issued": len(counts)} | {end: counts.count(end) for end in ENDS}

    def commit(self, account: Mapping[str, int]) -> None:
        """The step's directory has its final name."""
        folder = self._run.path("steps", self._stage, f"{self._step:06d}")
        self._append("commit", None, **account, **_of(folder))
        os.fsync(self._file)
        self._open = set()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, event: str, key: Key | None = None, **facts: Any) -> None:
        named = {} if key is None else {"id": key[0], "attempt": key[1]}
        line, self._chain = chained.line({"event": event, "time": round(time.time(), 3), **named, **facts}, self._chain)
        with writing(self._path):
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, "the disk took a part of the line")


def close_begun(run: RunDir, stage: str) -> None:
    """Steps that an earlier process began, and that are not needed: what it issued for them has failed."""
    ledger, done = Ledger(run, stage), len(run.steps(stage))
    for path in sorted(run.path("ledger", stage).glob("[0-9]*.jsonl"), key=lambda path: int(path.stem)):
        if int(path.stem) > done:
            ledger.begin(int(path.stem))
    ledger.close()


def _of(folder: Path) -> dict[str, str]:
    """The digest of a step's manifest, for its commit line."""
    try:
        return {"manifest": digest_once(folder / MANIFEST)[1]}
    except OSError as e:
        raise Damage(folder / MANIFEST, cause(e)) from None


_OF_AN_ATTEMPT = {"issue": (), "judged": ("tokens",), "fail": ("reason",), "quarantine": ()}


def _is_event(facts: Mapping[str, Any]) -> bool:
    event = facts.get("event")
    return event == "commit" or (event in _OF_AN_ATTEMPT and {"id", "attempt", *_OF_AN_ATTEMPT[event]} <= facts.keys())


def journal_path(run: RunDir, stage: str, step: int) -> Path:
    return run.path("ledger", stage, f"{step:06d}.jsonl")


@dataclass(frozen=True)
class Journal:
    """A step's journal as read."""

    events: tuple[dict[str, Any], ...]
    chain: int
    broken: int | None
    """Number of the first line that does not follow from those before it; what comes after it is not read."""

    @classmethod
    def read(cls, path: Path) -> Journal:
        return cls.of(path.read_bytes())

    @classmethod
    def of(cls, content: bytes) -> Journal:
        """Whole lines only: a line without its newline was being written when its process died. A line with another
        byte in place of its newline was changed."""
        events: list[dict[str, Any]] = []
        chain = 0
        for line in chained.lines(content):
            if not line.follows or line.facts is None or line.chain is None or not _is_event(line.facts):
                return cls(tuple(events), chain, line.number)
            events.append(line.facts)
            chain = line.chain
        return cls(tuple(events), chain, None)

    def keys(self, event: str) -> list[Key]:
        return [(e["id"], e["attempt"]) for e in self.events if e["event"] == event]

    def open(self) -> set[Key]:
        """Issued, and not failed."""
        return set(self.keys("issue")) - set(self.keys("fail"))

    def last_attempts(self) -> dict[str, int]:
        return dict(self.keys("issue"))  # in the order in which they were issued

    @property
    def manifest(self) -> str | None:
        """The digest of the step's manifest when it was committed; None before that."""
        return next((e.get("manifest") for e in self.events if e["event"] == "commit"), None)

    @property
    def committed(self) -> bool:
        return any(e["event"] == "commit" for e in self.events)
