"""Benchmarks by their name on the Hub: offline from a cache in the publishers' layouts, and from a Hub of our own."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from pipeline import domains
from pipeline.commands import dataset, doctor_config
from pipeline.config import Config
from pipeline.config.benchmarks import presets
from pipeline.config.loading import load
from pipeline.domains import hub_data
from pipeline.records import Failure
from pipeline.scoring import benchmarks
from pipeline.stages import synthesize
from tests.pipeline.domains.a_hub import SHA, Repo, serving
from tests.pipeline.scoring.test_benchmarks import ROWS

MINI = domains.of(load(None).domain)
OTHER = [{"question": "not asked", "answer": "0"}]
LAYOUTS = {
    "aime24": {"data/train-00000-of-00001.parquet": None},
    "aime25": {"data/train-00000-of-00001.parquet": None},
    "hmmt": {"data/train-00000-of-00001.parquet": None},
    "amo-bench": {"data/test-00000-of-00001.parquet": None},
    "math-500": {"test.jsonl": None},
    "gsm8k": {
        "main/test-00000-of-00001.parquet": None, "main/train-00000-of-00001.parquet": OTHER,
        "socratic/test-00000-of-00001.parquet": OTHER,
    },
    "human-eval": {"openai_humaneval/test-00000-of-00001.parquet": None},
    "livecodebench-v5": {"test.jsonl": OTHER, "test5.jsonl": None, "test6.jsonl": OTHER},
    "livecodebench-v6": {"test.jsonl": OTHER, "test5.jsonl": OTHER, "test6.jsonl": None},
    "livecodebench": {"test.jsonl": None, "code_generation_lite.py": b"raise SystemExit"},
    "mmlu-pro": {"data/test-00000-of-00001.parquet": None, "data/validation-00000-of-00001.parquet": OTHER},
    "mmlu-redux": {"anatomy/data-00000-of-00001.arrow": None, "anatomy/state.json": b"{}"},
    "gpqa": {"gpqa_diamond.csv": None, "gpqa_main.csv": OTHER, "gpqa_extended.csv": OTHER},
    "supergpqa": {"SuperGPQA-all.jsonl": None},
    "olympic-arena": {"Physics/val.jsonl": None, "Physics/test.jsonl": OTHER},
}  # fmt: skip
"""Preset -> the paths of its publisher's files; None: those with the rows that are asked."""


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows) if isinstance(rows, list) and path.suffix in (".parquet", ".arrow") else None
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no Hub. Gives what puts a data set there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    def put(name, files):
        folder = tmp_path / "cache" / f"datasets--{name.replace('/', '--')}"
        for path, rows in files.items():
            written(folder / "snapshots" / SHA / path, rows)
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(SHA)
        return folder / "snapshots" / SHA

    return put


def test_every_preset_has_its_layout():
    assert set(LAYOUTS) == set(presets())


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_preset_alone_reads_its_publishers_files(cache, tmp_path, name):
    """Offline, of a cache that has others of the data set as well, by the name that the preset itself gives."""
    rows, preset = ROWS[name], presets()[name]
    cache(preset.data, {path: rows if given is None else given for path, given in LAYOUTS[name].items()})
    evaluate = Config(domain="mini", evaluate={"preset": name}).evaluate
    assert evaluate.benchmark == preset.data
    found = benchmarks.read(benchmarks.files(MINI, evaluate.benchmark, evaluate.mapping()), evaluate.mapping())
    written(tmp_path / "own.jsonl", rows)
    assert found == benchmarks.read(tmp_path / "own.jsonl", preset)
    (check,) = doctor_config.named(
        Config(domain="mini", evaluate={"preset": name}), lambda f: f == "evaluate.benchmark"
    )
    assert check.status == "ok" and "1 files on the Hub, or in its cache" in check.found


def test_any_data_set_is_read_with_a_mapping_or_by_names_that_are_known(cache):
    rows = [{"task": f"What is {n} + 1?", "gold": str(n + 1), "part": "abc"[n % 3]} for n in range(6)]
    cache("us/quiz", {"a/test-00000-of-00002.parquet": rows[:3], "a/test-00001-of-00002.parquet": rows[3:]})
    asked = {"benchmark": "us/quiz", "fields": {"question": "task", "answer": "gold"}, "keep": {"part": ["a", "c"]}}
    evaluate = Config(domain="mini", evaluate=asked).evaluate
    found = benchmarks.read(benchmarks.files(MINI, evaluate.benchmark, evaluate.mapping()), evaluate.mapping())
    assert [row["answer"] for row in found.rows] == ["1", "3", "4", "6"]
    for form in ("json", "csv", "jsonl", "parquet"):
        cache(f"us/{form}", {f"all.{form}": [{"problem": "2 + 2?", "solution": r"So \boxed{4}."}]})
        (row,) = benchmarks.read(benchmarks.files(MINI, f"us/{form}", None), None).rows
        assert (row["question"], row["answer"]) == ("2 + 2?", "4")


