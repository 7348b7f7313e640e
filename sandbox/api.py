"""The sandbox's vocabulary: what a caller asks for, what it gets back, what a platform offers.

Invariant: everything here is a plain, frozen, picklable value. A `Request` is validated when made, so a malformed
one fails in the caller's hands and never reaches a slot.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from .languages import LANGUAGES

LevelName = Literal["strong+", "strong", "unsafe"]
"""strong+: kernel filter and two file walls · strong: kernel filter and one file wall · unsafe: anything less."""
LEVELS: tuple[LevelName, ...] = ("unsafe", "strong", "strong+")

Status = Literal[
    "ok", "error", "timeout", "cpu_limit", "memory_limit", "process_limit", "open_files_limit", "file_size_limit",
    "disk_limit", "output_limit", "crash", "violation", "infra",
]  # fmt: skip
"""ok: ran to its end · error: the program failed by its own fault · timeout and *_limit: each limit's own ·
violation: killed for what it tried · infra: the sandbox failed, which says nothing about the program; try again."""
CLAIMED: tuple[Status, ...] = (
    "memory_limit", "process_limit", "open_files_limit", "file_size_limit", "disk_limit"
)  # fmt: skip
"""The limits that the kernel enforces by refusing: that it did is the program's own word, and else an `error`."""


class SandboxUnavailable(Exception):
    """This machine does not reach the asked level; the message names what is missing and how to get it."""


@dataclass(frozen=True)
class Limits:
    wall_s: float = 5.0
    cpu_s: float = 4.0
    """CPU time of the program, all threads together."""
    memory_mb: int = 512
    """Address space, in Python on top of the warm interpreter's own."""
    files: int = 64
    file_mb: int = 8
    scratch_mb: int = 16
    threads: int = 32
    """Beside the first: as many as Python's own pools start."""
    stdout_kb: int = 1024
    stderr_kb: int = 64
    value_kb: int = 256
    code_kb: int = 256

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), (int, float) if f.type == "float" else int
            if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
                raise ValueError(f"limits.{f.name}: {value!r} is not a {f.type}")
            low, high = _RANGE.get(f.name, (1, 1 << 20))
            if not low <= value <= high:
                raise ValueError(f"limits.{f.name}: {value!r}; expected {low} to {high}")


_RANGE: dict[str, tuple[float, float]] = {
    "wall_s": (0.01, 3600),
    "cpu_s": (0.01, 3600),
    "files": (8, 4096),
    "threads": (1, 1024),
    "stdout_kb": (1, 65536),
    "stderr_kb": (1, 65536),
    "value_kb": (1, 65536),
    "code_kb": (1, 65536),
}


@dataclass(frozen=True)
class Request:
    code: str
    """Source, run as a script or, if its language is compiled, as a program."""
    stdin: str = ""
    value: str | None = None
    """Name of a variable to export when the script has ended."""
    entry: str | None = None
    """Name of a function to call with `args` when the script has ended; what it returns is the exported value."""
    args: tuple[Any, ...] = ()
    limits: Limits | None = None
    """None: the slot's own."""
    language: str = "python"
    """Or one of `languages.LANGUAGES`: a program with stdin and stdout, without value, entry and args."""

    def __post_init__(self) -> None:
        if self.language != "python":
            if not isinstance(self.language, str) or self.language not in LANGUAGES:
                raise ValueError(f"request.language: {self.language!r}; expected python or {', '.join(LANGUAGES)}")
            if self.value is not None or self.entry is not None or self.args:
                raise ValueError(f"request.language: {self.language} has no value, entry or args; expected python")
        for name in ("code", "stdin"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"request.{name}: {type(getattr(self, name)).__name__}; expected a string")
        for name in ("value", "entry"):
            if (given := getattr(self, name)) is not None and not (isinstance(given, str) and given.isidentifier()):
                raise ValueError(f"request.{name}: {given!r}; expected a Python name")
        if self.value is not None and self.entry is not None:
            raise ValueError("request: value and entry are both set; expected at most one")
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise ValueError(f"request.limits: {type(self.limits).__name__}; expected Limits")
        if not isinstance(self.args, list | tuple):
            raise ValueError(f"request.args: {type(self.args).__name__}; expected a list of plain JSON values")
        object.__setattr__(self, "args", tuple(self.args))
        try:
            json.dumps(self.args, allow_nan=False, ensure_ascii=False).encode()
            _check_keys(self.args)
        except (TypeError, ValueError, RecursionError) as e:
            raise ValueError(f"request.args: {e}; expected plain JSON values") from None


def _check_keys(value: Any) -> None:
    """JSON would make text of them, and of two that become the same it would lose one."""
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"the key {odd[0]!r:.40} is no text")
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


@dataclass(frozen=True)
class Cell:
    """Code that a session has run, and how long that took: what running it again is measured by."""

    code: str
    wall_s: float

    def __post_init__(self) -> None:
        if not isinstance(self.code, str):
            raise ValueError(f"cell.code: {type(self.code).__name__}; expected a string")
        number = isinstance(self.wall_s, int | float) and not isinstance(self.wall_s, bool)
        if not number or not 0 <= self.wall_s < math.inf:
            raise ValueError(f"cell.wall_s: {self.wall_s!r}; expected a number of seconds, 0 or more")


@dataclass(frozen=True)
class Result:
    """What became of a run. Facts come from the kernel and the supervisor; `stdout`, `stderr`, `value` and, for
    status `error`, `reason` are the program's own words: claims, to be compared with but never believed."""

    status: Status
    reason: str = ""
    """One line: exception type and message, signal, limit; empty for ok."""
    stdout: str = ""
    stderr: str = ""
    value: Any = None
    """Strict JSON only: None, bool, int, finite float, str, list, dict."""
    truncated: bool = False
    """Some output was cut off."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    """Peak resident memory, the warm interpreter's included."""
    level: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Case:
    """One test of a program: a call (`args`, `expected`) or a script run (`stdin`, `stdout`)."""

    args: tuple[Any, ...] = ()
    expected: Any = None
    stdin: str = ""
    stdout: str | None = None


@dataclass(frozen=True)
class Verdict:
    passed: bool | None
    """None: the sandbox failed, so nothing is known."""
    result: Result


@dataclass(frozen=True)
class Layer:
    name: str
    active: bool
    detail: str
    """What it does here, or why the platform refused it."""


@dataclass(frozen=True)
class Platform:
    """What this machine offers, found by trying."""

    level: LevelName
    layers: tuple[Layer, ...]
    python: str
    kernel: str
    missing: tuple[str, ...] = field(default=())
    """For each level above this one: what it would take."""
    languages: tuple[Layer, ...] = ()
    """Beside Python: found by compiling and attacking a run; without it, what to install."""
