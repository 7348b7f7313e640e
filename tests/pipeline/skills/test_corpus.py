"""The corpus: nothing lost, nothing taken twice, and a bad line named as an editor counts it."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import domains
from pipeline.records import Failure
from pipeline.skills import corpus
from pipeline.skills.corpus import Place
from tests.mini import MINI

GOOD = {"question": "What is 2 + 3?", "answer": "5"}


class Found(corpus.Corpus):
    """A corpus read whole."""

    def __init__(self, places, policy, max_chars):
        super().__init__([p if isinstance(p, Place) else Place(p) for p in places], policy, max_chars)
        self.documents = list(self)


read = Found


BUNDLED = domains.of(MINI.domain).resolve("mini:corpus")


def jsonl(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


@pytest.mark.parametrize(
    "bad",
    [
        "{broken",
        "[1, 2]",
        '"text"',
        "null",
        '{"question": "q"}',
        '{"question": "q", "answer": null}',
        '{"question": ["q"], "answer": "a"}',
        '{"question": "q", "answer": true}',
        '{"question": " ", "answer": "a"}',
        "[" * 100_000,
    ],
    ids=lambda bad: bad[:30],
)
def test_a_bad_line_is_named_or_skipped_and_counted(tmp_path, bad):
    path = jsonl(tmp_path / "qa.jsonl", GOOD, "", bad, GOOD)
    with pytest.raises(Failure) as caught:
        read([path], "stop", 1000)
    text = str(caught.value)
    assert f"{path}:3: " in text and "\n" not in text and "acquire.on_bad_record=skip" in text
    found = read([path], "skip", 1000)
    assert found.skipped == 1
    assert [d.text.count("What is 2 + 3?") for d in found.documents] == [2]


def test_line_separators_inside_a_text_are_no_line_ends(tmp_path):
    odd = {"question": "a\u2028b\x85c\x0cd", "answer": "5"}
    path = jsonl(tmp_path / "qa.jsonl", odd, "{broken")
    with pytest.raises(Failure, match=":2: "):
        read([path], "stop", 1000)
    (document,) = read([path], "skip", 1000).documents
    assert odd["question"] in document.text


def test_pairs_go_together_with_the_lines_they_came_from(tmp_path):
    rows = [{"question": f"question {i}?", "answer": i} for i in range(corpus.QA_PER_DOCUMENT + 2)]
    first, second = read([jsonl(tmp_path / "qa.jsonl", "", *rows)], "stop", 1000).documents
    assert (first.kind, first.source, second.source) == ("qa", "qa.jsonl:2-9", "qa.jsonl:10-11")
    assert second.text == "Q: question 8?\nA: 8\n\nQ: question 9?\nA: 9"


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_file_that_is_no_text(tmp_path, policy):
    (tmp_path / "a.md").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("fine")
    if policy == "stop":
        with pytest.raises(Failure, match=r"a\.md: not UTF-8 at byte 3"):
            read([tmp_path], policy, 1000)
    else:
        found = read([tmp_path], policy, 1000)
        assert (found.skipped, [d.text for d in found.documents]) == (1, ["fine"])


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")  # a regular file whose reading fails, for root too
    with pytest.raises(Failure, match=r"corpus file .*a\.txt: \w"):
        read([tmp_path], "stop", 1000)


def test_paths_that_hold_nothing_are_named(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "blank.txt").write_text(" \n\n \n")
    for path, said in [
        (tmp_path / "absent", "absent: no such file or folder"),
        (tmp_path / "picture.png", "unknown kind '.png'; expected one of .jsonl, .ndjson, .parquet, .md"),
        (tmp_path, "holds no document"),
    ]:
        with pytest.raises(Failure) as caught:
            read([path], "stop", 1000)
        assert said in str(caught.value) and str(path) in str(caught.value)


def test_documents_come_in_the_order_of_the_paths_and_of_the_names(tmp_path):
    folder = [f"b/{n}.md" for n in "jcgaibdhfe"] + ["b/k/0.md", "b/1.txt"]
    for name in [*folder, "a.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = read([tmp_path / "b", tmp_path / "a.md"], "stop", 1000)
    assert [d.text for d in found.documents] == [*sorted(folder), "a.md"]


def test_what_is_left_out_is_named_by_its_reason(tmp_path):
    (tmp_path / "a.TXT").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    (tmp_path / "b.md").write_bytes("drei".encode("utf-16"))
    jsonl(tmp_path / "c.JSONL", "\ufeff" + json.dumps(GOOD))
    for name in (
        "._a.txt",
        ".hidden.md",
        ".git/x.md",
        "__MACOSX/y.md",
        "paper.rtf",
        "notes.docx",
        "LICENSE",
        "blank.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(" ")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    (tmp_path.parent / f"{tmp_path.name}-other").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path.parent / f"{tmp_path.name}-other")
    for policy in ("stop", "skip"):
        found = read([tmp_path], policy, 1000)
        assert [d.text for d in found.documents] == ["one\n\ntwo", "drei", "Q: What is 2 + 3?\nA: 5"]
        assert found.skipped == 0
        counts = {re.split(r"[;(]", reason)[0].strip(): count for reason, count in found.left_out.items()}
        assert counts == {
            "an AppleDouble file": 1, "a hidden file": 1, "a hidden folder": 2, "a link to a folder": 1, "empty": 1,
            ".rtf is no format that is read": 1, ".docx is no format that is read": 1,
            "a name without suffix is no format that is read": 1, "no regular file": 1,
        }  # fmt: skip


def test_half_a_surrogate_pair_is_a_bad_record_and_no_crash(tmp_path):
    path = jsonl(tmp_path / "qa.jsonl", GOOD, '{"question": "a\\ud800", "answer": "b"}')
    with pytest.raises(Failure, match=r"qa\.jsonl:2: .*half of a surrogate pair"):
        read([path], "stop", 1000)
    found = read([path], "skip", 1000)
    assert (found.skipped, len(found.documents)) == (1, 1)
    assert list(found.named.values()) == [[f"{path}:2"]]


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.sampled_from(["jsonl", "md"]),
)
def test_any_file_has_an_outcome(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(content)
    for policy in ("stop", "skip"):
        try:
            found = read([path], policy, 1000)
        except Failure as e:
            assert "\n" not in str(e)
        else:
            json.dumps([d.text for d in found.documents], ensure_ascii=False).encode()


paragraphs = st.lists(st.text("ab \n", max_size=30), max_size=12)


@settings(max_examples=200, deadline=None)
@given(paragraphs, st.integers(1, 60))
def test_chunks_lose_nothing_and_keep_their_size(tmp_path_factory, parts, limit):
    text = "\n\n".join(parts)
    chunks = list(corpus.chunks(text, limit))
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(chunk.strip() for chunk in chunks)
    assert all(len(c) <= limit or "\n" not in c.strip() for c in chunks)


def test_a_text_in_chinese_is_cut_at_its_sentences_and_each_sign_counts_for_three_letters():
    text = "中国剩余定理把同余方程组化为一个方程。" * 40
    chunks = corpus.chunks(text, 600)
    assert "".join(chunks) == text and all(chunk.endswith("。") for chunk in chunks)
    assert all(400 < 3 * len(chunk) <= 600 for chunk in chunks[:-1])
    assert corpus.chunks("a b. " * 100, 600) == ["a b. " * 100]


def test_the_bundled_corpus_is_read_whole():
    found = read([BUNDLED], "stop", 8000)
    assert found.skipped == 0
    assert {d.kind for d in found.documents} == {"qa", "text"}
    assert found.documents == read([BUNDLED], "stop", 8000).documents == list(found)
