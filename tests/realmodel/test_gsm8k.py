"""A small real model on a real public benchmark, end to end: forty items of GSM8K by their preset, with four solved
examples before each, as `propose evaluate --model` measures them. The score of so small a model says little; that it is
that of its kept outputs, judged once more here by GSM8K's own rule, is what counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.scoring import items
from tests.pipeline import public
from tests.realmodel.smollm import model_dir

pytestmark = [pytest.mark.pipeline, pytest.mark.realmodel, pytest.mark.timeout(3600)]
ITEMS = 40
CONFIG = Path(__file__).parents[2] / "deploy" / "configs" / "text-cpu.yaml"


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1].replace(",", "").replace("$", "").strip() if found else None


def test_a_small_model_has_a_score_with_all_that_it_said(tmp_path):
    rows = public.gsm8k()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    tree["evaluate"] = {
        "preset": "gsm8k", "benchmark": str(tmp_path / "test.jsonl"), "problems": ITEMS, "shots": 4, "samples": 1,
        "sampling": {"temperature": 0.0, "max_tokens": 96},
    }  # fmt: skip
    config.write_text(yaml.safe_dump(tree))
    asked = ["evaluate", "--config", str(config), "--run-dir", str(run), "--model", str(model_dir()), "--json"]
    done = subprocess.run([sys.executable, "-m", "pipeline", *asked], capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    (model,) = result["models"].values()
    kept = items.read(Path(model["items"])).to_pylist()
    right = 0
    for row, said in zip(rows, kept, strict=False):
        assert said["question"].endswith(row["question"]) and said["question"].count("Answer: \\boxed{") == 4
        gold = row["answer"].rpartition("####")[2].replace(",", "").strip()
        right += boxed(said["text"]) == gold
    answered = sum(said["given"] is not None for said in kept)
    print(f"{right} of {ITEMS} right, {answered} answered, {model['measures']['truncated']} cut off")
    assert len(kept) == result["problems"] == ITEMS and model["mean"] == pytest.approx(right / ITEMS)
    assert answered > 0, "some in the form of the examples"
