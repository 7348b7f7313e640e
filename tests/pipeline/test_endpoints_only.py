"""The profile `endpoints-only` as a newcomer runs it: documents, an endpoint, five problems and their cost; and then
the same again for nothing. The endpoint writes sums, and can add."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.tool_calls import render
from pipeline.records import Skill
from pipeline.skills.extraction import render as render_skill
from pipeline.skills.rubric import ITEMS
from tests.actors.endpoint import chat, serving

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(1200)]

CONFIG = Path(__file__).parents[2] / "deploy" / "configs" / "endpoints-only.yaml"
KEY = "sk-of-a-newcomer"
SUM = re.compile(r"A box holds (\d+) balls and gets (\d+) more")


def reply(messages: list[dict[str, str]], seed: int, model: str) -> str:
    whole, last = "\n".join(m["content"] for m in messages), messages[-1]["content"]
    found = SUM.findall(whole)
    if "<skill>" in last:
        return json.dumps({item: {"reason": "It is one step, which code can check.", "points": 4} for item in ITEMS})
    if "lesson" in last and not found:  # a document
        named = [f"skill_{n}" for n in re.findall(r"lesson (\d+)", last)]
        return "\n".join(
            render_skill(
                Skill(
                    id=n, category="maths", intent=f"add what comes to {n}", method="Structure.\n\nAction.",
                    difficulty="steps depend on each other", tool_hint="plain Python", score=0.9, source="s",
                )
            )
            for n in named
        )  # fmt: skip
    if any(m["content"].startswith("Category: ") for m in messages):
        opening = next(m["content"] for m in messages if m["content"].startswith("Category: "))
        a, b = sum(map(ord, opening)) * 7 % 900 + seed % 97, seed % 1009
        a, b = (int(found[-1][0]), int(found[-1][1])) if found else (a, b)
        question = f"A box holds {a} balls and gets {b} more. How many does it hold then?"
        if not found:
            return f"## Check\n{question}\n{render('exec', {'code': f'print({a} + {b})'})}"
        return f"## Finalize\n{render('submit', {'question': question, 'answer': str(a + b), 'answer_kind': 'math'})}"
    if not found:
        return "yes"
    total = int(found[0][0]) + int(found[0][1])
    if model == "small-model":
        total += seed % 2  # half of its tries are wrong
    if "JSON" in messages[0]["content"]:
        used = re.findall(r"^- (\w+)", last, re.MULTILINE)
        fields = {"vote": 1, "flags": [], "used_skills": used, "category": "maths", "on_task": True}
        return json.dumps({"reasoning": "I added.", **fields, "rationale": "it is a sum"})
    return f"```python\ndef solve():\n    return '{total}'\n```\n\\boxed{{{total}}}"


def completion(body: dict[str, Any]) -> bytes:
    said = reply(body["messages"], body.get("seed", 0), body["model"])
    return chat(said, usage={"prompt_tokens": 100, "completion_tokens": 50})


def config(folder: Path, url: str) -> Path:
    """The profile, with its endpoint and documents in place of those that a user would name."""
    (folder / "notes").mkdir()
    for n in range(6):
        (folder / "notes" / f"{n}.md").write_text(f"This is lesson {n}, about balls in boxes, which come and go.\n")
    text = CONFIG.read_text().replace("https://api.example.com/v1", url).replace("data/notes", str(folder / "notes"))
    tree = yaml.safe_load(text)
    tree["ray"] = {"num_cpus": 2, "object_store_mb": 128}
    tree["sandbox"] = {"minimum": "unsafe"}
    tree["synthesize"]["in_flight"] = 1  # nothing else is under way, and paid for, as the last problem is accepted
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def propose(stage: str, path: Path, run: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "pipeline.cli", stage, "--config", str(path), "--run-dir", str(run), "--json"]
    env = os.environ | {"OPENAI_API_KEY": KEY}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_six_documents_a_key_five_problems_and_their_cost(tmp_path):
    with serving(completion, KEY) as (url, asked):
        path = config(tmp_path, url)
        assert propose("acquire", path, tmp_path / "run")[0]["kept"] == 6
        result, said = propose("synthesize", path, tmp_path / "run")
        assert result["accepted"] == 5
        rows = [json.loads(line) for line in (tmp_path / "run/dataset/problems.jsonl").read_text().splitlines()]
        for row in rows:
            a, b = map(int, SUM.search(row["question"]).groups())
            assert row["answer"] == str(a + b)
        paid = re.search(rf"{url}: (\d+) calls, \d+ answered before, (\d+) tokens, \$([\d.]+)", said)
        calls, tokens, dollars = int(paid[1]), int(paid[2]), float(paid[3])
        assert tokens == calls * 150 and dollars == pytest.approx(calls * (100 * 0.5 + 50 * 1.5) / 1e6, rel=0.01)
        assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
        before = asked.total()
        for stage in ("acquire", "synthesize"):
            again, _ = propose(stage, path, tmp_path / "again")
        spent = {"seconds_per_problem", "usd_per_problem"}
        assert {k: v for k, v in again.items() if k not in spent} == {k: v for k, v in result.items() if k not in spent}
        preflight = 1 + 3  # what each start asks of each model, before its stage
        assert asked.total() - before <= preflight
