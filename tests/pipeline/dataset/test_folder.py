"""The folder of a data set: what `datasets` reads, what its files say, and that none tells how rows were made."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.groups import datasets as command
from pipeline.commands.verify import check
from pipeline.dataset import card, folder, layouts, traces
from pipeline.records import Failure, Problem

CHECKS = ('{"entry": "f", "args": [1], "expected": 2}', '{"entry": "f", "args": ["a"], "expected": [1, null]}')
PROBLEMS = [
    Problem.make(r"What is $\frac{1}{2} + 1$?", r"\frac{3}{2}"),
    Problem.make("Which is even?\nA. 3\nB. 4", "B", "choice"),
    Problem.make("Was heißt \"東京\"?", "Tokio", "text"),
    Problem.make("Write f, which adds one.", "def f(x): return x + 1", "code", CHECKS),
]  # fmt: skip


def origin(problem, skills=("sum_of_digits", "gcd")):
    return {
        "id": problem.id, "category": "maths", "skills": list(skills), "active": list(skills), "pass_at_k": 0.5,
        "votes": [{"verifier": "v", "valid": None}], "weaker_probers": [], "interval": [0.1, 0.9],
        "episode_id": f"synthesize-000001-{problem.id[:4]}",
    }  # fmt: skip


def publish(where, rows=PROBLEMS, **about):
    origins = [origin(p) for p in rows]
    folder.publish(where, rows, rows[:1], origins, card.About("set", len(rows), **about), made_from={})
    return where


@pytest.fixture
def place(tmp_path):
    return publish(tmp_path / "dataset")


def load(where, name=None, tmp="cache"):
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(str(where), name, split="train", cache_dir=str(where.parent / tmp))


def test_datasets_reads_the_folder_as_it_stands(place):
    rows = load(place)
    assert rows.column_names == ["question", "answer", "answer_kind", "checks"]
    assert [(r["question"], r["answer"], r["answer_kind"]) for r in rows] == [
        (p.question, p.answer, p.answer_kind) for p in PROBLEMS
    ]
    assert rows[3]["checks"] == list(CHECKS)
    origins = load(place, "provenance")
    assert [o["id"] for o in origins] == [p.id for p in PROBLEMS]


def test_without_programs_there_are_three_columns(tmp_path):
    assert folder.table(PROBLEMS[:3]).schema.names == ["question", "answer", "answer_kind"]
    assert load(publish(tmp_path / "d", PROBLEMS[:3])).column_names == ["question", "answer", "answer_kind"]


def test_it_takes_the_place_of_another_whole_or_not_at_all_and_of_nobody_elses_files(place, monkeypatch):
    (place / "notes.txt").write_text("mine")
    before = {p.name: p.read_bytes() for p in place.iterdir() if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(card, "text", lambda *_: 1 / 0)  # in the middle
        with pytest.raises(ZeroDivisionError):
            publish(place, PROBLEMS[:2])
    assert {p.name: p.read_bytes() for p in place.iterdir() if p.is_file()} == before
    publish(place, PROBLEMS[:2])
    assert len(folder.rows_of(place)) == 2 and (place / "notes.txt").read_text() == "mine"
    assert [p.name for p in place.parent.iterdir() if p.name != "cache"] == ["dataset"]
    (finding,) = check(place)["findings"]
    assert "notes.txt: is in no manifest" in finding["what"]


def test_a_data_set_of_nothing_is_whole(tmp_path):
    """Of a run that was stopped before it accepted any; `datasets` itself refuses a split without rows."""
    where = publish(tmp_path / "d", [])
    assert folder.rows_of(where) == []
    assert check(where)["findings"] == []


def test_all_files_are_vouched_for(place):
    assert check(place)["findings"] == []
    for path in sorted(p for p in place.rglob("*") if p.is_file() and p.name != "manifest.json"):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        (finding,) = check(place)["findings"]
        assert path.relative_to(place).as_posix() in finding["what"]
        path.write_bytes(before)


def test_the_same_rows_make_the_same_bytes_and_fewer_leave_no_shard(tmp_path, monkeypatch):
    a, b = publish(tmp_path / "a"), publish(tmp_path / "b")
    names = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert all((a / n).read_bytes() == (b / n).read_bytes() for n in names)
    monkeypatch.setattr(folder, "SHARD_ROWS", 2)
    publish(a)
    assert [p.name for p in folder.training_files(a)] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert [r["question"] for r in load(a)] == [p.question for p in PROBLEMS]
    assert [r["question"] for r in folder.rows_of(a)] == [p.question for p in PROBLEMS]


def test_rows_read_back_are_the_problems(place):
    from pipeline.scoring.problems import of_row

    assert (
        [of_row(r) for r in folder.rows_of(place)]
        == PROBLEMS
        == [of_row(r) for r in folder.rows_of(place / "problems.jsonl")]
    )
    with pytest.raises(Failure, match="no data set"):
        folder.training_files(place.parent)


def test_the_card_says_counts_models_and_licence(tmp_path):
    yaml = pytest.importorskip("yaml")
    where = publish(
        tmp_path / "d", license="cc-by-4.0", sources=["notes.md"], models={"proposer": "Qwen3-4B"},
        counts={"Gates": {"episodes": 9, "left out: copies": 2}},
    )  # fmt: skip
    text = (where / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["configs"][0]["data_files"][0]["path"] == [
        "data/train-00000-of-00001.parquet"
    ]
    for words in (
        "| episodes | 9 |",
        "| left out: copies | 2 |",
        "| proposer | Qwen3-4B |",
        "- notes.md",
        "4 problems",
    ):
        assert words in text


@pytest.mark.parametrize("checks", [["{"], [CHECKS[0], "no JSON"]])
def test_a_check_that_is_no_json_is_named(tmp_path, checks):
    rows = {"question": ["Write f.", "Write g."], "answer": ["1", "2"], "checks": [[CHECKS[0]], checks]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(Failure, match=r"a\.parquet, row 2: a check is not JSON"):
        folder.rows_of(tmp_path / "a.parquet")


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("layout", sorted(set(layouts.LAYOUTS) - {"qa"}))
def test_layouts_are_read_by_datasets_and_hold_the_same_problems(tmp_path, layout):
    out = tmp_path / layout
    layouts.write(layout, PROBLEMS, out, "mit", "set")
    rows = load(out)
    assert rows.column_names == layouts.LAYOUTS[layout][1].names and len(rows) == len(PROBLEMS)
    for problem, row, line in zip(PROBLEMS, rows, (out / "train.jsonl").read_text().splitlines(), strict=True):
        assert problem.question in json.dumps(row, ensure_ascii=False).replace("\\\\", "\\").replace(
            '\\"', '"'
        ).replace("\\n", "\n")
        assert json.loads(line) == row
    assert check(out)["findings"] == []
    assert list(traces.find(out)) == []


def test_the_command_offers_every_layout():
    assert set(command.LAYOUTS) == set(layouts.LAYOUTS)


def test_qa_is_two_columns_and_refuses_programs(tmp_path):
    layouts.write("qa", PROBLEMS[:3], tmp_path / "qa", None, "set")
    assert load(tmp_path / "qa").column_names == ["question", "answer"]
    with pytest.raises(Failure, match="1 answers are programs"):
        layouts.write("qa", PROBLEMS, tmp_path / "other", None, "set")
    with pytest.raises(Failure, match="new or empty"):
        layouts.write("qa", PROBLEMS[:3], tmp_path / "qa", None, "set")


def test_verl_has_its_schema(tmp_path):
    layouts.write("verl", PROBLEMS, tmp_path / "verl", None, "set")
    row = load(tmp_path / "verl")[3]
    assert row["prompt"][0]["role"] == "user" and row["reward_model"]["style"] == "rule"
    assert json.loads(row["reward_model"]["ground_truth"]) == [json.loads(c) for c in CHECKS]
    assert row["extra_info"] == {"split": "train", "index": 3} and row["ability"] == "code"


# ---------------------------------------------------------------- traces


def test_a_data_set_of_ours_has_no_trace(place):
    ids = traces.ids_of(place)
    assert "sum_of_digits" in ids and "gcd" not in ids  # a word of mathematics says nothing
    assert list(traces.find(place, ids)) == []


@pytest.mark.parametrize(
    "question",
    [
        "<think>hard</think> What is 1 + 1?",
        'Find x. <tool_call>{"name": "submit"}</tool_call>',
        "## Draft\nWhat is 1 + 1?",
        "What is 1 + 1?\nStage: refine",
        "<|im_start|>assistant What is 1 + 1?",
        "Use sum_of_digits. What is it of 12?",
        "What is synthesize-000001-" + PROBLEMS[0].id[:4] + "?",
        '{"name": "exec", "arguments": {"code": "1"}}',
    ],
)
def test_what_a_proposer_leaves_is_found_in_every_training_file(place, question):
    rows = [*PROBLEMS[:2], Problem.make(question, "2")]
    ids = traces.ids_of(place)
    folder.write_shards(place, folder.table(rows))
    found = list(traces.find(place, ids))
    assert [(t.file, t.row) for t in found] == [("data/train-00000-of-00001.parquet", 3)]


@pytest.mark.parametrize("question", ["Draft a plan of 3 steps.", "Check: is 7 prime?", "Let stage: 2 be x < 3 > y.",
                                      "What is |x| < |y|?"])  # fmt: skip
def test_words_of_a_problem_are_no_trace(place, question):
    folder.write_shards(place, folder.table([Problem.make(question, "2")]))
    assert list(traces.find(place, traces.ids_of(place))) == []


def test_a_column_or_metadata_too_many_is_a_trace(place):
    table = folder.table(PROBLEMS).append_column("skills", pa.array(["a"] * 4))
    pq.write_table(table.replace_schema_metadata({"made": "by an agent"}), place / "data" / "extra.parquet")
    (place / "more.jsonl").write_text('{"question": "q", "answer": "a", "votes": []}\n')
    found = {(t.file, t.what.split(";")[0]) for t in traces.find(place)}
    assert found == {
        ("data/extra.parquet", "carries metadata 'made'"),
        ("data/extra.parquet", "column 'skills'"),
        ("more.jsonl", "column 'votes'"),
    }


@pytest.mark.parametrize(("line", "why"), [('{"question": "q", "ans', "not JSON"), ("[1]", "list"), ("7", "int")])
def test_lines_that_are_no_rows_are_named(place, line, why):
    (place / "more.jsonl").write_text(f'{{"question": "q", "answer": "a"}}\n{line}')
    with pytest.raises(Failure, match=rf"more\.jsonl:2: {why}; expected an object"):
        list(traces.find(place))


def test_trl_reads_its_layout_as_it_documents(tmp_path):
    """A prompt-only data set in conversational form, and a column that TRL's own reward takes as its argument."""
    trl = pytest.importorskip("trl")
    layouts.write("trl", PROBLEMS[:2], tmp_path / "trl", None, "set")
    rows = load(tmp_path / "trl")
    assert all(trl.is_conversational(row) for row in rows)
    said = [[{"role": "assistant", "content": f"So it is $\\boxed{{{answer}}}$."}] for answer in ("1.5", "C")]
    wrong = [[{"role": "assistant", "content": f"So it is $\\boxed{{{answer}}}$."}] for answer in ("2.5", "C")]
    columns = {name: rows[name] for name in rows.column_names}
    from trl.rewards import accuracy_reward

    assert accuracy_reward(completions=said, **columns)[0] == 1.0
    assert accuracy_reward(completions=wrong, **columns)[0] == 0.0
