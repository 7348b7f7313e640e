"""What runs do to each other and to those that run them: kinds of harm that one program alone does not show. Prints one
JSON object a line, for each kind what was found.

    python -m tests.sandbox.simulate docker-root -- python -m tests.sandbox.neighbours [HONEST RUNS BESIDE EACH]
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox import Limits, Request, Result, Slot, host, scratch
from sandbox.session import Session

from .attacks import ATTACKS, PRELUDE

LIMITS = Limits(wall_s=3.0, cpu_s=1.5, memory_mb=128)
HONEST = "import os, threading\nt = threading.Thread(target=print, args=(1 + 1,))\nt.start(); t.join()\nopen('a', 'w')"
CLEANER = ("cleaner", "numbers for names", "sandbox's own names", "no text")
HIDING = ("cannot be read", "mask shuts", "while they are counted")


def attacks(*words: str) -> list[str]:
    """Programs of attacks.txt, by words of their names."""
    found = [attack.code for attack in ATTACKS if any(word in attack.name for word in words)]
    assert len(found) >= 5
    return [PRELUDE + code for code in found]


def beside(slot: Slot, codes: Sequence[str], allowed: set[str], honest: int) -> list[str]:
    """Hostile programs, again and again, while honest ones run: what was wrong with either."""
    found: list[str] = []
    done = threading.Event()

    def attack() -> None:
        while not done.is_set():
            for code in codes:
                result = slot.run(Request(code))
                if result.status not in allowed or "BREACH" in result.stdout:
                    found.append(f"hostile: {result.status} {result.reason} {result.stdout[:80]}")

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        found += [wrong for _ in range(honest) if (wrong := unlike(slot.run(Request(HONEST)), "ok", "2\n"))]
    finally:
        done.set()
        attacker.join()
    return found


def unlike(result: Result, status: str, stdout: str = "") -> str:
    if (result.status, result.stdout) == (status, stdout):
        return ""
    return f"{result.status} {result.reason} {result.stdout!r}"


def names_of_the_cleaner(slot: Slot, honest: int) -> list[str]:
    return beside(slot, attacks(*CLEANER), {"ok"}, honest)


def hidden_from_counting(slot: Slot, honest: int) -> list[str]:
    return beside(slot, attacks(*HIDING), {"disk_limit", "timeout", "cpu_limit"}, honest)


_MANY = """
import threading, time
threading.stack_size(1 << 16)
for _ in range(30): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
"""
_FLOOD = "import os, sys\nkept = 1\nsys.stdout.write('x' * (1 << 20) + 'y' * %d)\nos.write(1, b'z')"


def threads_of_frozen_sessions(slot: Slot, honest: int) -> list[str]:
    """Every program with as many threads as it may have, while others have theirs: none counts against another."""
    sessions = [slot.session() for _ in range(3)]
    try:
        found = [wrong for session in sessions if (wrong := unlike(session.run(_MANY), "ok"))]
        for _ in range(36):
            found += [wrong] if (wrong := unlike(slot.run(Request(_MANY)), "ok")) else []
        if uids := outside(slot):
            found += [] if len(set(uids)) == len(uids) else [f"live runs share a uid: {sorted(uids)}"]
        return found
    finally:
        for session in sessions:
            session.close()


def outside(slot: Slot) -> list[int]:
    """The uids of the live runs, where each is to have its own."""
    assert slot._zygote is not None
    if not slot._zygote.layer("throw-away uid"):
        return []
    runs = []
    for status in map(_status, _below(slot._zygote.process.pid)):
        if "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status:
            uid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid"))
            runs += [uid] if uid >= 20000 else []
    return runs


def _below(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(inner for child in children for inner in _below(child))]


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


_WHO = "import os; seen = [os.getuid(), os.geteuid(), os.getgid(), os.stat('.').st_uid, os.getgroups(), os.umask(0o22)]"
_LOOK = """
import os, pathlib
seen = []
for folder in {'..', '../..', '/tmp', str(pathlib.Path.cwd().parent)}:
    try: seen += os.listdir(folder) if folder != '/tmp' or os.getcwd() != '/tmp' else []
    except OSError: pass
    for n in range(200):
        for name in (f'run-{n}', f'{n}', f'.{n}', f'{n:032x}'):
            try: seen.append(os.readlink(f'{folder}/{name}/secret'))
            except OSError: pass
            if os.path.exists(f'{folder}/{name}') and os.getcwd() != '/tmp': seen.append(name)
