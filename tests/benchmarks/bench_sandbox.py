"""The sandbox against a plain subprocess, side by side: medians of alternating runs, so that load hits both alike.

    python -m tests.benchmarks.bench_sandbox [--runs 100] [--soak 10000] [--json FILE]

`bare fork` is the floor: the same warm interpreter forks, the child does the same work without any wall and ends.
`--soak N` adds N mixed runs by 8 callers at a pool, a third of them hostile programs, a third honest ones, a sixth each
hostile and honest sessions. It counts what is left behind, and fails if anything honest ends otherwise than alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox import Cell, Request, Slot, languages
from sandbox.builds import Builds

WORKLOADS = {
    "print": "print(6 * 7)",
    "numpy": "import numpy as np; print(np.arange(10.0) @ np.ones(10))",
    "sympy": "import sympy; x = sympy.symbols('x'); print(sympy.factor(x**8 - 1))",
}
HOSTILE = [
    "while True: pass",
    "import os\nos.fork()",
    "x = bytearray(1 << 34)",
    "import os\nwhile True: os.write(1, b'x' * 65536)",
    "import ctypes\nctypes.string_at(0)",
    "for n in range(3000): open(f'f{n}', 'w').write('x' * 9999)",
    "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(9,)).start()",
    "import ctypes\nctypes.CDLL(None).syscall(101, 0, 0, 0, 0)",
    "import os\nfd = os.open('/etc/passwd', os.O_RDONLY)",
]


HONEST = [
    *WORKLOADS.values(),
    "import threading, time\nall = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(30)]\n"
    "for t in all: t.start()\nfor t in all: t.join()\nprint(len(all))",
    "import os\nfor n in range(50): os.makedirs(f'{n}/in'); open(f'{n}/in/f', 'w').write('x' * n)\n"
    "print(sum(os.path.getsize(f'{n}/in/f') for n in range(50)))",
]
HONEST_SESSION = ["x = [1]", "x.append(len(x) + 1); print(x)", "1 / 0", "print(sum(x))"]
HOSTILE_SESSIONS = [
    ["import os\nos._exit(0)", "print(1)"],
    ["import os\nfor _ in range(9): os.write(3, b'{}\\n')", "1 / 0"],
    ["x = 1", "while True: pass", "print(x)"],
    ["import os\nwhile True: os.write(1, b'x' * 65536)", "print(1)"],
    [
        "import threading, time\n"
        "for _ in range(30): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    ],
    ["import os\nos.closerange(0, 64)", "print(1)"],
    ["import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f, daemon=True).start()", "print(1)"],
]


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": round(statistics.median(ordered), 2), "p99": round(ordered[int(len(ordered) * 0.99)], 2)}


class BareFork:
    """The floor: a warm interpreter that forks a child to run the code, with no wall at all."""

    _SERVER = """
