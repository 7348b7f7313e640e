"""The formats of a corpus: what a file holds, as records, a few in memory at a time.

    .jsonl .ndjson .parquet        rows: question and answer, or text, by the names that `Fields` gives them
    .md .rst .txt .html .pdf       one text, of .html the main one; long ones come in parts
    any of them + .gz, .zst        (not .parquet and .pdf, which need more than a stream)

Invariant: a reader yields in the file's order, and what is no record as a `Fault` with its line; it holds one line, one
batch of rows or one part of a text at a time, of .html and .pdf the file. Nothing of a file is executed.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import CorpusFields

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
PART = 1 << 22
"""Characters of a text that are held at once."""
WHOLE = 64 << 20
"""Bytes of a file that is read at once, at most."""
_BATCH = 256


@dataclass(frozen=True)
class Row:
    """Question and answer, or a text; with where in its file it stands."""

    at: str
    text: str = ""
    question: str | None = None
    answer: str | None = None
    source: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Fault:
    """A record that is none, or (`at` is empty) a file."""

    at: str
    cause: str


@dataclass(frozen=True)
class Nothing:
    """A file that is read, and has nothing to say; why."""

    reason: str


Read = Iterator[Row | Fault | Nothing]
Reader = Callable[[IO[bytes], CorpusFields], Read]


def suffix_of(name: str) -> tuple[str, str]:
    """(format, compression) of a file's name: (".jsonl", ".zst")."""
    base, dot, last = name.lower().rpartition(".")
    last = dot + last if base else ""
    if last not in COMPRESSED:
        return last, ""
    inner, dot, first = base.rpartition(".")
    return (dot + first if inner else ""), last


def reader_of(name: str) -> Reader | None:
    """None for what is no format that is read."""
    suffix, compression = suffix_of(name)
    return None if compression and suffix in (".parquet", ".pdf") else _READERS.get(suffix)


def opened(file: IO[bytes], name: str) -> IO[bytes]:
    """The content of a file, decompressed as it is read."""
    codec = COMPRESSED.get(suffix_of(name)[1])
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec) if codec else file


# ---------------------------------------------------------------- rows


def _jsonl(file: IO[bytes], fields: CorpusFields) -> Read:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), fields, str(number))
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            cause = f"no field {e}" if isinstance(e, KeyError) else f"no JSON object with text fields ({e})"
            yield Fault(str(number), cause)


def _parquet(file: IO[bytes], fields: CorpusFields) -> Read:
    try:
        table = pq.ParquetFile(file)
        columns = [name for name in fields.names() if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                try:
                    yield _row(row, fields, str(number))
                except (ValueError, KeyError, TypeError) as e:
                    cause = f"no field {e}" if isinstance(e, KeyError) else f"no text fields ({e})"
                    yield Fault(str(number), cause)
    except (OSError, pa.ArrowException) as e:
        yield Fault("", f"not readable as Parquet ({_brief(e)})")


def _row(row: dict[str, Any], fields: CorpusFields, at: str) -> Row:
    if not isinstance(row, dict):
        raise TypeError(f"it is {type(row).__name__}")
    row = {name: value for name, value in row.items() if value is not None}
    about = {
        name: str(row[column])
        for name, column in (("source", fields.source), ("license", fields.license))
        if column is not None and row.get(column) is not None
    }
    if fields.question not in row and fields.answer not in row and fields.text in row:
        return Row(at, text=_text(row, fields.text), **about)
    return Row(at, question=_text(row, fields.question), answer=_text(row, fields.answer), **about)


def _text(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {type(value).__name__}")
    if not str(value).strip():
        raise ValueError(f"{name} is empty")
    try:
        str(value).encode()
    except UnicodeEncodeError:  # JSON can write it, and nothing can send it
        raise ValueError(f"{name} holds half of a surrogate pair") from None
    return str(value)


# ---------------------------------------------------------------- texts


def _plain(file: IO[bytes], fields: CorpusFields) -> Read:
    """In parts that end where a paragraph does, or else a line."""
    held = ""
    number = 0
    for piece in _decoded(file):
        held += piece
        while len(held) > PART:
            cut = max(held.rfind("\n\n", 0, PART), 0) or max(held.rfind("\n", 0, PART), 0) or PART
            number += 1
            yield Row(str(number), text=held[:cut])
            held = held[cut:]
    if held.strip():
        yield Row(str(number + 1) if number else "", text=held)
    elif not number:
        yield Nothing("empty")


def _html(file: IO[bytes], fields: CorpusFields) -> Read:
    content = file.read(WHOLE + 1)
    if len(content) > WHOLE:
        yield Fault("", f"a page of more than {WHOLE >> 20} MB")
        return
    from trafilatura import extract  # half a second that other corpora need not wait for

    text = extract(content, include_comments=False, favor_precision=True) if content.strip() else None
    yield Row("", text=text) if text and text.strip() else Nothing("a page without a main text")


def _pdf(file: IO[bytes], fields: CorpusFields) -> Read:
    content = file.read(WHOLE + 1)
    if len(content) > WHOLE:
        yield Fault("", f"a PDF of more than {WHOLE >> 20} MB")
        return
    from pypdf import PdfReader

    try:
        pages = [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]
    except Exception as e:  # a file may be broken in any way, and its reader says so in as many
        yield Fault("", f"not readable as PDF ({_brief(e)})")
        return
    text = "\n\n".join(page.encode("utf-8", "replace").decode() for page in pages if page.strip())
    yield Row("", text=text) if text.strip() else Nothing("a PDF without text (scanned pages?)")


# ---------------------------------------------------------------- bytes


def _decoded(file: IO[bytes]) -> Iterator[str]:
    """UTF-8, or what a byte order mark says; line ends of any system. Raises UnicodeDecodeError of the whole file."""
    first = file.read(1 << 16)
    utf16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if utf16 else "utf-8-sig")()
    ends = io.IncrementalNewlineDecoder(None, translate=True)
    before, piece = 0, first
    while True:
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as e:
            raise UnicodeDecodeError(e.encoding, e.object, before + e.start, before + e.end, e.reason) from None
        before += len(piece) - len(decoder.getstate()[0])
        yield ends.decode(text, final=not piece)
        if not piece:
            return
        piece = file.read(1 << 20)


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Cut at line ends alone: a string of JSON may hold other separators."""
    held: list[str] = []
    for piece in _decoded(file):
        *whole, rest = piece.split("\n")
        for line in whole:
            yield "".join([*held, line])
            held = []
        held.append(rest)
    yield "".join(held)


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__


_READERS: dict[str, Reader] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet, ".md": _plain, ".markdown": _plain, ".rst": _plain,
    ".txt": _plain, ".html": _html, ".htm": _html, ".xhtml": _html, ".pdf": _pdf,
}  # fmt: skip
SUFFIXES = tuple(_READERS)
