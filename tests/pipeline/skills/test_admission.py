"""Skills are admitted with the scripts that run where programs run; the others are named with the reason."""

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
}


def test_a_script_that_does_not_run_is_reported_and_its_skill_stays() -> None:
    skills = [skill(id="area", script=GOOD), skill(id="plain", script=None), skill(id="computes", script=COMPUTES)]
    skills += [skill(id=name, script=script) for name, (script, _) in BAD.items()]
    found = admit(skills, SandboxConfig(wall_s=3, cpu_s=0.5))
    assert [s.id for s in found.skills] == [s.id for s in skills] and not found.untried
    assert {s.id: s.script for s in found.skills if s.script} == {"area": GOOD, "computes": COMPUTES}
    assert set(found.refused) == set(BAD)
    for name, (_, why) in BAD.items():
        assert why in found.refused[name]


def test_where_no_sandbox_is_nothing_is_run_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise SandboxUnavailable("no user namespaces")

    monkeypatch.setattr(admission, "Slot", refuses)
    found = admit([skill(id="area", script=GOOD)], SandboxConfig())
    assert found.untried == "no user namespaces" and found.skills[0].script == GOOD and not found.refused


def test_without_scripts_no_sandbox_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "Slot", None)
    assert admit([skill(id="plain", script=None)], SandboxConfig()).refused == {}
