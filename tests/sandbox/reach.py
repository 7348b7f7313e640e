"""What of the machine a run can open, and what its root holds. Prints one JSON object.

    python -m tests.sandbox.simulate docker-root -- python -m tests.sandbox.reach

The expectation is `ldd`'s: the libraries that it names for the interpreter, its modules and the warm packages.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

from sandbox import Limits, Request, Slot, languages

_OPEN = """
import os
def opened(paths):
    found = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            found.append(path)
        except OSError: pass
    return found
"""
_ELSEWHERE = ("/etc", "/usr/bin", "/usr/lib", "/usr/include", "/usr/share", "/var", "/root", "/home", "/proc", "/sys")


def _packages() -> list[str]:
    import mpmath
    import numpy
    import sympy

    return [os.path.dirname(str(module.__file__)) for module in (mpmath, numpy, sympy)]


def allowed(path: str) -> bool:
    """Of the interpreter, its libraries, the warm packages, the time zones, or a device."""
    real = os.path.realpath(path)
    return real in _LIBRARIES or of(_ROOTS, real)


def of(tops: Iterable[str], path: str) -> bool:
    return any(path == top or path.startswith(top + "/") for top in tops)


def _libraries() -> set[str]:
    modules = [os.path.join(sysconfig.get_paths()["stdlib"], "lib-dynload"), *_packages()]
    objects = [str(path) for root in modules for path in Path(root).rglob("*.so")]
    said = subprocess.run(["ldd", sys.executable, *objects], capture_output=True, text=True).stdout
    ctypes.CDLL("libgcc_s.so.1")  # loaded by name when a thread ends
    with open("/proc/self/maps") as maps:
        said += "".join(f"\n=> {line.split()[-1]}" for line in maps if "libgcc_s" in line)
    return {os.path.realpath(path) for path in re.findall(r"(?:=>|^)\s*(/\S+)", said, re.MULTILINE)}


_ROOTS = [
    os.path.realpath(root)
    for root in (
        sysconfig.get_paths()["stdlib"], *_packages(), "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom",
        "/dev/random",
    )
]  # fmt: skip
_SITES = [os.path.join(sysconfig.get_paths()["stdlib"], name) for name in ("site-packages", "dist-packages")]


def files(top: str, but: Iterable[str] = ()) -> Iterable[str]:
    for at, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(at, name) not in but]
        yield from (os.path.join(at, name) for name in names)


def of_the_machine() -> list[str]:
    """Some thousands of files outside: system, other packages of this environment, those of the interpreter."""
    site = os.path.dirname(_packages()[0])
    tops = [*_ELSEWHERE, site, *_SITES]
    return [path for top in tops for path in islice(chain([top], files(top, but=("/proc/self",))), 1500)]


def in_root(slot: Slot) -> list[str] | None:
    """Everything in the root of the fork server, by the names it has there; None without a mount jail, whose root is
    the machine's."""
    assert slot._zygote is not None
    if not slot._zygote.layer("mount jail"):
        return None
    root = f"/proc/{slot._zygote.process.pid}/root"
    return [path.removeprefix(root) for path in files(root, but=[root + one for one in _ROOTS])]


def main() -> None:
    tools = {
        path
        for language in languages.found().values()
        for path in (*(stage.tool for stage in language.stages), *language.readable, *language.loaders)
    }
    with Slot("unsafe", limits=Limits(value_kb=4096, cpu_s=20, wall_s=30)) as slot:
        outside = [path for path in of_the_machine() if not allowed(path)]
        result = slot.run(Request(_OPEN, entry="opened", args=(outside,)))
        shown = in_root(slot)
        rest = None if shown is None else [path for path in shown if not allowed(path) and not of(tools, path)]
        print(json.dumps({"tried": len(outside), "status": result.status, "opened": result.value, "shown": rest}))


_LIBRARIES = _libraries()
if __name__ == "__main__":
    main()
