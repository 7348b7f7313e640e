"""What a caller of a slot relies on: outcomes, values, outputs, and that runs know nothing of each other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import Case, Limits, Request, SandboxUnavailable, Slot, platforms, probe
from sandbox.api import Layer

from .conftest import QUICK

THREAD = "from threading import Thread\nfrom time import sleep"


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("pass", "ok", ""),
        ("import sys; sys.exit(0)", "ok", ""),
        ("import sys; sys.exit(3)", "error", "SystemExit: 3"),
        ("import os; os._exit(7)", "error", "exit code 7"),
        ("{}['k']", "error", "KeyError: 'k'"),
        ("1 +", "error", "SyntaxError: invalid syntax"),
        ("raise ValueError('a\\n  b')", "error", "ValueError: a b"),
        ("raise ValueError('\\x1b[2J')", "error", "ValueError: ?[2J"),
        ("import torch", "error", "ModuleNotFoundError: No module named 'torch'"),
        ("import pipeline", "error", "ModuleNotFoundError: No module named 'pipeline'"),
        ("while True: pass", "cpu_limit", "more than 0.4 s of CPU time"),
        ("import time; time.sleep(9)", "timeout", "no end after 2 s"),
        ("x = bytearray(1 << 30)", "memory_limit", "MemoryError"),
        ("print('x' * (2 << 20))", "output_limit", "more than 1024 KB of stdout"),
        ("open('f', 'wb').write(bytes(9 << 20))", "file_size_limit", "OSError: [Errno 27] File too large"),
        ("for n in range(3): open(str(n), 'wb').write(bytes(7 << 20))", "disk_limit", None),
        ("import os; os.fork()", "process_limit", "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
        (f"{THREAD}\nwhile True: Thread(target=sleep, args=(9,), daemon=True).start()", "process_limit", None),
        ("all = [open('/dev/null') for _ in range(99)]", "open_files_limit", None),
        ("import ctypes; ctypes.string_at(8)", "crash", "SIGSEGV"),
        ("import ctypes; ctypes.CDLL(None).syscall(101, 0, 0, 0, 0)", "violation", "a forbidden system call"),
        ("\ud800", "error", "code: lone surrogates are no Unicode text"),
        ("#" * (257 << 10), "error", "code: 257 KB; the limit is 256 KB"),
    ],
)
def test_each_ending_has_its_own_outcome(slot: Slot, code: str, status: str, reason: str | None) -> None:
    """None: the words depend on which layer enforces the limit here."""
    result = slot.run(Request(code))
    assert result.status == status and reason in (result.reason, None)
    assert result.level == slot.level


def test_output_and_facts(slot: Slot) -> None:
    code = "import sys; print(input()); print('é', file=sys.stderr); sum(range(10 ** 6))"
    result = slot.run(Request(code, stdin="zwei\nzeilen"))
    assert (result.stdout, result.stderr, result.truncated) == ("zwei\n", "é\n", False)
    assert 0 < result.cpu_s < 1 and 0 < result.wall_s < 1 and 10 < result.memory_mb < 500


def test_output_is_cut_at_its_limit(slot: Slot) -> None:
    result = slot.run(Request("print('x' * 5000)", limits=replace(QUICK, stdout_kb=2)))
    assert (result.status, result.truncated, result.stdout) == ("output_limit", True, "x" * 2048)


def test_a_traceback_shows_the_program_and_nothing_of_ours(slot: Slot) -> None:
    result = slot.run(Request("def f():\n    return 1 / 0\nf()"))
    assert "return 1 / 0" in result.stderr and 'File "main.py", line 3' in result.stderr
    assert "sandbox" not in result.stderr and "exec(" not in result.stderr


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("42", 42),
        ("[1, (2.5, None), {'a': True}]", [1, [2.5, None], {"a": True}]),
        ("__import__('numpy').arange(3)", [0, 1, 2]),
        ("__import__('numpy').float64(0.5)", 0.5),
        ("10 ** 300", 10**300),
        ("'\\x00 \\u2028'", "\x00 \u2028"),
    ],
)
def test_plain_values_come_out_unchanged(slot: Slot, expression: str, value: object) -> None:
    assert slot.run(Request(f"x = {expression}", value="x")).value == value


@pytest.mark.parametrize(
    "expression",
    [
        "object()",
        "{1: 2}",
        "{1, 2}",
        "b'x'",
        "float('nan')",
        "float('inf')",
        "10 ** 120_000",
        "'\\ud800'",
        "undefined",
        "__import__('functools').reduce(lambda a, _: [a], range(100), [])",
    ],
)
def test_what_json_would_bend_is_an_error(slot: Slot, expression: str) -> None:
    result = slot.run(Request(f"x = {expression}", value="x"))
    assert (result.status, result.value) == ("error", None) and result.reason


def test_a_function_is_called_with_its_arguments(slot: Slot) -> None:
    assert slot.run(Request("def f(a, b): return a * b", entry="f", args=([1], 2))).value == [1, 1]
    assert slot.run(Request("def g(): pass", entry="f")).reason == "NameError: name 'f' is not defined"


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": 1},
        {"code": "", "stdin": b""},
        {"code": "", "value": "a b"},
        {"code": "", "value": "a", "entry": "b"},
        {"code": "", "entry": "f", "args": (object(),)},
        {"code": "", "entry": "f", "args": (float("nan"),)},
        {"code": "", "entry": "f", "args": ({1: 2},)},
        {"code": "", "entry": "f", "args": ([{"a": [{None: 2, "None": 3}]}],)},
        {"code": "", "entry": "f", "args": ("\ud800",)},
        {"code": "", "entry": "f", "args": ({"\udfff": 1},)},
        {"code": "", "entry": "f", "args": "abc"},
        {"code": "", "entry": "f", "args": {"a": 1}},
        {"code": "", "entry": "f", "args": None},
        {"code": "", "language": []},
        {"code": "", "language": None},
        {"code": "", "limits": {"wall_s": 1}},
    ],
)
def test_a_malformed_request_fails_when_made(wrong: dict) -> None:
    with pytest.raises(ValueError, match="request"):
        Request(**wrong)


@pytest.mark.parametrize("stdout", [None, 1, b"1", ["1"]])
def test_a_script_is_judged_by_text_or_not_begun(slot: Slot, stdout: object) -> None:
    with pytest.raises(ValueError, match=r"case\.stdout"):
        slot.judge_stdio("print(1)", [Case(stdout="1"), Case(stdout=stdout)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sum = 3\nprint(__builtins__.sum([1, 2]))", "3\n"),
        ("import os\nprint(os.path.basename(__file__))", "main.py\n"),
        ("\ufeffprint(1)", "1\n"),
        ("x = '\u2028'\nimport traceback\ntry: 1 / 0\nexcept: print('try' in traceback.format_exc())", "True\n"),
        ("import inspect\nclass A:\n    x = 1\nprint(inspect.getsource(A))", "class A:\n    x = 1\n\n"),
        ("import shutil\nopen('a', 'w').write('x'); shutil.copy('a', 'b'); print(open('b').read())", "x\n"),
        ("import os, shutil\nos.mkdir('d'); open('d/a', 'w'); shutil.copytree('d', 'e'); print(os.listdir('e'))",
         "['a']\n"),
    ],
)  # fmt: skip
def test_scripts_find_what_they_find_elsewhere(slot: Slot, code: str, said: str) -> None:
    result = slot.run(Request(code))
    assert (result.stdout, result.reason) == (said, "")


def test_names_are_spelled_as_python_spells_them(slot: Slot) -> None:
    assert slot.run(Request("def \ufb01(): return 1", entry="\ufb01")).value == 1
    assert slot.run(Request("\u2115 = 5", value="\u2115")).value == 5


@pytest.mark.parametrize(
    "wrong", [{"wall_s": 0}, {"wall_s": float("nan")}, {"files": 2}, {"memory_mb": "1"}, {"threads": True}]
)
def test_limits_out_of_range_fail_when_made(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"limits.{next(iter(wrong))}"):
        Limits(**wrong)


# ---------------------------------------------------------------- runs know nothing of each other


def test_nothing_stays_from_run_to_run(slot: Slot) -> None:
    slot.run(Request("import sys, math; math.secret = 1; sys.secret = 1; open('left', 'w').write('x')"))
    code = "import os, sys, math; found = [os.listdir('.'), hasattr(sys, 'secret'), hasattr(math, 'secret')]"
    assert slot.run(Request(code, value="found")).value == [[], False, False]


_SCAN = """
import ctypes, gc
needle = bytes(b ^ 0x55 for b in bytes.fromhex(MASKED))
planted = needle * PLANT
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
end = libc.sbrk(0)
spans = [(end - (6 << 20), 6 << 20)] + [(page, 4096) for page in {id(o) & ~4095 for o in gc.get_objects()}]
found = sum(ctypes.string_at(*span).count(needle) for span in spans)
"""


def test_no_byte_of_a_run_is_in_the_next_ones_memory(slot: Slot) -> None:
    """The fork server must never hold what passes through it: its children inherit its memory."""
    token = os.urandom(12).hex()
    first = slot.run(Request(f"token = {token!r}; print(token * 999)", stdin=token * 999, value="token"))
    assert first.value == token
    scan = _SCAN.replace("MASKED", repr(bytes(b ^ 0x55 for b in token.encode()).hex()))
    assert slot.run(Request(scan.replace("PLANT", "5000"), value="found")).value >= 5000  # the scan does see memory
    assert slot.run(Request(scan.replace("PLANT", "0"), value="found")).value <= 2  # the needle itself


def test_random_numbers_differ_between_runs(slot: Slot) -> None:
    code = "import random, numpy; x = [random.random(), float(numpy.random.rand())]"
    first, second = (slot.run(Request(code, value="x")).value for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


# ---------------------------------------------------------------- judging


def test_verdicts_of_calls(slot: Slot) -> None:
    cases = [Case(args=(2,), expected=4), Case(args=(3,), expected=6), Case(args=("a",), expected="aa")]
    assert [v.passed for v in slot.judge_calls("def f(x): return x * 2", "f", cases)] == [True, True, True]
    wrong = [Case(args=(1,), expected=True), Case(args=(1,), expected=1.01), Case(args=(1,), expected=[1])]
    assert [v.passed for v in slot.judge_calls("def f(x): return x", "f", wrong)] == [False] * 3
    assert slot.judge_calls("def f(x): return x", "f", wrong[1:2], tolerance=0.05)[0].passed


def test_verdicts_of_scripts(slot: Slot) -> None:
    cases = [Case(stdin="1 2", stdout="3"), Case(stdin="4 5", stdout="9  \n\n"), Case(stdin="1 1", stdout="3")]
    verdicts = slot.judge_stdio("print(sum(map(int, input().split())))", cases)
    assert [v.passed for v in verdicts] == [True, True, False]


def test_a_program_sees_one_test_only(slot: Slot) -> None:
    """A counter kept anywhere would let it answer by the order of the tests."""
    code = "import os\ndef f(x):\n    n = len(os.listdir('.'))\n    open(f'{n}', 'w').close()\n    return n"
    assert [v.result.value for v in slot.judge_calls(code, "f", [Case(args=(0,))] * 3)] == [0, 0, 0]


# ---------------------------------------------------------------- levels


def test_below_the_minimum_a_slot_refuses_and_says_what_is_missing() -> None:
    with pytest.raises(SandboxUnavailable, match="expected one of"):
        Slot("strongest")
    nothing = platforms.describe([Layer("rlimits", True, "")])
    assert nothing.level == "unsafe" and any("Landlock" in line for line in nothing.missing)


@pytest.mark.parametrize(
    ("active", "level"),
    [
        ({"seccomp", "no new privileges", "rlimits", "mount jail", "landlock"}, "strong+"),
        ({"seccomp", "no new privileges", "rlimits", "landlock"}, "strong"),
        ({"seccomp", "no new privileges", "rlimits", "mount jail"}, "strong"),
        ({"no new privileges", "rlimits", "mount jail", "landlock"}, "unsafe"),
        ({"seccomp", "no new privileges", "rlimits", "throw-away uid"}, "unsafe"),
    ],
)
def test_the_level_follows_from_the_layers(active: set[str], level: str) -> None:
    assert platforms.describe([Layer(name, True, "") for name in active]).level == level


def test_probe_reports_what_a_slot_gets(slot: Slot) -> None:
    found = probe()
    assert found.level == slot.level
    assert {layer.name: layer.active for layer in found.layers} == {
        layer.name: layer.active for layer in slot.platform.layers
    }


def test_importing_the_sandbox_brings_nothing_heavy() -> None:
    import subprocess

    code = "import sys, sandbox; print([m for m in ('ray', 'torch', 'numpy', 'sympy', 'pipeline') if m in sys.modules])"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout == "[]\n"


_THREADS = """
import threading, time
go = threading.Event()
{first}
all = [threading.Thread(target=go.wait) for _ in range({count})]
try:
    for thread in all: thread.start()