import contextlib, gc, os, sys
sys.path.insert(0, sys.argv[1])
from sandbox import pages, warmup
warmup.load(["numpy", "sympy"])
gc.collect(); gc.freeze(); gc.disable(); pages.merge(os.open("/proc", os.O_PATH))
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        gc.enable()
        exec(eval(line), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    os.write(2, b".")
"""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-c", self._SERVER, str(Path(__file__).parents[2])]
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, env=one_thread)

    def run(self, code: str) -> None:
        assert self.process.stdin and self.process.stderr
        self.process.stdin.write(repr(code).encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stderr.read(1) == b"."

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def speed(runs: int) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    bare = BareFork()
    with Slot() as slot, tempfile.TemporaryDirectory() as folder:
        for name, code in WORKLOADS.items():
            file = Path(folder, f"run_{name}.py")
            file.write_text(code)
            command = [sys.executable, str(file)]
            for warm in (lambda: slot.run(Request(code)), lambda: bare.run(code)):  # noqa: B023 - called at once
                warm()
            times: dict[str, list[float]] = {"sandbox": [], "bare fork": [], "subprocess": []}
            for n in range(runs):
                times["sandbox"].append(milliseconds(lambda: slot.run(Request(code))))  # noqa: B023
                times["bare fork"].append(milliseconds(lambda: bare.run(code)))  # noqa: B023
                if n < max(5, runs // 10):
                    times["subprocess"].append(milliseconds(lambda: subprocess.run(command, capture_output=True)))  # noqa: B023
            medians = {kind: statistics.median(found) for kind, found in times.items()}
            table[name] = {kind: spread(found) for kind, found in times.items()}
            table[name]["isolation ms"] = round(medians["sandbox"] - medians["bare fork"], 2)
            table[name]["times faster than subprocess"] = round(medians["subprocess"] / medians["sandbox"], 1)
    bare.close()
    return table


def busy(runs: int) -> dict[str, dict[str, float]]:
    """Runs a second of two callers who never pause, each with a slot or with a bare fork: medians of alternating
    spells. Nothing can be done ahead here but at the cost of another run."""
    table: dict[str, dict[str, float]] = {}
    bare = [BareFork(), BareFork()]
    with Slot() as one, Slot() as other, ThreadPoolExecutor(2) as callers:
        kinds: dict[str, list[Callable[[str], object]]] = {
            "sandbox": [lambda code: one.run(Request(code)), lambda code: other.run(Request(code))],
            "bare fork": [fork.run for fork in bare],
        }
        for name, code in WORKLOADS.items():
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(6):
                for kind, actions in kinds.items():
                    spell = milliseconds(
                        lambda: list(callers.map(lambda run: [run(code) for _ in range(runs)], actions))  # noqa: B023
                    )
                    rates[kind].append(2 * runs / spell * 1000)
            table[name] = {kind: round(statistics.median(found[1:]), 1) for kind, found in rates.items()}
    for fork in bare:
        fork.close()
    return table


EPISODE = [
    "import sympy\nx = sympy.symbols('x')\nanswers = []",
    *(f"answers.append(sympy.factor(x**{n} - 1)); print(answers[-1])" for n in range(6, 13)),
]


def sessions(runs: int) -> dict[str, dict[str, object]]:
    """After 1 to 8 cells of an episode: the next cell in the live session, and in one that is rebuilt by replay."""
    table: dict[str, dict[str, object]] = {}
    with Slot() as slot:
        for length in (1, 2, 4, 8):
            times: dict[str, list[float]] = {"live": [], "replay": []}
            for _ in range(runs):
                with slot.session() as live:
                    for cell in EPISODE[:length]:
                        assert live.run(cell).ok
                    with slot.session(cells=live.cells) as rebuilt:
                        times["live"].append(milliseconds(lambda: live.run("n = len(answers)")))
                        times["replay"].append(milliseconds(lambda: rebuilt.run("n = len(answers)")))
            table[f"after {length} cells"] = {kind: spread(found) for kind, found in times.items()}
    return table


def compiled(runs: int) -> dict[str, object]:
    """A C++ program of a few lines with the standard library's streams: the first test, which compiles, and others."""
    code = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"
    with Slot() as slot:
        assert slot.offers("c++").active
        first, other = [], []
        for _ in range(runs):
            known = Builds()
            request = Request(code, stdin="3 4", language="c++")
            first.append(milliseconds(lambda: slot.run(request, known)))  # noqa: B023 - called at once
            other.append(milliseconds(lambda: slot.run(request, known)))  # noqa: B023
    return {"first test": spread(first), "next tests": spread(other)}


def _below(pid: int) -> int:
    """Processes below one, of any depth, zombies too."""
    count = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = [int(child) for child in (task / "children").read_text().split()]
            count += len(children) + sum(map(_below, children))
    return count


def _left() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    return {
        "processes": _below(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "temporary files": sum(name.startswith("agentic-sandbox-") for name in os.listdir(tempfile.gettempdir())),
        "control groups": len(list(Path("/sys/fs/cgroup").rglob("agentic-sandbox-*"))),
        "shared memory": len(os.listdir("/dev/shm")) + len(Path("/proc/sysvipc/shm").read_text().splitlines()) - 1,
        "resident MB": next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS")),
    }


async def soak(runs: int, slots: int) -> dict[str, Any]:
    from actors.sandbox_pool import SandboxPool

    before = _left()
    pool = SandboxPool(slots=slots, limits={"wall_s": 1.0, "cpu_s": 0.3, "memory_mb": 128})
    after_start = _left()
    times: list[float] = []
    statuses: Counter[str] = Counter()
    unlike: list[str] = []
    numbers = iter(range(runs))

    async def outcome(code: str) -> tuple[str, str]:
        result = await pool.run(Request(code))
        statuses[result.status] += 1
        return result.status, result.stdout

    async def session(name: str, codes: list[str]) -> list[tuple[str, str]]:
        said: list[tuple[str, str]] = []
        cells: tuple[Cell | str, ...] = ()
        for code in codes:
            result, cells = await pool.session_run(name, code, cells)
            statuses[f"cell {result.status}"] += 1
            said.append((result.status, result.stdout))
        await pool.close_session(name)
        return said

    alone = {code: await outcome(code) for code in HONEST}
    session_alone = await session("alone", HONEST_SESSION)

    async def client() -> None:
        for n in numbers:
            started, kind = time.perf_counter(), n % 6
            if kind in (0, 3):
                await outcome(HOSTILE[n // 3 % len(HOSTILE)])
            elif kind == 2:
                await session(f"{n}", HOSTILE_SESSIONS[n // 6 % len(HOSTILE_SESSIONS)])
            elif kind == 5:
                if (said := await session(f"{n}", HONEST_SESSION)) != session_alone:
                    unlike.append(f"session: {said}")
            else:
                code = HONEST[n // 3 % len(HONEST)]
                if (found := await outcome(code)) != alone[code]:
                    unlike.append(f"{code}: {found}")
                times.append((time.perf_counter() - started) * 1000)
            if n == runs // 10:
                nonlocal after_start
                after_start = _left()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(8)))
    seconds = time.perf_counter() - started
    at_end, restarts, left = _left(), pool.stats()["restarts"], pool.stats()["left"]
    pool.close()
    return {
        "runs": runs,
        "runs/s": round(runs / seconds, 1),
        "honest programs, queueing included, ms": spread(times),
        "honest, and unlike alone": {"count": len(unlike), "the first": unlike[:10]},
        "statuses": dict(statuses),
        "fork servers made anew": restarts,
        "scratch folders not removed": left,
        "before": before,
        "after a tenth": after_start,
        "at the end": at_end,
        "after closing": _left(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, object] = {"cores": len(os.sched_getaffinity(0)), "speed": speed(options.runs)}
    report["busy, runs/s"] = busy(max(5, options.runs // 5))
    report["sessions"] = sessions(max(5, options.runs // 5))
    if "c++" in languages.found():
        report["c++"] = compiled(max(5, options.runs // 10))
    wrong = 0
    if options.soak:
        soaked = report["soak"] = asyncio.run(soak(options.soak, options.slots))
        wrong = soaked["honest, and unlike alone"]["count"]
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(f"{wrong} honest runs ended otherwise than alone" if wrong else 0)


if __name__ == "__main__":
    main()
