"""The arena: canaries on the host, and every attack run against a slot. Prints one JSON object a line.

    python -m tests.sandbox.simulate k8s-restricted -- python -m tests.sandbox.arena [FOLDER]

With a folder, its programs (see `attacks.from_folder`) are run too.

Each attack's row says whether it was contained, and why not if not. Two rows are no attacks: `ordinary programs` (a
sandbox that starts nothing would contain everything) and `nothing left behind`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sandbox import Case, Limits, Request, Slot, builds, languages

from .attacks import ATTACKS, CPP_ATTACKS, CPP_PRELUDE, PRELUDE, Attack, from_folder

FOLDER = Path(tempfile.gettempdir()) / f"sandbox-arena-{os.getpid()}"
LIMITS = Limits(wall_s=1.5, cpu_s=0.6, memory_mb=128)  # wall: more than twice the CPU, for the platforms share cores
BUILD_LIMITS = replace(builds.LIMITS, wall_s=12, cpu_s=2.5)  # wall: the platforms are attacked side by side
_ORDINARY = [
    ("print(6 * 7)", "42\n"),
    ("import numpy as np\nprint(np.linalg.det(np.eye(3)))", "1.0\n"),
    ("import sympy\nprint(sympy.factor(sympy.Symbol('x') ** 2 - 1))", "(x - 1)*(x + 1)\n"),
    ("open('a', 'w').write('b')\nprint(open('a').read())", "b\n"),
    ("import tempfile as t\nwith t.TemporaryDirectory(), t.TemporaryFile() as f: f.write(b'x'); print(1)", "1\n"),
    ("import threading\nt = threading.Thread(target=print, args=('t',))\nt.start(); t.join()", "t\n"),
    ("import asyncio\nasync def f(): await asyncio.sleep(0); print('a')\nasyncio.run(f())", "a\n"),
    ("import csv, sqlite3, uuid\nprint(sqlite3.connect(':memory:').execute('select 1').fetchone())", "(1,)\n"),
]  # fmt: skip


class Arena:
    """What an attack must not touch."""

    def __init__(self) -> None:
        (FOLDER / "open").mkdir(parents=True)
        (FOLDER / "open").chmod(0o777)
        (FOLDER / "tmp").mkdir(mode=0o711)
        (FOLDER / "answers.json").write_text('{"answer": "EXPECTED-canary"}')
        FOLDER.chmod(0o755)
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.sockets = [self.tcp]
        for kind, name in (
            (socket.SOCK_STREAM, str(FOLDER / "stream")),
            (socket.SOCK_DGRAM, str(FOLDER / "datagram")),
            (socket.SOCK_STREAM, f"\0{FOLDER.name}"),
        ):
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(name)
            if not name.startswith("\0"):
                os.chmod(name, 0o777)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            self.sockets.append(listener)
        for listener in self.sockets:
            listener.setblocking(False)
        self.libraries = _libraries()

    def program(self, attack: Attack) -> str:
        if attack.language == "c++":
            code = CPP_PRELUDE + attack.code.replace("TMP/", f"{FOLDER}/").replace('"TMP"', f'"{FOLDER}"')
            return code.replace("VICTIM", str(self.victim.pid)).replace("PORT", str(self.tcp.getsockname()[1]))
        code = PRELUDE.replace("/tmp/sandbox-arena", str(FOLDER)) + attack.code.replace("sandbox-arena", FOLDER.name)
        return code.replace("VICTIM", str(self.victim.pid)).replace("PORT", str(self.tcp.getsockname()[1]))

    def harm(self) -> list[str]:
        """What an attack did to the host."""
        found = []
        if self.victim.poll() is not None or _state(self.victim.pid) in "Tt":
            found.append("another process was killed or stopped")
        if os.listdir(FOLDER / "open"):
            found.append("a file appeared outside")
        for listener in self.sockets:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(64)
                else:
                    listener.accept()[0].close()
                found.append("a socket of the host was reached")
            except BlockingIOError:
                pass
        if _libraries() != self.libraries:
            found.append("a library was changed")
        return found

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for listener in self.sockets:
            listener.close()
        shutil.rmtree(FOLDER)


def _libraries() -> list[tuple[int, int, int]]:
    import sympy

    paths = (
        Path(json.__file__),
        Path(json.__file__).parent,
        Path(sympy.__file__).parent,
        Path(sympy.__file__).parents[1],
    )
    return [(s.st_size, s.st_mode, s.st_mtime_ns) for s in map(os.stat, paths)]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def faults(attack: Attack, arena: Arena, slot: Slot) -> list[str]:
    """Why the attack was not contained; empty if it was."""
    program, started = arena.program(attack), time.monotonic()
    if attack.forge and attack.language != "python":
        (verdict,) = slot.judge_stdio(program, [Case(stdout="EXPECTED-4711-abcd")], LIMITS, attack.language)
        found = [] if verdict.passed is False else [f"verdict {verdict.passed}: {verdict.result.reason}"]
        result = verdict.result
    elif attack.forge:
        case = Case(args=(1,), expected="EXPECTED-4711-abcd")
        (verdict,) = slot.judge_calls(program, "solve", [case], LIMITS)
        found = [] if verdict.passed is False else [f"verdict {verdict.passed}: {verdict.result.reason}"]
        result = verdict.result
    else:
        value = "answer" if attack.name == "giant value" else None
        result = slot.run(Request(program, value=value, limits=LIMITS, language=attack.language))
        found = [] if result.status in attack.allowed else [f"status {result.status}: {result.reason}"]
    found += [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("BREACH")]
    if len(result.stdout) > LIMITS.stdout_kb << 10 or len(result.stderr) > LIMITS.stderr_kb << 10:
        found.append("output beyond its limit")
    if time.monotonic() - started > LIMITS.wall_s + 2 + (attack.language != "python") * BUILD_LIMITS.wall_s:
        found.append(f"took {time.monotonic() - started:.1f} s")
    return found + arena.harm()


def ordinary(slot: Slot) -> list[str]:
    found = []
    for code, expected in _ORDINARY:
        result = slot.run(Request(code, limits=replace(LIMITS, wall_s=5)))
        if result.stdout != expected:
            found.append(f"{code!r} gives {result.status} {result.reason} {result.stdout!r}")
    return found


_ORDINARY_CPP = """
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <thread>
int main() {
    std::map<std::string, int> seen;
    for (std::string word; std::cin >> word;) seen[word]++;
    std::ofstream("a") << seen["b"];
    int back = 0;
    std::ifstream("a") >> back;
    std::thread([&] { back += std::random_device()() % 1; }).join();
    try { throw back; } catch (int n) { std::cout << n << " " << 1.5 << std::endl; }
}
"""


def ordinary_cpp(slot: Slot) -> list[str]:
    result = slot.run(Request(_ORDINARY_CPP, stdin="a b b", language="c++", limits=replace(LIMITS, wall_s=5)))
    return [] if result.stdout == "2 1.5\n" else [f"{result.status} {result.reason} {result.stdout!r}"]


def _children() -> list[str]:
    """Live processes below this one, and zombies of ours."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main() -> None:
    sys.path[:] = [path for path in sys.path if path]
    os.environ["ARENA_TOKEN"] = "secret"
    arena = Arena()
    tempfile.tempdir = str(FOLDER / "tmp")
    children = len(_children())
    slot = Slot("unsafe")
    print(json.dumps({"level": slot.level, "layers": {layer.name: layer.active for layer in slot.platform.layers}}))
    first = len(os.listdir("/proc/self/fd"))
    row("ordinary programs", ordinary(slot))
    builds.LIMITS = BUILD_LIMITS
    attacks = ATTACKS + (from_folder(Path(sys.argv[1])) if sys.argv[1:] else [])
    if "c++" in languages.found():
        attacks += CPP_ATTACKS
        row("ordinary C++ programs", ordinary_cpp(slot))
    for attack in attacks:
        found = faults(attack, arena, slot)
        if slot.run(Request("print('alive')")).stdout != "alive\n":
            found.append("the slot no longer works")
        row(attack.name, found)
    left = [f"{slot.restarts} restarts"] if slot.restarts else []
    if len(os.listdir("/proc/self/fd")) > first:
        left.append("descriptors")
    slot.close()
    if len(_children()) > children:
        left.append("processes")
    left += os.listdir(FOLDER / "tmp")
    row("nothing left behind", left)
    arena.close()


def row(name: str, found: list[str]) -> None:
    print(json.dumps({"name": name, "contained": not found, "faults": found}), flush=True)


if __name__ == "__main__":
    main()
