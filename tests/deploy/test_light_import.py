"""`pip install` of the project alone: the vocabulary, the sandbox and the doctor need, and load, nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("ray", "torch", "vllm", "transformers", "deepspeed", "tensorboard", "httpx", "math_verify")
VOCABULARY = "pipeline.records, pipeline.config, pipeline.domains"


@pytest.mark.parametrize("modules", [VOCABULARY, "pipeline.commands.doctor", "pipeline.store.accounts", "sandbox"])
def test_the_core_imports_without_the_stack(modules):
    blocked = f"import sys; sys.modules |= dict.fromkeys({HEAVY!r}); import {modules}"
    got = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert got.returncode == 0, got.stderr


def test_the_vocabulary_does_not_load_even_our_own_heavier_parts():
    code = f"import sys, {VOCABULARY}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*HEAVY, "sympy", "sandbox", "actors", "trainers"} & set(got.stdout.split())
