"""Every hostile program, again and again, while honest ones run beside it, in the same slot and in another: do these
end as they do alone? Prints one JSON object a line, for each hostile program what was found.

    python -m tests.sandbox.simulate PLATFORM -- python -m tests.sandbox.crowd HONEST [PART/OF [FOLDER]] [--named A,B]

HONEST is how many honest runs there are beside each. PART/OF takes one of so many parts, program by program. --named
takes those whose names have one of these words in them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox import Limits, Request, Slot, languages
from sandbox.builds import Builds

from . import arena
from .attacks import ATTACKS, CPP_ATTACKS, Attack, from_folder

PATIENT = Limits(wall_s=20.0, cpu_s=4.0, memory_mb=128)
"""Of the honest: that they wait for a core is not what is asked."""
HONEST = [
    *(Request(code, limits=PATIENT) for code, _ in arena._ORDINARY),
    Request(
        "import threading\ngo = threading.Event()\nall = [threading.Thread(target=go.wait) for _ in range(30)]\n"
        "for t in all: t.start()\ngo.set()\nfor t in all: t.join()\nprint(len(all))",
        limits=PATIENT,
    ),
    Request("import os\nfor n in range(40): os.makedirs(f'{n}/in'); open(f'{n}/f', 'w')\nvalue = len(os.listdir())",
            value="value", limits=PATIENT),
    Request("def f(n): return f(n - 1) + n if n else 0", entry="f", args=(900,), limits=PATIENT),
    Request("open('f', 'wb').write(bytes(1 << 20)); x = bytearray(60 << 20); print(len(x))", limits=PATIENT),
    Request("x = bytearray(200 << 20)", limits=PATIENT),
    Request("print(input()[::-1])\n1 / 0", stdin="abc", limits=PATIENT),
]  # fmt: skip
_NEVER = 1 << 31
"""Else each thousandth run would have a new fork server by itself."""
CPP = Request(arena._ORDINARY_CPP, stdin="a b b", language="c++", limits=PATIENT)


def outcome(slot: Slot, request: Request, known: Builds) -> tuple[str, str, str]:
    result = slot.run(request, known)
    return result.status, result.stdout, json.dumps(result.value)


def beside(attack: Request, slots: tuple[Slot, Slot], alone: list[tuple[str, str, str]], honest: int, known: Builds,
           programs: list[Request]) -> list[str]:  # fmt: skip
    """Half of the honest runs share the hostile one's slot."""
    found: list[str] = []
    done = threading.Event()

    def attacker() -> None:
        while not done.is_set():
            if (result := slots[0].run(attack, known)).status == "infra":
                found.append(f"hostile: infra {result.reason}")

    def caller(slot: Slot) -> None:
        for n in itertools.islice(itertools.cycle(range(len(programs))), honest // 2):
            if (said := outcome(slot, programs[n], known)) != alone[n]:
                found.append(f"honest: {said} instead of {alone[n]}")

    with ThreadPoolExecutor(3) as threads:
        hostile = threads.submit(attacker)
        try:
            list(threads.map(caller, slots))
        finally:
            done.set()
        hostile.result()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("honest", type=int)
    parser.add_argument("part", nargs="?", default="1/1")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--named", type=lambda text: text.split(","), default=[""])
    options = parser.parse_args()
    part, of = map(int, options.part.split("/"))
    attacks: list[Attack] = ATTACKS + (from_folder(options.folder) if options.folder else [])
    programs, known = list(HONEST), Builds()
    if "c++" in languages.found():
        attacks = attacks + CPP_ATTACKS
        programs.append(CPP)
    attacks = [attack for attack in attacks if any(word in attack.name for word in options.named)]
    target = arena.Arena()
    tempfile.tempdir = str(arena.FOLDER / "tmp")
    try:
        with Slot("unsafe", recycle_after=_NEVER) as one, Slot("unsafe", recycle_after=_NEVER) as other:
            print(json.dumps({"level": one.level}), flush=True)
            alone = [outcome(other, program, known) for program in programs]
            for attack in attacks[part - 1 :: of]:
                hostile = Request(target.program(attack), limits=arena.LIMITS, language=attack.language)
                found = beside(hostile, (one, other), alone, options.honest, known, programs)
                found += [f"{slot.restarts} restarts" for slot in (one, other) if slot.restarts]
                print(json.dumps({"name": attack.name, "faults": found}), flush=True)
    finally:
        target.close()


if __name__ == "__main__":
    main()