finally:
    time.sleep(0.3 * (len(all) > 32))  # they may be counted by looking
    go.set()
print(len(all))
"""


@pytest.mark.parametrize(
    ("memory_mb", "count", "first", "status"),
    [
        (32, 30, "", "ok"),
        (128, 30, "", "ok"),
        (512, 30, "", "ok"),
        (128, 32, "", "ok"),  # a full pool of Python's
        (128, 33, "", "process_limit"),
        (128, 60, "", "process_limit"),
        (512, 60, "", "process_limit"),
        (128, 30, "kept = bytearray(110 << 20)", "memory_limit"),
        (512, 30, "kept = bytearray(450 << 20)", "memory_limit"),
        (128, 30, "threading.stack_size(16 << 20)", "memory_limit"),
        (128, 30, "import _thread; threading.Thread = lambda target: type('T', (), {'start': lambda self: "
         "_thread.start_new_thread(target, ())})(); kept = bytearray(110 << 20)", "memory_limit"),
    ],
)  # fmt: skip
def test_threads_have_room_for_their_stacks_and_what_fails_is_named(
    slot: Slot, memory_mb: int, count: int, first: str, status: str
) -> None:
    """All are alive at once, so that nothing depends on how fast they are."""
    code = _THREADS.format(first=first, count=count)
    result = slot.run(Request(code, limits=Limits(wall_s=30, memory_mb=memory_mb)))
    assert (result.status, "memory" in result.reason) == (status, status == "memory_limit"), result.reason


@pytest.mark.parametrize("memory_mb", [128, 512])
def test_a_recursion_as_deep_as_python_allows_does_not_crash_a_thread(slot: Slot, memory_mb: int) -> None:
    """Through C at each step, which is what takes stack."""
    code = (
        "import threading\nseen = []\n"
        "def deep(n): sorted([1, 2], key=lambda _: deep(n + 1))\n"
        "def run():\n    try: deep(0)\n    except RecursionError: seen.append(1)\n"
        "run()\nthread = threading.Thread(target=run); thread.start(); thread.join()\nprint(seen)"
    )
    result = slot.run(Request(code, limits=Limits(wall_s=30, memory_mb=memory_mb)))
    assert (result.status, result.stdout) == ("ok", "[1, 1]\n"), result.reason


@pytest.mark.parametrize(
    "code",
    [
        "print(42); sys.stdout.close()",
        "print(42); sys.stdout = None",
        "print(42); sys.stderr.close()",
        "real, sys.stdout = sys.stdout, io.StringIO()\nreal.write('42\\n'); print(7)",
        "out = open(1, 'w'); out.write('42\\n')",
        "out = os.fdopen(1, 'wb'); out.write(b'42\\n')",
        "out = io.TextIOWrapper(sys.stdout.buffer); out.write('42\\n')",
        "kept = [open(1, 'w', closefd=False)]; kept[0].write('42\\n'); kept.append(kept)",
        "def f(): out = open(1, 'w', closefd=False); out.write('42\\n')\nf()",
        "import logging.handlers as h\nlog = h.MemoryHandler(9, target=h.logging.StreamHandler(sys.stdout))\n"
        "log.emit(h.logging.makeLogRecord({'msg': '42', 'levelno': 10}))",
    ],
)
def test_what_python_writes_when_it_ends_is_written(slot: Slot, code: str) -> None:
    code = f"import io, os, sys\n{code}"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    result = slot.run(Request(code))
    assert (result.status, result.stdout) == ("ok", "42\n") == (("error", "ok")[alone.returncode == 0], alone.stdout)


@pytest.mark.parametrize("lifetime_s", [0, -1.0, float("nan"), float("inf"), 1e9, None, "600"])
def test_a_session_of_no_sensible_length_is_refused_in_the_hands_of_its_caller(slot: Slot, lifetime_s: object) -> None:
    with pytest.raises(ValueError, match="lifetime_s"):
        slot.session(lifetime_s=lifetime_s)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"session\.limits"):
        slot.session(limits=lifetime_s or "none")  # type: ignore[arg-type]


def test_how_a_program_fails_is_its_own_doing_and_what_it_printed_is_kept(slot: Slot) -> None:
    odd = "class Odd:\n    def __eq__(self, other): raise OSError('no')\n    __str__ = __eq__\n"
    result = slot.run(Request(f"{odd}print(42)\nraise SystemExit(Odd())"))
    assert (result.status, result.stdout) == ("error", "42\n") and "OSError" in result.reason
    result = slot.run(Request("def f(): raise KeyError('f')", entry="f"))
    assert (result.status, result.reason) == ("error", "KeyError: 'f'")
    result = slot.run(Request("g = 1", entry="f"))
    assert (result.status, result.reason) == ("error", "NameError: name 'f' is not defined")