"""


_BOOKS = """
import sys
seen, frame = [], sys._getframe()
while frame := frame.f_back:
    for name, value in frame.f_locals.items():
        if type(value).__name__ == 'Zygote':
            seen += [str(kept) for kept in (*value.children.values(), *value.uids)]
        elif name in ('data', 'born', 'facts', 'event', 'fds'):
            seen.append(f'{name}: {value}')
seen = [words for words in seen if 'limits' in words or 'pid' in words or words.isdigit()]
"""


def words_between_runs(slot: Slot, honest: int) -> list[str]:
    """Who a run is and what lies beside it says nothing of the runs before it and beside it."""
    alone = [slot.run(Request(_WHO, value="seen")).value for _ in range(4)]
    found = [] if alone[0] and alone == alone[:1] * 4 else [f"a run knows its turn: {alone}"]
    with slot.session() as beside:
        beside.run("import os\nos.symlink('word', 'secret')\nfor n in range(5): os.mkdir(f'd{n}')")
        seen = slot.run(Request(_LOOK, value="seen"))
        found += [] if seen.value == [] else [f"a neighbour's scratch: {seen.status} {seen.reason} {seen.value}"]
        kept = slot.run(Request(_BOOKS, value="seen"))
        found += [] if kept.value == [] else [f"the fork server's books: {kept.status} {kept.reason} {kept.value}"]
    numbers = [
        "import random; x = random.getrandbits(64)",
        "import sympy.core.random as r; x = r.rng.getrandbits(64)",
        "import numpy; x = int(numpy.random.randint(1 << 60))",
        "import sympy.core.random as r; x = r.random()",
        "import uuid, os; x = [str(uuid.uuid4()), os.urandom(4).hex()]",
    ]
    for code in numbers:
        values = [slot.run(Request(code, value="x")) for _ in range(2)]
        if values[0].status == "ok" and values[0].value == values[1].value:
            found.append(f"the same in every run: {code}")
    return found


def sessions(slot: Slot, honest: int) -> list[str]:
    """What a cell did to the next: no `infra`, nothing `ok` that did not run, nothing kept of what was stopped."""
    found = []

    def check(what: str, *results: tuple[Result, str]) -> None:
        for n, (result, expected) in enumerate(results):
            if result.status not in expected.split():
                found.append(f"{what}, cell {n}: {result.status} {result.reason}")

    def story(action: Callable[[Session], None], **given: float) -> None:
        with slot.session(**given) as session:
            action(session)

    for end in ("os._exit(0)", "os._exit(3)", "os.abort()", "time.sleep(99)", "sys.stdout.write('x' * (2 << 20))"):
        later = f"__import__('time').time() > {time.time() + 1}"
        with slot.session(limits=Limits(wall_s=0.6, cpu_s=0.4)) as session:
            check(f"by the clock {end}", (session.run(f"import os, sys, time\nif {later}: {end}"), "ok"))
            time.sleep(max(0.0, float(later.split()[-1]) + 0.05 - time.time()))
            stopped = session.run("while True: pass")
            check(f"by the clock {end}", (stopped, "timeout cpu_limit error"), (session.run("print(1)"), "error"))
    for line in ("{}", '{"value": 1}', "", "00000000000000000000000000000000{}", '{"reason": "x", "cell": 1}'):
        with slot.session() as session:
            forged = f"import os\nfor _ in range(3): os.write(3, {line + chr(10)!r}.encode())"
            check(f"forged {line}", (session.run(forged), "ok"), (session.run("1 / 0"), "error"))
            check(f"forged {line}", (session.run("x = 5", value="x"), "ok"), (session.run("y", value="y"), "error"))
    with slot.session() as session:
        leave = "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()"
        check("left a thread", (session.run(leave), "ok"))
        time.sleep(0.1)
        check("left a thread", (session.run("while True: pass"), "error"))
    for n in range(8):
        with slot.session() as session:
            flood = _FLOOD % (n * 500)
            check("flood", (session.run(flood), "output_limit"), (session.run("kept"), "error"))
            if [cell.code for cell in session.cells] != ["kept"]:
                found.append(f"a killed cell is part of the state: {len(session.cells)}")
    story(lambda s: check("past the end", (s.run("import time; time.sleep(1)"), "ok")), lifetime_s=0.3)
    burn = "import time\nwhile time.process_time() < 1: pass"
    story(lambda s: check("CPU past the end", (s.run(burn), "ok timeout")), lifetime_s=0.1)
    closing = ("os.close(3)", "os.close(4)", "os.close(1)", "os.dup2(1, 3)", "os.closerange(0, 64)")
    for end in closing:
        with slot.session(limits=Limits(wall_s=0.5, cpu_s=0.4)) as session:
            results = session.run(f"import os\n{end}"), session.run("print(1)")
            check(end, *((result, "ok error timeout crash") for result in results))
    return found


def work_for_the_supervisor(slot: Slot, honest: int) -> list[str]:
    """How often it looks and reads is decided by the clock, not by the program."""
    looks, reads = [0], [0]
    usage, read = scratch.usage, host.Run._read

    def looking(path: str, still: bool) -> tuple[int, int, bool]:
        looks[0] += 1
        return usage(path, still)

    def reading(run: host.Run, fd: int) -> int:
        reads[0] += 1
        return read(run, fd)

    scratch.usage, host.Run._read = looking, reading  # type: ignore[assignment]
    found = []
    try:
        for body in (
            "for n in range(900): open(f'f{n}', 'w').close()\nwhile True: os.write(1, b'x'); time.sleep(0.001)",
            "while True: os.write(2, b'x'); time.sleep(0.0005)",
            "while True: os.write(3, b'x'); os.write(1, b'x'); time.sleep(0.001)",
            "for n in range(90): os.makedirs(f'{n}/a/b')\nwhile True: os.write(1, b'x'); time.sleep(0.001)",
            "sys.stdout.reconfigure(write_through=True)\nwhile True: print(); time.sleep(0.001)",
        ):
            looks[0] = reads[0] = 0
            result = slot.run(Request(f"import os, sys, time\n{body}", limits=Limits(wall_s=0.6)))
            if looks[0] > 2 * (result.wall_s / 0.05 + 1) or reads[0] > 3 * (result.wall_s / 0.005) + 20:
                found.append(f"{body}: {looks[0]} looks, {reads[0]} reads in {result.wall_s:.1f} s, {result.reason}")
    finally:
        scratch.usage, host.Run._read = usage, read  # type: ignore[method-assign]
    return found


KINDS = (
    names_of_the_cleaner, hidden_from_counting, threads_of_frozen_sessions, words_between_runs, sessions,
    work_for_the_supervisor,
)  # fmt: skip


def main() -> None:
    honest = int(sys.argv[1]) if sys.argv[1:] else 20
    with Slot("unsafe", packages=("numpy", "sympy"), limits=LIMITS) as slot:
        for kind in KINDS:
            found = kind(slot, honest)
            if slot.restarts or slot.left:
                found.append(f"{slot.restarts} restarts, {slot.left} left behind")
            print(json.dumps({"name": kind.__name__, "faults": found}), flush=True)


if __name__ == "__main__":
    main()
