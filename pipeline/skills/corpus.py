"""The corpus: what skills are acquired from, read as it is needed.

Questions with their answers go together, some a document; a text is cut into documents. Invariants: documents come in
the order of the configured places, folders sorted, so that document n is the same document on every run and in every
pass; every file of a place is read or counted under the reason why not; what is held at once does not grow with the
corpus.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pipeline.config import AcquireStage, CorpusFields, CorpusSource
from pipeline.records import Failure
from pipeline.skills.extraction import Document
from pipeline.skills.places import File, files
from pipeline.skills.readers import SUFFIXES, Fault, Nothing, Read, Row, opened, reader_of
from pipeline.skills.scripts import length

QA_PER_DOCUMENT = 8
"""Question-answer pairs shown to the teacher together."""
NAMED = 20
"""Files and lines that are named of what was left out for one reason; all are counted."""
Policy = Literal["stop", "skip"]


@dataclass(frozen=True)
class Place:
    at: Path | str
    """A file or a folder; a URI where it is not on this machine."""
    license: str | None = None
    origin: str | None = None
    fields: CorpusFields = CorpusFields()  # noqa: RUF009 - frozen


def of(settings: AcquireStage, resolve: Callable[[str], Path]) -> Corpus:
    """The corpus of a config. Raises Failure for a place that is none."""
    places = []
    for given in settings.corpus:
        source = CorpusSource(path=given) if isinstance(given, str) else given
        at = source.path if "://" in source.path else resolve(source.path)
        places.append(Place(at, source.license or settings.license, source.source, source.fields))
    return Corpus(places, settings.on_bad_record, settings.max_document_chars)


class Corpus:
    """Iterating reads it, from its beginning each time; the counts are of the last pass, as far as it went.

    Raises Failure for a place that cannot be read, for a corpus without a document, and, unless told to skip, for a
    record that is none, with its file and line.
    """

    def __init__(self, places: Sequence[Place], on_bad_record: Policy, max_chars: int):
        self._places, self._policy, self._max_chars = places, on_bad_record, max_chars
        self._reset()

    def _reset(self) -> None:
        self.skipped = 0
        """Files and records left out by the policy `skip`."""
        self.left_out: Counter[str] = Counter()
        """Reason -> how many files, folders and lines were not read."""
        self.named: dict[str, list[str]] = defaultdict(list)
        """Reason -> the first of these."""

    def __iter__(self) -> Iterator[Document]:
        self._reset()
        none = True
        for place in self._places:
            for file in files(place.at, self._leave_out, self._skip):
                for document in self._documents(file, place):
                    none = False
                    yield document
        if none:
            why = "; ".join(f"{count} left out: {reason}" for reason, count in self.left_out.items())
            raise Failure(
                f"acquire.corpus {[str(place.at) for place in self._places]}: holds no document; expected "
                f"{', '.join(SUFFIXES)} files" + (f" ({why})" if why else "")
            )

    def _leave_out(self, reason: str, path: str) -> None:
        self.left_out[reason] += 1
        if len(self.named[reason]) < NAMED:
            self.named[reason].append(path)

    def _skip(self, path: str, cause: str) -> None:
        if self._policy == "stop":
            raise Failure(
                f"corpus file {path}: {cause}; expected a readable file (acquire.on_bad_record=skip passes over such)"
            )
        self.skipped += 1
        self._leave_out(re.split(r" at byte| \(", cause)[0], path)

    def _documents(self, file: File, place: Place) -> Iterator[Document]:
        pairs: list[Row] = []
        for row in self._rows(file, place.fields):
            if pairs and (row.question is None or len(pairs) == QA_PER_DOCUMENT or _about(row) != _about(pairs[0])):
                yield self._together(file, place, pairs)
                pairs = []
            if row.question is not None:
                pairs.append(row)
                continue
            label = f"{file.name}:{row.at}" if row.at else file.name
            for chunk in chunks(row.text, self._max_chars):
                yield _document(label, "text", chunk, file, place, row)
        if pairs:
            yield self._together(file, place, pairs)

    def _together(self, file: File, place: Place, pairs: list[Row]) -> Document:
        text = "\n\n".join(f"Q: {pair.question}\nA: {pair.answer}" for pair in pairs)
        return _document(f"{file.name}:{pairs[0].at}-{pairs[-1].at}", "qa", text, file, place, pairs[0])

    def _rows(self, file: File, fields: CorpusFields) -> Iterator[Row]:
        """The rows of a file; what is none is counted, or raises."""
        reader = reader_of(file.name)
        assert reader is not None, "other files are left out before"
        some = False
        try:
            with file.open() as raw:
                for row in _guarded(reader(opened(raw, file.name), fields)):
                    some = True
                    if isinstance(row, Row):
                        yield row
                    elif isinstance(row, Nothing):
                        self._leave_out(row.reason, file.path)
                    elif not row.at:
                        self._skip(file.path, row.cause)
                    else:
                        self._bad_row(file, row, fields)
        except OSError as e:
            some = True
            self._skip(file.path, str(e.strerror or " ".join(str(e).split())[:100]))
        if not some:
            self._leave_out("empty", file.path)

    def _bad_row(self, file: File, fault: Fault, fields: CorpusFields) -> None:
        if self._policy == "stop":
            raise Failure(
                f'corpus file {file.path}:{fault.at}: {fault.cause}; expected {{"{fields.question}": …, '
                f'"{fields.answer}": …}} or {{"{fields.text}": …}} (acquire.on_bad_record=skip passes over such lines)'
            )
        self.skipped += 1
        self._leave_out("no record with question and answer, or text", f"{file.path}:{fault.at}")


def _guarded(rows: Read) -> Read:
    """What decoding and decompressing raise in the middle of a file, as its fault."""
    try:
        yield from rows
    except UnicodeDecodeError as e:
        yield Fault("", f"not {e.encoding.upper()} at byte {e.start}")
    except pa.ArrowException as e:
        yield Fault("", f"not readable as compressed ({' '.join(str(e).split())[:100]})")


def _about(row: Row) -> tuple[str | None, str | None]:
    return row.source, row.license


def _document(label: str, kind: Literal["qa", "text"], text: str, file: File, place: Place, row: Row) -> Document:
    return Document(label, kind, text, file.path, row.source or place.origin, row.license or place.license)


_BOUNDARIES = ((r"\n\s*\n", "\n\n"), (r"\n", "\n"), (r"(?<=[.!?])\s+", " "), (r"(?<=[。！？；])", ""))
"""Where a text may be cut, best first: paragraphs, lines, sentences; and what stands between them."""


def chunks(text: str, max_chars: int) -> list[str]:
    """Cut so that no piece is longer than `max_chars` Latin letters unless one sentence is."""
    if not text.strip():
        return []
    if length(text) <= max_chars:
        return [text]
    for at, between in _BOUNDARIES:
        parts = [part for part in re.split(at, text) if part.strip()]
        if len(parts) > 1:
            return _joined([piece for part in parts for piece in chunks(part, max_chars)], between, max_chars)
    return [text]


def _joined(pieces: list[str], between: str, max_chars: int) -> list[str]:
    """Neighbours put together again, as far as they fit."""
    found: list[list[str]] = []
    size = 0
    for piece in pieces:
        more = length(piece)
        if found and size + len(between) + more <= max_chars:
            found[-1].append(piece)
            size += len(between) + more
        else:
            found.append([piece])
            size = more
    return [between.join(together) for together in found]
