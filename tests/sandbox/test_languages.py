"""Compiled languages: the same outcomes, limits and verdicts as for Python; one compilation for many tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import Case, Limits, Request, Result, Slot, builds, host, languages, probe
from sandbox.builds import Builds

from .conftest import QUICK

ROOT = Path(__file__).parents[2]
HAVE_CPP = "c++" in languages.found()
needs_cpp = pytest.mark.skipif(not HAVE_CPP, reason="no g++ on this machine")
SUM = '#include <cstdio>\nint main() { int a, b; if (scanf("%d %d", &a, &b) == 2) printf("%d\\n", a + b); }'


def cpp(slot: Slot, code: str, **given) -> Result:
    return slot.run(Request(code, language="c++", **given))


@needs_cpp
@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("int main() {}", "ok", ""),
        ("int main() { return 3; }", "error", "exit code 3"),
        ("int main() { return x; }", "error", "does not compile: main.cpp:1:21: error: 'x' was not declared in"),
        ("int f();\nint main() { return f(); }", "error", "undefined reference to `f()'"),
        ("", "error", "undefined reference to `main'"),
        ("int main() { for (volatile int n = 0;; n++); }", "cpu_limit", "more than 0.4 s of CPU time"),
        ("#include <unistd.h>\nint main() { sleep(9); }", "timeout", "no end after 2 s"),
        ("int main() { for (;;) *(volatile char *)new char[1 << 20] = 1; }", "memory_limit", ""),
        ("#include <cstdio>\nint main() { for (;;) puts(\"012345\"); }", "output_limit", "more than 1024 KB of stdout"),
        ("int main() { *(volatile int *)8 = 1; }", "crash", "SIGSEGV"),
        ("#include <unistd.h>\nint main() { syscall(101, 0, 0, 0, 0); }", "violation", "a forbidden system call"),
        ("int everything[1 << 28] = {1};\nint main() { return everything[5]; }", "file_size_limit", "does not compile"),
        ("#include <unistd.h>\n#include <cstdio>\nint main() { if (fork() < 0) return perror(0), 1; }",
         "process_limit", ""),
        ("#include <thread>\n#include <chrono>\n#include <list>\nint main() { std::list<std::thread> all; for (;;)"
         "all.emplace_back([] { std::this_thread::sleep_for(std::chrono::seconds(9)); }); }", "process_limit", ""),
        ("#include <cstdio>\nint main() { while (fopen(\"/dev/null\", \"r\")); perror(0); return 1; }",
         "open_files_limit", ""),
        ("#" * (257 << 10), "error", "code: 257 KB; the limit is 256 KB"),
        ("\ud800", "error", "code: lone surrogates are no Unicode text"),
    ],
)  # fmt: skip
def test_each_ending_has_its_own_outcome(slot: Slot, code: str, status: str, reason: str) -> None:
    result = cpp(slot, code)
    assert (result.status, result.level) == (status, slot.level)
    assert reason in result.reason and "\n" not in result.reason


@needs_cpp
def test_input_output_and_facts(slot: Slot) -> None:
    code = "#include <iostream>\nint main() { std::cout << std::cin.rdbuf(); std::cerr << 2; }"
    result = cpp(slot, code, stdin="é\n1")
    assert (result.status, result.stdout, result.stderr) == ("ok", "é\n1", "2")
    assert 0 < result.wall_s < 2 and 0 < result.cpu_s < 0.4


_WAITING = """
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <latch>
#include <semaphore>
#include <thread>
#include <vector>
int main() {
    std::atomic<int> start{0};
    std::latch done(4);
    std::barrier meeting(4);
    std::counting_semaphore<4> turns(0);
    std::vector<std::jthread> all;
    for (int n = 0; n < 4; n++)
        all.emplace_back([&] { start.wait(0); meeting.arrive_and_wait(); done.count_down(); turns.release(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    start = 1;
    start.notify_all();
    done.wait();
    for (int n = 0; n < 4; n++) turns.acquire();
    std::puts("all met");
}
"""


@needs_cpp
def test_threads_wait_for_each_other_in_every_way_there_is(slot: Slot) -> None:
    """What libstdc++ waits and wakes with is no private futex."""
    limits = replace(QUICK, wall_s=10.0)
    assert [cpp(slot, _WAITING, limits=limits).stdout for _ in range(3)] == ["all met\n"] * 3


@needs_cpp
def test_verdicts_by_what_it_prints(slot: Slot) -> None:
    cases = [Case(stdin="1 2", stdout="3"), Case(stdin="4 5", stdout="9 \n\n"), Case(stdin="1 1", stdout="3")]
    assert [v.passed for v in slot.judge_stdio(SUM, cases, language="c++")] == [True, True, False]
    assert [v.passed for v in slot.judge_stdio("int main(", cases, language="c++")] == [False] * 3


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Counter[int | None]:
    """How often each stage of a compiler, and (None) a binary, is started."""
    started: Counter[int | None] = Counter()
    order = host.Run.order

    def counting(run: host.Run, *rest) -> None:
        started[run.stage if run.language != "python" else -1] += 1
        order(run, *rest)

    monkeypatch.setattr(host.Run, "order", counting)
    return started


@needs_cpp
def test_many_tests_compile_once(slot: Slot, stages: Counter) -> None:
    assert cpp(slot, "int main() {}").ok  # the walls are tried with the first
    stages.clear()
    slot.judge_stdio(SUM, [Case(stdin=f"{n} 1", stdout=f"{n + 1}") for n in range(7)], language="c++")
    assert stages == {0: 1, 1: 1, 2: 1, None: 7}


@needs_cpp
def test_a_pool_compiles_once_for_all_its_slots(stages: Counter) -> None:
    from actors.sandbox_pool import SandboxPool

    pool = SandboxPool(slots=2)
    try:
        for slot in pool._slots:
            assert slot.offers("c++").active
        stages.clear()
        cases = [Case(stdin=f"{n} 1", stdout=f"{n + 1}") for n in range(8)]
        verdicts = asyncio.run(pool.judge_stdio(SUM, cases, language="c++"))
        assert [v.passed for v in verdicts] == [True] * 8
        assert stages == {0: 1, 1: 1, 2: 1, None: 8}
    finally:
        pool.close()


def test_a_source_is_compiled_by_one_and_a_failure_of_the_sandbox_is_not_kept() -> None:
    known, made, entered = builds.Builds(), [], threading.Event()

    def slowly() -> bytes:
        entered.set()
        made.append(threading.get_ident())
        threading.Event().wait(0.2)
        return b"binary"

    answers: list[object] = []
    first = threading.Thread(target=lambda: answers.append(known.get("c++", b"x", slowly)))
    first.start()
    entered.wait(5)
    answers.append(known.get("c++", b"x", slowly))
    first.join()
    assert answers == [b"binary"] * 2 and len(made) == 1

    def broken() -> bytes:
        raise host.InfraError("gone")

    with pytest.raises(host.InfraError):
        known.get("c++", b"y", broken)
    assert known.get("c++", b"y", lambda: b"again") == b"again"


@needs_cpp
def test_a_zygote_that_dies_while_compiling_is_no_verdict(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    watch = host.Run.watch

    def killing(run: host.Run) -> None:
        if run.stage == 0:
            os.kill(slot._zygote.process.pid, signal.SIGKILL)
        watch(run)

    monkeypatch.setattr(host.Run, "watch", killing)
    (verdict,) = slot.judge_stdio(SUM, [Case(stdin="1 2", stdout="3")], language="c++")
    assert (verdict.passed, verdict.result.status) == (None, "infra")
    monkeypatch.undo()
    assert slot.judge_stdio(SUM, [Case(stdin="1 2", stdout="3")], language="c++")[0].passed


@needs_cpp
def test_the_compiler_has_its_own_limits(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "LIMITS", replace(builds.LIMITS, cpu_s=0.5))
    bomb = (
        "template <long n, long m> struct S { static const long v = S<n - 1, m * 2>::v + S<n - 1, m * 2 + 1>::v; };\n"
        "template <long m> struct S<0, m> { static const long v = 1; };\nint main() { return S<50, 1>::v; }"
    )
    result = cpp(slot, bomb, limits=replace(QUICK, cpu_s=60, wall_s=60))
    assert (result.status, result.reason) == ("cpu_limit", "compiling: more than 0.5 s of CPU time")


@needs_cpp
def test_a_compiled_program_leaves_nothing() -> None:
    """In a process of its own: threads that tests of other rooms left in this one open and close descriptors too."""
    code = """
import os
from sandbox import Request, Slot
with Slot() as slot:
    slot.run(Request("int main() {}", language="c++"))
    before = len(os.listdir("/proc/self/fd"))
    for source in ("int main() {}", "int main(", "int main() { *(volatile int *)8 = 1; }"):
        print(slot.run(Request(source, language="c++")).status)
    print(len(os.listdir("/proc/self/fd")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.split() == ["ok", "error", "crash", "0"], done.stderr


@pytest.mark.parametrize("given", [{"value": "x"}, {"entry": "f"}, {"args": (1,)}])
def test_what_only_python_has_is_refused_when_asked(given: dict) -> None:
    with pytest.raises(ValueError, match=r"request.language: c\+\+ has no value, entry or args"):
        Request("int main() {}", language="c++", **given)


def test_an_unknown_language_is_named_with_those_known() -> None:
    with pytest.raises(ValueError, match=r"request.language: 'cobol'; expected python.* c\+\+"):
        Request("", language="cobol")


def test_without_a_compiler_the_outcome_says_what_to_install() -> None:
    """In a process of its own, whose PATH has no compiler: what is found is kept for a process's life."""
    code = (
        "from sandbox import *\n"
        "with Slot(packages=()) as slot:\n"
        "    (v,) = slot.judge_stdio('int main() {}', [Case(stdout='')], language='c++')\n"
        "    print(v.passed, v.result.status, v.result.reason, slot.run(Request('print(1)')).stdout)\n"
    )
    path = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=path).stdout
    assert said.startswith("None infra c++: no compiler; install g++") and said.endswith(" 1\n\n")


def test_probe_says_whether_a_language_works() -> None:
    (offered,) = probe().languages
    assert offered.name == "c++" and offered.active == HAVE_CPP


@needs_cpp
def test_python_does_not_see_the_compilers_files_where_landlock_stands(slot: Slot) -> None:
    if not any(layer.name == "landlock" and layer.active for layer in slot.platform.layers):
        pytest.skip("no Landlock here: the mount jail shows headers to all runs")
    reading = "open('/usr/include/stdio.h')"
    assert slot.run(Request(reading)).status == "error"
    stealing = '#include <cstdio>\nint main() { puts(fopen("/usr/include/stdio.h", "r") ? "read" : "refused"); }'
    assert cpp(slot, stealing).stdout == "refused\n"


_CPP_THREADS = """
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>
long deep(volatile long *n) { volatile char kept[256]; kept[0] = 1; return --*n > 0 ? deep(n) + kept[0] : 0; }
int main() {
    long mb, count, depth;
    scanf("%ld %ld %ld", &mb, &count, &depth);
    char *kept = new char[mb << 20];
    for (long n = 0; n < mb << 20; n += 4096) kept[n] = 1;
    std::mutex gate;
    std::vector<std::thread> all;
    gate.lock();
    for (int n = 0; n < count; n++) all.emplace_back([&] { gate.lock(); gate.unlock(); });
    gate.unlock();
    for (auto &one : all) one.join();
    volatile long left = depth;
    printf("%zu %ld\\n", all.size(), deep(&left) + 1);
}
"""


@needs_cpp
def test_threads_have_room_for_their_stacks_and_the_first_for_a_deep_recursion(slot: Slot) -> None:
    known = Builds()

    def run(memory_mb: int, *numbers: int) -> tuple[str, str]:
        limits = Limits(wall_s=30, memory_mb=memory_mb)
        request = Request(_CPP_THREADS, " ".join(map(str, numbers)), language="c++", limits=limits)
        result = slot.run(request, known)
        return result.status, result.stdout or ("memory" if "memory" in result.reason else "")

    assert run(128, 0, 30, 1) == ("ok", "30 1\n")
    assert run(512, 0, 30, 100_000) == ("ok", "30 100000\n")  # more than 8 MB of stack
    assert run(128, 0, 30, 100_000) == ("ok", "30 100000\n")
    assert run(128, 0, 60, 1) == ("process_limit", "")
    assert run(512, 200, 60, 1) == ("process_limit", "")
    assert run(128, 90, 30, 1) == ("memory_limit", "memory")
    assert run(512, 480, 30, 1) == ("memory_limit", "memory")
