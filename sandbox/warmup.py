"""What every run finds loaded: the packages, and their caches filled by a little typical work.

Invariant: only trusted, fixed work is done here, before any untrusted code exists in the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .toolchains import spelled

_SNIPPET = """
x, y, n = sympy.symbols("x y n")
sympy.factor(x**6 - 1); sympy.factor(x**4 + 4 * x**2 * y + 3 * y**2); sympy.expand((x + y) ** 4)
sympy.solve(x**2 - 5 * x + 6, x); sympy.solve([x + y - 3, x - y - 1], [x, y]); sympy.integrate(x * sympy.sin(x), x)
sympy.diff(sympy.exp(x) * sympy.log(x), x); sympy.limit(sympy.sin(x) / x, x, 0); sympy.summation(n, (n, 1, 10))
sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2 - 1); sympy.factorint(360360); sympy.isprime(10**9 + 7)
sympy.Matrix([[2, 1], [1, 3]]).eigenvals(); sympy.sympify("2*x + 1/3"); sympy.parsing.sympy_parser.parse_expr("x**2")
sympy.nsimplify("0.25"); sympy.N(sympy.sqrt(2), 20); str(sympy.Rational(1, 3)); sympy.latex(x**2)
sympy.series(sympy.exp(x), x); sympy.solveset(x**2 - 2, x, sympy.S.Reals); sympy.gcd(x**2 - 1, x - 1)
sympy.apart(1 / (x * (x + 1)))
"""
_TYPICAL = {
    "numpy": "import numpy as np; print(np.arange(4.0) @ np.ones(4))",
    "sympy": "import sympy; x = sympy.symbols('x'); print(sympy.factor(x**6 - 1))",
}


_SITES = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Roots:
    """What a run may read, as spelled in `sys.path`."""

    stdlib: tuple[str, ...]
    packages: tuple[str, ...]
    libraries: tuple[str, ...]
    """Shared libraries, file by file, and the time zones."""
    masked: tuple[str, ...]
    """Directories below `stdlib` that hold other packages, which a run must not see."""


def load(packages: list[str]) -> Roots:
    """Import and warm `packages`, then narrow imports to them and the standard library."""
    before = set(sys.modules)
    for name in packages:
        importlib.import_module(name)
    if "numpy" in packages:
        importlib.import_module("numpy.random")
        numpy = sys.modules["numpy"]
        numpy.linalg.solve(numpy.eye(2), numpy.ones(2))
    if "sympy" in packages:
        importlib.import_module("sympy.parsing.sympy_parser")
        exec(compile(_SNIPPET, "<warm-up>", "exec"), {"sympy": sys.modules["sympy"]})
    if "math_verify" in packages:  # the first parse loads its LaTeX grammar and builds its tables
        math_verify = sys.modules["math_verify"]
        texts = (r"$\frac{1}{2} + \sqrt{2}x^2$", r"$\{1, (2, 3]\}$", r"$x \leq \pi$")
        parsed = [math_verify.parse(text, parsing_timeout=None) for text in texts]
        math_verify.verify(parsed[0], parsed[0], timeout_seconds=None)
    for name in (
        "asyncio",
        "decimal",
        "fractions",
        "statistics",
        "itertools",
        "dataclasses",
        "typing",
        "heapq",
        "bisect",
    ):
        importlib.import_module(name)
    roots = _roots({name.partition(".")[0] for name in set(sys.modules) - before})
    _narrow(roots)
    return roots


def typical(packages: list[str]) -> str:
    """A program that does a little of what most do."""
    return "\n".join(["print('6 * 7 =', 6 * 7)", *(_TYPICAL[name] for name in packages if name in _TYPICAL)])


def _roots(imported: set[str]) -> Roots:
    paths = sysconfig.get_paths()
    both = dict.fromkeys((paths["stdlib"], paths["platstdlib"]))
    # Of a virtual environment, the second holds packages and nothing else.
    stdlib = tuple(path for path in both if set(os.listdir(path)) - set(_SITES))
    packages = []
    for name in sorted(imported):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        where = os.path.dirname(file) if file and hasattr(module, "__path__") else file
        if where and (not below(where, stdlib) or "-packages/" in where):
            packages.append(where)
    known = _known(packages, stdlib)
    libraries = sorted(path for path in _linked_by(known) if not below(path, known))
    libraries += [path for path in ("/usr/share/zoneinfo",) if os.path.isdir(path)]
    masked = [os.path.join(lib, name) for lib in stdlib for name in _SITES]
    return Roots(stdlib, tuple(packages), tuple(libraries), tuple(path for path in masked if os.path.isdir(path)))


def open_modules(roots: Roots) -> None:
    """Have every compiled module in memory, with what it is linked with: a run then maps no file to import one."""
    _open(_modules(_known(roots.packages, roots.stdlib)))


def _known(packages: Iterable[str], stdlib: Iterable[str]) -> list[str]:
    return [*packages, *(os.path.join(lib, "lib-dynload") for lib in stdlib)]


def _modules(folders: Iterable[str]) -> list[str]:
    found = [os.path.join(at, name) for top in folders for at, _, names in os.walk(top) for name in names]
    return [*(path for path in found if ".so" in path and "_tkinter" not in path), "libgcc_s.so.1"]  # it ends threads


def _open(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            ctypes.CDLL(path, mode=os.RTLD_LAZY)


def _linked_by(folders: Iterable[str]) -> set[str]:
    """The shared libraries of this process, and those that it would have with every module in these folders, as the
    linker finds them: in a child, which loads them all."""
    said, saying = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _open(_modules(folders))
            with open(saying, "w") as out:
                out.write("\n".join(_linked()))
        finally:
            os._exit(0)
    os.close(saying)
    with open(said) as answer:
        found = _linked() | set(answer.read().split("\n"))
    os.waitpid(child, 0)
    return {spelled(path) for path in found if path.startswith("/")}


def _linked() -> set[str]:
    class Info(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))

    names: set[str] = set()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
    def note(info: Any, _size: int, _data: None) -> int:
        names.add(os.fsdecode(info.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(note, None)
    return names


def below(path: str, roots: tuple[str, ...] | list[str]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def _narrow(roots: Roots) -> None:
    """No import looks beyond the standard library: what is in `packages` is loaded already."""
    own = {"BuiltinImporter", "FrozenImporter", "PathFinder"}
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") in own]
    sys.path[:] = [path for path in sys.path if below(path, roots.stdlib) and not below(path, roots.masked)]
    sys.path_importer_cache.clear()
    importlib.util.find_spec("_nothing_")  # it lists the folders, which a run may not: their entries it may read
    sys.argv[:] = ["main.py"]
