"""The corpus: what skills are acquired from.

Structured Q&A is `.jsonl` with `question` and `answer` a line; free text is `.md` and `.txt`. Invariant: documents come
in the order of the configured paths, folders sorted, so that document n is the same document on every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.records import Failure
from pipeline.skills.extraction import Document

QA_PER_DOCUMENT = 8
"""Question-answer pairs shown to the teacher together."""
_SUFFIXES = (".jsonl", ".md", ".txt")


@dataclass(frozen=True)
class Corpus:
    documents: tuple[Document, ...]
    skipped: int
    """Records left out by the policy `skip`."""


def read(paths: Sequence[Path], on_bad_record: Literal["stop", "skip"], max_chars: int) -> Corpus:
    """Read files and folders.

    Raises Failure for a path that cannot be read, for a corpus without a document, and, unless told to skip, for a
    record that is none, with its file and line.
    """
    documents: list[Document] = []
    skipped = 0
    closed: list[OSError] = []
    files = [file for path in paths for file in _files(path, closed.append)]
    for error in closed:
        _leave_out(Path(error.filename), str(error.strerror), on_bad_record)
    skipped += len(closed)
    for path in files:
        try:
            if not path.is_file():  # a link to nowhere, a socket
                continue
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            cause = str(e.strerror) if isinstance(e, OSError) else f"not UTF-8 at byte {e.start}"
            _leave_out(path, cause, on_bad_record)
            skipped += 1
            continue
        if path.suffix == ".jsonl":
            found, bad = _questions(path, text, on_bad_record)
            documents += found
            skipped += bad
        else:
            documents += [Document(path.name, "text", chunk) for chunk in _chunks(text, max_chars)]
    if not documents:
        raise Failure(f"acquire.corpus {list(paths)}: holds no document; expected {', '.join(_SUFFIXES)} files")
    return Corpus(tuple(documents), skipped)


def _leave_out(path: Path, cause: str, on_bad_record: str) -> None:
    if on_bad_record == "stop":
        raise Failure(f"corpus file {path}: {cause}; expected a readable UTF-8 text") from None


def _files(path: Path, closed: Callable[[OSError], None]) -> list[Path]:
    """The files of a configured path, in order; `closed` is told of what may not be looked into."""
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise Failure(
                f"acquire.corpus {path}: unknown kind {path.suffix!r}; expected one of {', '.join(_SUFFIXES)}"
            )
        return [path]
    if path.is_dir():
        within = (Path(folder, name) for folder, _, names in os.walk(path, onerror=closed) for name in names)
        return sorted(p for p in within if p.suffix in _SUFFIXES)
    raise Failure(f"acquire.corpus {path}: no such file or folder")


def _questions(path: Path, text: str, on_bad_record: str) -> tuple[list[Document], int]:
    pairs: list[tuple[int, str]] = []
    skipped = 0
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut at U+2028 in a string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((number, f"Q: {_text(row, 'question')}\nA: {_text(row, 'answer')}"))
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            cause = f"no field {e}" if isinstance(e, KeyError) else f"no JSON object with text fields ({e})"
            if on_bad_record == "stop":
                raise Failure(
                    f'corpus file {path}:{number}: {cause}; expected {{"question": …, "answer": …}} '
                    "(acquire.on_bad_record=skip passes over such lines)"
                ) from None
            skipped += 1
    blocks = [pairs[i : i + QA_PER_DOCUMENT] for i in range(0, len(pairs), QA_PER_DOCUMENT)]
    return [
        Document(f"{path.name}:{block[0][0]}-{block[-1][0]}", "qa", "\n\n".join(pair for _, pair in block))
        for block in blocks
    ], skipped


def _text(row: dict[str, object], field: str) -> str:
    value = row[field]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError(f"{field} is {type(value).__name__}")
    if not str(value).strip():
        raise ValueError(f"{field} is empty")
    return str(value)


def _chunks(text: str, max_chars: int) -> Iterator[str]:
    """Cut at paragraphs, so that no piece is longer than `max_chars` unless one paragraph is."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) + 2 > max_chars:
            if piece.strip():
                yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    if piece.strip():
        yield piece
