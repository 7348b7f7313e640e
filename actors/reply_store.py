"""What a run keeps of its calls of endpoints: replies, so that none is paid for twice, and what was spent.

One SQLite file, which the processes of a machine share. It is named by the environment (`KEPT_IN`), because clients are
made wherever a call is; without it replies are not kept, and spending is this process's alone.

Invariant: `spent + open` never exceeds a budget, whoever asks: what a call may cost at most is set aside in one
transaction before it is sent, and becomes what it did cost when it is back. What a process that died had set aside is
set free when a run is opened (`forget_open`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.records import Failure

KEPT_IN = "PROPOSE_REPLIES"
"""Environment variable: the file, "::", and the run that spends."""

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    run TEXT, endpoint TEXT, calls INTEGER, kept INTEGER, tokens INTEGER, usd REAL, PRIMARY KEY (run, endpoint));
CREATE TABLE IF NOT EXISTS open (
    id INTEGER PRIMARY KEY, run TEXT, endpoint TEXT, tokens INTEGER, usd REAL, until REAL);
"""


class ReplyStore:
    def __init__(self, file: str, run: str):
        """`file` ":memory:" keeps nothing beyond this process."""
        self._run = run
        self.keeps = file != ":memory:"
        if self.keeps:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------ replies

    def get(self, endpoint: str, key: str) -> dict[str, Any] | None:
        """The reply that was kept for this request, counted as one that cost nothing."""
        row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone() if self.keeps else None
        if row is None:
            return None
        self._add(endpoint, kept=1)
        reply: dict[str, Any] = json.loads(row[0])
        return reply

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        if self.keeps:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    # ------------------------------------------------------------ spending

    def set_aside(
        self, endpoint: str, tokens: int, usd: float, until: float, budget_tokens: int | None, budget_usd: float | None
    ) -> int | None:
        """Set aside what a call may cost at most, which ends by `until`. Returns what `settle` wants; None where a
        budget does not allow it."""
        with self._transaction():
            used_tokens, used_usd = self._db.execute(
                "SELECT TOTAL(tokens), TOTAL(usd) FROM ("
                "SELECT tokens, usd FROM spent WHERE run = ?1 AND endpoint = ?2 "
                "UNION ALL SELECT tokens, usd FROM open WHERE run = ?1 AND endpoint = ?2)",
                (self._run, endpoint),
            ).fetchone()
            if budget_tokens is not None and used_tokens + tokens > budget_tokens:
                return None
            if budget_usd is not None and used_usd + usd > budget_usd:
                return None
            row = (self._run, endpoint, tokens, usd, until)
            return self._db.execute(
                "INSERT INTO open (run, endpoint, tokens, usd, until) VALUES (?, ?, ?, ?, ?)", row
            ).lastrowid

    def settle(self, ticket: int | None, endpoint: str, tokens: int, usd: float) -> None:
        """What the call did cost, in place of what was set aside, if anything was."""
        with self._transaction():
            self._db.execute("DELETE FROM open WHERE id = ?", (ticket,))
            self._add(endpoint, calls=1, tokens=tokens, usd=usd)

    def forget_open(self) -> None:
        """No call of this run is under way."""
        self._db.execute("DELETE FROM open WHERE run = ?", (self._run,))

    def is_open(self, endpoint: str) -> bool:
        """Whether a call of this run is under way, which may give back some of what it set aside."""
        found = self._db.execute(
            "SELECT 1 FROM open WHERE run = ? AND endpoint = ? AND until > ? LIMIT 1",
            (self._run, endpoint, time.time()),
        )
        return found.fetchone() is not None

    def spent(self) -> dict[str, dict[str, float]]:
        """Endpoint -> what this run has spent there: calls, kept (replies that cost nothing), tokens, usd."""
        rows = self._db.execute(
            "SELECT endpoint, calls, kept, tokens, usd FROM spent WHERE run = ? ORDER BY endpoint", (self._run,)
        )
        return {name: {"calls": c, "kept": k, "tokens": t, "usd": u} for name, c, k, t, u in rows}

    def _add(self, endpoint: str, calls: int = 0, kept: int = 0, tokens: int = 0, usd: float = 0.0) -> None:
        self._db.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, endpoint) DO UPDATE SET "
            "calls = calls + excluded.calls, kept = kept + excluded.kept, "
            "tokens = tokens + excluded.tokens, usd = usd + excluded.usd",
            (self._run, endpoint, calls, kept, tokens, usd),
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """Nobody else writes in between."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def kept_in(file: Path, run: str) -> str:
    """What `KEPT_IN` is set to."""
    return f"{file}::{run}"


def store() -> ReplyStore:
    """The store that the environment names."""
    return _open(os.environ.get(KEPT_IN, ":memory:::"))


@cache
def _open(named: str) -> ReplyStore:
    file, _, run = named.rpartition("::")
    try:
        return ReplyStore(file, run)
    except sqlite3.OperationalError as e:
        raise Failure(f"replies: {file}: {e}; expected a file that this user may write to", "infra_error") from None
    except (OSError, sqlite3.Error) as e:
        raise Failure(f"replies: {file}: {e}; expected a file of replies: move it away, or name another") from None


def key_of(base_url: str, body: Mapping[str, Any]) -> str:
    """Of a request: the same endpoint, model, prompt, sampling and sample index (the seed)."""
    return hashlib.sha256(json.dumps([base_url, body], sort_keys=True).encode()).hexdigest()