def test_what_the_cache_has_not_or_not_whole_is_named(cache):
    with pytest.raises(Failure, match="us/none: no such file, and not in the Hub's cache"):
        benchmarks.files(MINI, "us/none", None)
    cache("us/half", {"test-00000-of-00002.parquet": OTHER})
    with pytest.raises(Failure, match=r"of 2 files like test-00000-of-00002.parquet some are not in"):
        benchmarks.files(MINI, "us/half", None)
    cache("us/parts", {"easy/test.jsonl": OTHER, "hard/train.jsonl": OTHER})
    with pytest.raises(
        Failure, match=r"no file med\*; expected us/parts:PATTERN, of easy/test.jsonl, hard/train.jsonl"
    ):
        benchmarks.files(MINI, "us/parts:med*", None)
    assert [path.name for path in benchmarks.files(MINI, "us/parts", None)] == ["test.jsonl"]
    assert [path.name for path in benchmarks.files(MINI, "us/parts:hard/*", None)] == ["train.jsonl"]


@pytest.mark.parametrize("name", ["mini:heldout", "data/test.jsonl", "./us/quiz", "/us/quiz", "quiz", "a/b/c"])
def test_paths_and_bundled_names_are_no_data_sets(cache, name):
    assert benchmarks.on_the_hub(MINI, name, None) is None


def test_a_folder_here_comes_before_the_hub(cache, tmp_path):
    (tmp_path / "us").mkdir()
    written(tmp_path / "us" / "quiz", OTHER)
    assert benchmarks.on_the_hub(MINI, "us/quiz", None) is None


@pytest.fixture
def ours(cache, monkeypatch):
    rows = b'{"question": "2 + 2?", "answer": "4"}\n'
    files = {"test.jsonl": rows, "train.jsonl": rows, "README.md": b"# quiz"}
    with serving(Repo("datasets", "us/quiz", files), monkeypatch) as repo:
        yield repo


def test_what_is_asked_is_downloaded_once_and_nothing_else(ours, monkeypatch):
    assert hub_data.count(benchmarks.on_the_hub(MINI, "us/quiz", None)) == 1 and ours.sent == []
    for _ in range(2):
        (path,) = benchmarks.files(MINI, "us/quiz", None)
        assert benchmarks.read(path, None).rows[0]["answer"] == "4"
    assert ours.sent == ["test.jsonl"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert benchmarks.files(MINI, "us/quiz", None) == [path]
    with pytest.raises(Failure, match=r"us/quiz:train.jsonl: not whole in the Hub's cache"):
        benchmarks.files(MINI, "us/quiz:train.jsonl", None)


def test_what_the_hub_does_not_have_is_named(ours):
    with pytest.raises(Failure, match=r"us/none: .*knows no such data set") as refused:
        benchmarks.files(MINI, "us/none", None)
    assert refused.value.kind == "data_error"
    with pytest.raises(Failure, match=r"us/quiz: no file \*.csv; expected us/quiz:PATTERN, of test.jsonl, train.jsonl"):
        benchmarks.files(MINI, "us/quiz:*.csv", None)


def test_a_data_set_is_held_against_presets_data_sets_on_the_hub_and_files(cache, tmp_path, monkeypatch):
    """All questions of a benchmark count, those too that its preset does not ask."""
    cache("openai/gsm8k", {"main/test-00000-of-00001.parquet": ROWS["gsm8k"]})
    cache("us/quiz", {"test.jsonl": [{"question": "How far is it to the moon and back?", "answer": "1"}]})
    written(tmp_path / "HumanEval.jsonl", ROWS["human-eval"])
    loop = ROWS["human-eval"][2]["prompt"]
    texts = [ROWS["gsm8k"][0]["question"].upper(), "how far is it, to the moon and back", loop, "What is new here?"]
    written(tmp_path / "own.jsonl", [{"question": text, "answer": "1"} for text in texts])
    places = ("gsm8k", "us/quiz", f"human-eval={tmp_path / 'HumanEval.jsonl'}")
    found = dataset.check(str(tmp_path / "own.jsonl"), (), places, ())
    assert found["barred"] == 3
    for i, place in enumerate(places):
        assert found["examples"][f"benchmark {place}: exact"][0]["row"] == i + 1
    foreign = synthesize._foreign(places)
    assert foreign(texts) == {0: "in gsm8k: exact", 1: "in us/quiz: exact", 2: "in human-eval: exact"}


@pytest.mark.parametrize("place", ["nowhere.jsonl", "gsm8k=nowhere.jsonl", "us/none"])
def test_what_is_to_be_avoided_and_is_not_there_is_told_before_the_run_begins(cache, place):
    config = Config(domain="mini", synthesize={"avoid": [place]})
    (check,) = doctor_config.named(config, lambda field: field == "synthesize.avoid")
    assert check.status == "fail" and place in check.found
