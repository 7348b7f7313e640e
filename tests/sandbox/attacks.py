"""The hostile programs of attacks.txt, and the helpers that they call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REFUSED = frozenset({"ok", "error", "violation"})
ENDED = REFUSED | {"crash", "timeout", "cpu_limit", "memory_limit"}

PRELUDE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def breach(*what): os.write(1, ("BREACH " + " ".join(map(str, what)) + "\n").encode())
def attempt(what, action, *args):
    try: result = action(*args)
    except BaseException as e: print(what, "refused:", type(e).__name__, e)
    else: breach(what, result)
def raw(what, *args):
    if libc.syscall(*args) >= 0: breach(what)
    else: print(what, "refused:", ctypes.get_errno())
TMP = "/tmp/sandbox-arena"
"""


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    allowed: frozenset[str]
    forge: bool
    control: bool


def _parse(text: str) -> list[Attack]:
    found = []
    for section in text.split("\n=== ")[1:]:
        head, code = section.split("\n", 1)
        name, allowed, marks = (part.strip() for part in head.split("|"))
        statuses = {"refused": REFUSED, "ended": ENDED}.get(allowed, frozenset(allowed.split()))
        found.append(Attack(name, code, statuses, "forge" in marks, "control" in marks))
    return found


ATTACKS = _parse(Path(__file__).with_suffix(".txt").read_text())
