"""Skills are admitted whose scripts run, and pass their self-test, where programs run; the others are refused with the
reason and the output."""

from __future__ import annotations

import pytest

from pipeline.config import SandboxConfig
from pipeline.skills import admission
from pipeline.skills.admission import admit
from sandbox import SandboxUnavailable
from tests.pipeline.domains.mini.test_skills import skill

GOOD = "import math\n\ndef area(r):\n    return math.pi * r * r\n"
COMPUTES = (
    "import numpy as np\nimport sympy\n\nROOTS = sympy.solve('x**2 - 4')\n\ndef total(x):\n    return np.sum(x)\n"
)
BAD = {
    "broken": ("def broken(:\n", "SyntaxError"),
    "raises": ("def f(): ...\nraise ValueError('not today')\n", "not today"),
    "missing": ("import nowhere_to_be_found\ndef f(): ...\n", "nowhere_to_be_found"),
    "empty": ("# nothing here\n1 + 1\n", "defines nothing"),
    "imports": ("import math\nfrom numpy import sum\n", "defines nothing"),
    "endless": ("while True: pass\n", "limit"),
    "wrong": (
        'def f(x):\n    """Two.\n\n    >>> f(2)\n    5\n    """\n    return 2 * x\n',
        "Expected: / 5 / Got: / 4",
    ),
    "endless_test": ('def f():\n    """Ends.\n\n    >>> f()\n    """\n    while True: pass\n', "limit"),
    "leaves": ('def f():\n    """Leaves.\n\n    >>> f()\n    """\n    raise SystemExit\n', "self-test fails"),
    "says": ("print('about to fail')\nraise KeyError('k')\n", "it said: about to fail"),
}
TESTED = '''def half(x):
    """Half of an even number.

    >>> half(6)
    3
    >>> half(3)
    Traceback (most recent call last):
    ...
    ValueError: odd
    """
    if x % 2:
        raise ValueError("odd")
    return x // 2
'''


def test_a_script_that_does_not_run_or_fails_its_self_test_is_refused_with_its_skill() -> None:
    good = [skill(id="area", script=GOOD), skill(id="plain", script=None), skill(id="computes", script=COMPUTES)]
    good.append(skill(id="half", script=TESTED))
    bad = [skill(id=name, script=script) for name, (script, _) in BAD.items()]
    found = admit([*bad, *good], SandboxConfig(wall_s=3, cpu_s=0.5), "optional")
    assert list(found.skills) == good and not found.untried
    assert set(found.refused) == set(BAD)
    for name, (_, why) in BAD.items():
        assert why in found.refused[name] and "\n" not in found.refused[name], found.refused[name]


def test_where_a_self_test_is_required_a_script_without_one_is_refused() -> None:
    skills = [skill(id="area", script=GOOD), skill(id="plain", script=None), skill(id="half", script=TESTED)]
    found = admit(skills, SandboxConfig(), "required")
    assert [s.id for s in found.skills] == ["plain", "half"] and "no self-test" in found.refused["area"]


def test_where_no_sandbox_is_nothing_is_run_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise SandboxUnavailable("no user namespaces")

    monkeypatch.setattr(admission, "Slot", refuses)
    found = admit([skill(id="area", script=GOOD)], SandboxConfig())
    assert found.untried == "no user namespaces" and found.skills[0].script == GOOD and not found.refused


def test_without_scripts_no_sandbox_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "Slot", None)
    assert admit([skill(id="plain", script=None)], SandboxConfig()).refused == {}
