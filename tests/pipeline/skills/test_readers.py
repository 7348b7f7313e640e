"""The formats of a corpus, written by other means than they are read with: what they hold arrives, with its origin
and its licence; what is broken is named or counted; and no more is read than is asked for."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AcquireStage, CorpusFields
from pipeline.records import Failure
from pipeline.skills import corpus, readers
from pipeline.skills.corpus import Corpus, Place
from pipeline.skills.extraction import Document

GOOD = {"question": "What is 2 + 3?", "answer": "5"}
PAGE = """<html><head><title>Remainders</title><script>var x = 1;</script></head><body>
<nav><a href="/">Home</a> <a href="/login">Log in to your account</a></nav>
<article><h1>Remainders</h1><p>The remainder of a division is what is left over when the divisor has been taken away as
often as it goes. For seventeen and five it is two, because three times five is fifteen.</p>
<p>Two numbers are congruent where they leave the same remainder, and sums of congruent numbers are congruent again.</p>
</article><footer>All rights reserved. Cookie settings. Subscribe to our newsletter.</footer></body></html>"""


def read(*places: Place | Path | str, policy: corpus.Policy = "stop", max_chars: int = 8000) -> list[Document]:
    return list(made(*places, policy=policy, max_chars=max_chars))


def made(*places: Place | Path | str, policy: corpus.Policy = "stop", max_chars: int = 8000) -> Corpus:
    return Corpus([p if isinstance(p, Place) else Place(p) for p in places], policy, max_chars)


def pdf(text: str) -> bytes:
    """One page that shows a line, written by hand."""
    stream = zlib.compress(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode())
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, io.SEEK_END)
    for number, part in enumerate(parts, start=1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, part))
    at = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(parts) + 1, at))
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def test_each_format_is_read(tmp_path: Path) -> None:
    line = (json.dumps(GOOD) + "\n").encode()
    contents = {
        "a.jsonl": line, "b.ndjson": line, "c.jsonl.gz": gzip.compress(line) + gzip.compress(line),
        "e.md": b"# Sums\n", "f.txt.zst": zstd("Größe".encode()), "g.markdown.gz": gzip.compress(b"text"),
        "h.html": PAGE.encode(), "i.htm.gz": gzip.compress(PAGE.encode()), "j.pdf": pdf("A prime has two divisors"),
        "k.rst": b"Sums\n====\n",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    pq.write_table(pa.Table.from_pylist([GOOD, GOOD]), tmp_path / "d.parquet")
    found = {document.source.partition(":")[0]: document for document in read(tmp_path)}
    assert list(found) == [*list(contents)[:3], "d.parquet", *list(contents)[3:]]
    qa = "Q: What is 2 + 3?\nA: 5"
    assert [found[name].text for name in ("a.jsonl", "b.ndjson")] == [qa, qa]
    assert found["c.jsonl.gz"].text == found["d.parquet"].text == f"{qa}\n\n{qa}"
    assert found["d.parquet"].source == "d.parquet:1-2" and found["d.parquet"].kind == "qa"
    assert (found["e.md"].text, found["f.txt.zst"].text, found["g.markdown.gz"].text) == ("# Sums\n", "Größe", "text")
    for page in ("h.html", "i.htm.gz"):
        text = found[page].text
        assert "congruent again" in text and not any(w in text for w in ("Log in", "newsletter", "var x"))
    assert found["j.pdf"].text.strip() == "A prime has two divisors" and found["j.pdf"].kind == "text"
    assert all(document.path == str(tmp_path / name) for name, document in found.items())


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    rows = [{"q": "one?", "a": 1, "url": "https://x/1", "rights": "cc0"}, {"q": "two?", "a": 2, "url": "https://x/1"},
            {"body": "A text.", "rights": "mit", "url": "https://x/2"}, {"q": "three?", "a": 3}]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(("q", "a", "url", "rights", "body")), **r} for r in rows]),
        tmp_path / "b.parquet",
    )
    fields = CorpusFields(question="q", answer="a", text="body", source="url", license="rights")
    for name in ("a.jsonl", "b.parquet"):
        found = read(Place(tmp_path / name, license="other", origin="dump of May", fields=fields))
        assert [(d.kind, d.source, d.origin, d.license) for d in found] == [
            ("qa", f"{name}:1-1", "https://x/1", "cc0"), ("qa", f"{name}:2-2", "https://x/1", "other"),
            ("text", f"{name}:3", "https://x/2", "mit"), ("qa", f"{name}:4-4", "dump of May", "other"),
        ]  # fmt: skip


def test_a_config_names_places_with_what_holds_for_each(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.md").write_text(name)
    settings = AcquireStage.model_validate(
        {
            "license": "mit",
            "corpus": [
                str(tmp_path / "a.md"),
                {"path": str(tmp_path / "b.md"), "license": "cc0", "source": "wiki"},
                (tmp_path / "c.md").as_uri(),
            ],
        }
    )
    found = list(corpus.of(settings, Path))
    assert [(d.text, d.license, d.origin) for d in found] == [
        ("a", "mit", None),
        ("b", "cc0", "wiki"),
        ("c", "mit", None),
    ]
    assert found[2].path == (tmp_path / "c.md").as_uri()


def test_a_place_that_pyarrow_reaches_is_walked_like_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.md", "b/1.txt", "a.jsonl", ".git/x.md", "b/._1.txt", "b/scan.tiff", "z/blank.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text({"a.jsonl": json.dumps(GOOD), "z/blank.txt": " "}.get(name, name))
    uri = tmp_path.as_uri()
    found = made(uri)
    there = [(d.text, d.path) for d in found]
    assert there == [
        ("Q: What is 2 + 3?\nA: 5", f"{uri}/a.jsonl"),
        ("b/1.txt", f"{uri}/b/1.txt"),
        ("b/2.md", f"{uri}/b/2.md"),
    ]
    local = made(tmp_path)
    assert [d.text for d in local] == [text for text, _ in there]
    assert sum(found.left_out.values()) == 4 and found.left_out["empty"] == 1
    for place, said in ((f"{uri}/nowhere", "no such file"), ("nothing://x/y", "expected a file or folder there")):
        with pytest.raises(Failure, match=said):
            read(place)


BROKEN = {
    "a.jsonl": b'{"question": \n', "b.parquet": b"PAR1 no", "c.txt.gz": gzip.compress(b"text" * 999)[:-20],
    "d.md.zst": b"no zstd at all", "e.pdf": b"%PDF-1.4\nbroken", "f.md": b"caf\xe9",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_or_counted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    (tmp_path / "good.txt").write_text("fine")
    with pytest.raises(Failure) as caught:
        read(tmp_path)
    assert f"corpus file {tmp_path / name}" in str(caught.value) and "\n" not in str(caught.value)
    found = made(tmp_path, policy="skip")
    assert "fine" in [d.text for d in found]
    assert (found.skipped, found.left_out.total()) == (1, 1) and next(iter(found.named.values()))[0].startswith(
        str(tmp_path)
    )


def test_what_says_nothing_is_counted_and_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body></body></html>")
    (tmp_path / "b.pdf").write_bytes(pdf(""))
    (tmp_path / "c.parquet.gz").write_bytes(b"")
    (tmp_path / "d.txt").write_text("fine")
    found = made(tmp_path)
    assert [d.text for d in found] == ["fine"] and found.skipped == 0
    reasons = ("a page without a main text", "a PDF without text (scanned pages?)")
    assert found.left_out == dict.fromkeys([*reasons, ".parquet.gz is no format that is read"], 1)


def test_a_row_that_is_none_is_named_by_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD, {"question": "q", "answer": None}, GOOD]), tmp_path / "a.parquet")
    with pytest.raises(Failure, match=r"a\.parquet:2: no field 'answer'"):
        read(tmp_path)
    found = made(tmp_path, policy="skip")
    assert [d.source for d in found] == ["a.parquet:1-3"] and found.skipped == 1
    assert list(found.named.values()) == [[f"{tmp_path / 'a.parquet'}:2"]]


def test_all_that_is_left_out_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n" * 50 + json.dumps(GOOD))
    found = made(tmp_path, policy="skip")
    assert len(list(found)) == 1 and found.skipped == found.left_out.total() == 50
    assert [len(names) for names in found.named.values()] == [corpus.NAMED]
    assert len(list(found)) == 1 and found.skipped == 50


class Counted(io.BytesIO):
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.taken += len(content)
        return content


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
def test_no_more_is_read_than_is_asked_for(name: str) -> None:
    line = json.dumps({"text": "abcdefghij" * 20}) + "\n"
    content = (line * 60_000).encode()
    held = Counted(gzip.compress(content, 0) if name.endswith("gz") else content)
    reader = readers.reader_of(name)
    assert reader is not None
    rows = reader(readers.opened(held, name), CorpusFields())
    first = next(rows)
    assert isinstance(first, readers.Row) and len(first.text) <= readers.PART
    assert held.taken <= 6 << 20 < len(content)


def test_a_long_text_comes_in_parts_that_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART", 1000)
    text = "\n\n".join(f"Paragraph {n} has a few words." for n in range(500))
    (tmp_path / "a.txt").write_text(text)
    found = read(tmp_path, max_chars=300)
    assert "".join("".join(d.text for d in found).split()) == "".join(text.split())
    assert all(d.text.strip().startswith("Paragraph") and len(d.text) <= 300 for d in found)
    assert found[0].source == "a.txt:1" and len({d.source for d in found}) > 10
