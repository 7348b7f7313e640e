"""Memory touched ahead of a run: what is learned of a child, and what it saves the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .test_survival import ROOT, waiting

_CHILDREN = """
import array, ctypes, json, mmap, os, resource, sys
from sandbox import pages

def in_a_child(work):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    return json.loads(open(reading).read())

def write():
    for page in wanted:
        memory[page * mmap.PAGESIZE] = 1

def after(action):
    action()
    assert memory[:] == b"x" * len(memory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    write()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory = mmap.mmap(-1, 1000 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"x" * len(memory))
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
wanted = [page for page in range(1000) if page % 7 in (1, 2, 5)]

def learn():
    write()
    return pages.touched(os.open("/proc/self/pagemap", os.O_RDONLY))

pages.watch(os.open("/proc", os.O_PATH))
learned = array.array("Q", in_a_child(learn))
spans = [(at - start, at - start + size) for at, size in zip(learned[::3], learned[1::3])]
found = [at // mmap.PAGESIZE for span in spans for at in range(*span, mmap.PAGESIZE) if 0 <= at < len(memory)]
ahead = in_a_child(lambda: after(lambda: pages.touch(learned)))
print(json.dumps([found == wanted, in_a_child(lambda: after(lambda: None)), ahead]))
"""


def test_what_a_child_wrote_to_is_learned_to_the_page_and_spares_the_next_its_faults() -> None:
    run = subprocess.run([sys.executable, "-c", _CHILDREN], capture_output=True, text=True, cwd=ROOT, check=True)
    exact, without, ahead = json.loads(run.stdout)
    assert exact and without >= 400 and ahead < 40


_SLOT = """
import sys
from sandbox import Request, Slot
with Slot("unsafe") as slot:
    print(slot._zygote.process.pid, flush=True)
    sys.stdin.read()
    print(slot.run(Request(sys.argv[1])).stdout)
"""
_COUNT = """
import resource, sympy
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
sympy.factor(sympy.symbols("x") ** 8 - 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_END = """
import os, resource, sys
class Last:
    def flush(self): os.write(1, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
sys.stdout = Last()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""


@pytest.mark.parametrize("platform", ("vm-root", "vm-user", "k8s-restricted") if os.geteuid() == 0 else ("vm-root",))
def test_while_nothing_runs_the_next_process_takes_the_faults_of_its_program(platform: str) -> None:
    """Counted from outside before the order comes, and by the program after it."""
    program, ahead = when_it_rested(platform, _COUNT)
    assert program < 300 < 1000 < ahead


def test_while_nothing_runs_the_next_process_takes_the_faults_of_its_end() -> None:
    before_its_output_is_flushed, _ = when_it_rested("vm-root", _END)
    assert before_its_output_is_flushed < 10


def when_it_rested(platform: str, code: str) -> tuple[int, int]:
    """What a run says whose process had all the time to wait for it, and the faults that this one took meanwhile."""
    command = [sys.executable, "-m", "tests.sandbox.simulate", platform, "--", sys.executable]
    command += ["-c", _SLOT, code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdin and process.stdout
    (spare,) = waiting(int(process.stdout.readline()))
    end, counts = time.monotonic() + 10, list(range(6))
    while len(set(counts[-5:])) > 1 and time.monotonic() < end:  # until it has done what there is to do
        time.sleep(0.1)
        counts.append(faults(spare))
    return int(process.communicate()[0]), counts[-1]


def faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
