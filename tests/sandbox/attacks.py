"""The hostile programs of attacks.txt and attacks_cpp.txt, and the helpers that they call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REFUSED = frozenset({"ok", "error", "process_limit", "open_files_limit", "file_size_limit", "violation"})
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
CPP_PRELUDE = r"""
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <initializer_list>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static void breach(const char *what) { printf("BREACH %s\n", what); fflush(stdout); }
template <class... T> void raw(const char *what, long number, T... words) {
    if (syscall(number, words...) >= 0) breach(what);
}
"""


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    allowed: frozenset[str]
    forge: bool
    control: bool
    language: str = "python"


def _parse(text: str, language: str) -> list[Attack]:
    found = []
    for section in text.split("\n=== ")[1:]:
        head, code = section.split("\n", 1)
        name, allowed, marks = (part.strip() for part in head.split("|"))
        statuses = {"refused": REFUSED, "ended": ENDED}.get(allowed, frozenset(allowed.split()))
        found.append(Attack(name, code, statuses, "forge" in marks, "control" in marks, language))
    return found


def from_folder(folder: Path) -> list[Attack]:
    """Programs of other authors, one a file, with a first line `# SAFE: ` that names what a safe sandbox reports; what
    succeeds prints PWNED."""
    return [_foreign(path.name, *path.read_text().split("\n", 1)) for path in sorted(folder.glob("*.py"))]


def _foreign(name: str, safe: str, code: str) -> Attack:
    known = {"error", "timeout", "cpu_limit", "output_limit", "crash", "violation", "memory_limit"}
    words = safe.replace("MemoryError", "memory_limit").replace("timeout", "timeout cpu_limit")
    named = known & set(re.findall(r"\w+", words)) if "status" in safe else set()
    if "error" in named:  # a refusal, which may be caught
        named |= REFUSED
    for theirs, ours in (
        ("/tmp/sandbox-test/sock", "/tmp/sandbox-arena/stream"),
        ("/tmp/sandbox-test/dsock", "/tmp/sandbox-arena/datagram"),
        ("/tmp/sandbox-test", "/tmp/sandbox-arena"),
        ("secret.txt", "answers.json"),
        ("18765", "PORT"),
        ("PWNED", "BREACH"),
    ):
        code = code.replace(theirs, ours)
    return Attack(name, code, frozenset(named or ENDED | {"output_limit"}), "FORGE" in safe, False)


ATTACKS = _parse(Path(__file__).with_suffix(".txt").read_text(), "python")
CPP_ATTACKS = _parse(Path(__file__).with_name("attacks_cpp.txt").read_text(), "c++")
