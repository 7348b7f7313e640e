"""What says the same in other words: by vectors, with the same numbers, in blocks that make no difference."""

import json

import numpy as np
import pytest

from pipeline.dataset import gates, matching, semantic
from pipeline.records import Failure
from tests.actors.tiny_model import make_model
from tests.pipeline.test_cli import propose, refused

TEXTS = [
    "A train of 90 km/h leaves at noon. Where is it after 2 hours?",
    "Find the area of a square with side 4.",
    "After 2 hours, how far has a train come that does 90 km/h from midday on?",
    "How large is a square whose edges measure 5?",
]
"""The third says what the first does, the fourth the second with another number."""
ANGLES = {TEXTS[0]: 0.0, TEXTS[1]: 1.5, TEXTS[2]: 0.1, TEXTS[3]: 1.55, "Count the primes below 12.": 0.8}


def meaning(texts):
    return np.array([[np.cos(ANGLES[t]), np.sin(ANGLES[t])] for t in texts], np.float32)


def test_the_same_in_other_words_is_found_unless_its_numbers_differ():
    rows = matching.sketch(TEXTS)
    assert semantic.duplicates(rows, meaning(TEXTS)) == [matching.Match(2, 0, "semantic")]
    assert semantic.duplicates(rows, meaning(TEXTS), 0.9999) == []
    other = [TEXTS[3], TEXTS[0]]
    found = semantic.against(rows, meaning(TEXTS), matching.sketch(other), meaning(other))
    assert [(m.row, m.of) for m in found] == [(0, 1), (2, 1), (3, 0)]


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(1)
    texts = [f"Take {i % 3} of them." for i in range(60)]
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = matching.sketch(texts)
    like = vectors @ vectors.T >= 0.9
    expected = [(i, next(j for j in range(i) if like[i, j] and i % 3 == j % 3)) for i in range(60)
                if any(like[i, j] and i % 3 == j % 3 for j in range(i))]  # fmt: skip
    assert len(expected) > 5
    for block in (4096, 7, 1):
        monkeypatch.setattr(semantic, "_BLOCK", block)
        assert [(m.row, m.of) for m in semantic.duplicates(rows, vectors, 0.9)] == expected
        assert [m.of for m in semantic.against(rows, vectors, rows, vectors, 0.9)] == [
            next(j for j in range(60) if like[i, j] and i % 3 == j % 3) for i in range(60)
        ]


def test_gates_count_them_by_words_first():
    rows = [{"question": text, "answer": "1", "answer_kind": "math"} for text in [*TEXTS, TEXTS[0].upper()]]
    ANGLES[TEXTS[0].upper()] = 0.0
    found = gates.check(rows, {}, {"bench": ["Count the primes below 12."]}, (), meaning)
    assert {gate: n for gate, n in found["gates"].items() if n} == {"duplicate: exact": 1, "duplicate: semantic": 1}
    assert found["barred"] == 2


def test_a_model_of_a_folder_gives_a_vector_a_text_whatever_stands_beside_it(tmp_path):
    make_model(tmp_path / "model")
    embed = semantic.Embedder(str(tmp_path / "model"))
    together = embed([*TEXTS, TEXTS[1]])
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together[1], embed([TEXTS[1]])[0], atol=1e-4) and np.allclose(
        together[1], together[4], atol=1e-5
    )
    assert float(together[0] @ together[1]) < 0.9999
    with pytest.raises(Failure, match=r"no such folder; expected that of a model"):
        semantic.Embedder(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match="expected a model that transformers reads"):
        semantic.Embedder(str(tmp_path / "empty"))


def test_the_command_finds_them_from_a_cosine_on(tmp_path, capsys):
    make_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in TEXTS))
    embed = semantic.Embedder(str(tmp_path / "model"))
    first, _, third, _ = embed(TEXTS)
    cosine = float(first @ third)

    def check(alike):
        told = propose(capsys, "dataset", "check", rows, "--semantic", tmp_path / "model", "--alike", alike, "--json")
        return json.loads(told[1])["gates"].get("duplicate: semantic", 0)

    assert (check(cosine - 1e-3), check(min(cosine + 1e-3, 1))) == (1, 0)
    assert "expected --semantic MODEL" in refused(capsys, "dataset", "check", rows, "--alike", 0.9)
    above = refused(capsys, "dataset", "check", rows, "--semantic", tmp_path / "model", "--alike", 95)
    assert "--alike 95: no cosine is above 1" in above
