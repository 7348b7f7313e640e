"""From a finished run to a result.

Invariant: the status comes from the kernel's word on how the process ended and from what the supervisor measured. The
program's report can only turn an end that was no success into a better named one, or add the claimed value.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from . import claims
from .api import CLAIMED, Result, Status
from .host import Run


def conclude(run: Run, level: str, wants_value: bool, facts: dict[str, Any] | None = None) -> Result:
    """The result of a finished run, or, with `facts` in place of an exit, of a session's cell."""
    facts = facts or run.exit
    assert facts is not None
    status, reason, value = _ending(run, facts)
    if run.language != "python":
        status, reason = _last_words(run, facts, status, reason)
    elif status in ("ok", "error"):
        status, reason, value = _words(run, status, reason, wants_value)
    return Result(
        status,
        reason,
        run.stdout.decode("utf-8", "replace"),
        run.stderr.decode("utf-8", "replace"),
        value,
        run.truncated,
        time.monotonic() - run.started,
        facts["cpu_s"],
        facts["peak_kb"] / 1024,
        level,
    )


def _ending(run: Run, facts: dict[str, Any]) -> tuple[Status, str, None]:
    code, cpu_s, peak_mb = facts["exit"], facts["cpu_s"], facts["peak_kb"] / 1024
    killed = code == -signal.SIGKILL
    if run.verdict is not None and (killed or run.verdict[0] in ("output_limit", "disk_limit")):
        return *run.verdict, None
    if code >= 0:
        return ("ok", "", None) if code == 0 else ("error", f"exit code {code}", None)
    if killed and cpu_s >= run.limits.cpu_s:
        return "cpu_limit", f"more than {run.limits.cpu_s:g} s of CPU time", None
    if killed and facts.get("out_of_memory"):
        return "memory_limit", "its control group has no memory left", None
    if killed and peak_mb > run.limits.memory_mb / 2:
        return "memory_limit", f"killed by the system with {peak_mb:.0f} MB resident", None
    if killed:
        return "infra", "killed from outside the sandbox", None
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    if name == "SIGSYS":
        return "violation", "a forbidden system call", None
    return ("file_size_limit" if name == "SIGXFSZ" else "crash"), name, None


def _words(run: Run, status: Status, reason: str, wants_value: bool) -> tuple[Status, str, Any]:
    """What the run's report adds: the exception's name, the limit it met, the value."""
    try:
        said = claims.read(bytes(run.report))
        if not isinstance(said, dict):
            raise ValueError("no object")
    except ValueError as e:
        if wants_value and status == "ok":
            return "error", f"no value: {e}", None
        return status, reason, None
    if status == "error" or "reason" in said:
        words = one_line(str(said.get("reason", ""))) or reason or "no reason given"
        limit = said.get("limit")
        return (limit if limit in CLAIMED else "error"), words, None
    if wants_value and "value" not in said:
        return "error", "no value was exported", None
    return status, "", said.get("value") if wants_value else None


_STACK_MB = 2
"""Of a thread in a compiled program."""
_COMPLAINTS: tuple[tuple[bytes, Status], ...] = (
    (b"std::bad_alloc", "memory_limit"),
    (b"out of memory", "memory_limit"),
    (b"memory exhausted", "memory_limit"),
    (b"Cannot allocate memory", "memory_limit"),
    (b"no memory for the stack", "memory_limit"),
    (b"Resource temporarily unavailable", "process_limit"),
    (b"Too many open files", "open_files_limit"),
    (b"File too large", "file_size_limit"),
    (b"No space left on device", "disk_limit"),
)


def _last_words(run: Run, facts: dict[str, Any], status: Status, reason: str) -> tuple[Status, str]:
    """What is known of a run that became another program: why it could not, or the limit it complained of. A compiler
    that does not start is no fault of what it compiles."""
    if run.report:  # ours, see `compiled`
        status, reason = "infra" if run.stage is not None else "error", claims.read(bytes(run.report))["reason"]
    if status in ("error", "crash"):
        if b"std::system_error" in run.stderr and b"Resource temporarily unavailable" in run.stderr:
            # Less than what the interpreter had that it once was cannot be seen, and is taken for nothing.
            own_mb = facts["peak_kb"] / 1024 if facts["peak_kb"] > run.peak_before_kb + 1024 else 0.0
            room_mb = run.limits.memory_mb - own_mb
            if room_mb < run.limits.threads * _STACK_MB:  # it is used up before there are too many threads
                reason = f"no memory for the stack of a thread ({_STACK_MB} MB), or too many threads"
        said = reason.encode() + b"\n" + run.stderr
        return next((limit for text, limit in _COMPLAINTS if text in said), status), reason
    return status, reason


def one_line(text: str) -> str:
    """A program's words, as they may be printed in logs and terminals."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split())[:500])
