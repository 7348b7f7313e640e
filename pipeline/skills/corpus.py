"""The corpus: what skills are acquired from.

Structured Q&A is `.jsonl` with `question` and `answer` a line; free text is `.md` and `.txt`. Invariants: documents
come in the order of the configured paths, folders sorted, so that document n is the same document on every run; every
file of a path is read or stands in `left_out` under the reason why not.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.records import Failure
from pipeline.skills.extraction import Document
from pipeline.skills.scripts import length

QA_PER_DOCUMENT = 8
"""Question-answer pairs shown to the teacher together."""
_SUFFIXES = (".jsonl", ".md", ".txt")
_Policy = Literal["stop", "skip"]


@dataclass
class Corpus:
    documents: list[Document] = field(default_factory=list)
    skipped: int = 0
    """Files and records left out by the policy `skip`."""
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Reason -> the files, folders and lines that were not read."""

    def leave_out(self, reason: str, path: Path | str) -> None:
        self.left_out[reason].append(_printable(path))


def read(paths: Sequence[Path], on_bad_record: _Policy, max_chars: int) -> Corpus:
    """Read files and folders.

    Raises Failure for a path that cannot be read, for a corpus without a document, and, unless told to skip, for a
    record that is none, with its file and line.
    """
    found = Corpus()
    for path in [file for place in paths for file in _files(place, found, on_bad_record)]:
        try:
            if not path.is_file():
                found.leave_out("no regular file (a link to nowhere, a socket)", path)
                continue
            text = _decoded(path.read_bytes())
        except (OSError, UnicodeDecodeError) as e:
            cause = str(e.strerror) if isinstance(e, OSError) else f"not {e.encoding.upper()} at byte {e.start}"
            _skip(found, path, cause, on_bad_record)
            continue
        if not text.strip():
            found.leave_out("empty", path)
        elif path.suffix.lower() == ".jsonl":
            _questions(found, path, text, on_bad_record)
        else:
            found.documents += [Document(_printable(path.name), "text", chunk) for chunk in _chunks(text, max_chars)]
    if not found.documents:
        why = "; ".join(f"{len(names)} left out: {reason}" for reason, names in found.left_out.items())
        raise Failure(
            f"acquire.corpus {[str(path) for path in paths]}: holds no document; expected {', '.join(_SUFFIXES)} files"
            + (f" ({why})" if why else "")
        )
    return found


def _decoded(content: bytes) -> str:
    """UTF-8, or what a byte order mark says; line ends of any system."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _skip(found: Corpus, path: Path, cause: str, on_bad_record: _Policy) -> None:
    if on_bad_record == "stop":
        raise Failure(f"corpus file {path}: {cause}; expected a readable UTF-8 text") from None
    found.skipped += 1
    found.leave_out(cause.partition(" at byte")[0], path)


def _files(path: Path, found: Corpus, on_bad_record: _Policy) -> list[Path]:
    """The files of a configured path that are to be read, in order."""
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise Failure(
                f"acquire.corpus {path}: unknown kind {path.suffix!r}; expected one of {', '.join(_SUFFIXES)}"
            )
        return [path]
    if not path.is_dir():
        raise Failure(f"acquire.corpus {path}: no such file or folder")
    files: list[Path] = []
    closed: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        for name in sorted(folders):
            inner = Path(folder, name)
            if _is_hidden(name):
                found.leave_out("a hidden folder", inner)
            elif inner.is_symlink():
                found.leave_out("a link to a folder; name that folder itself", inner)
        folders[:] = [name for name in folders if not _is_hidden(name)]  # of these, os.walk enters no link
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith("._"):
                found.leave_out("an AppleDouble file", file)
            elif _is_hidden(name):
                found.leave_out("a hidden file", file)
            elif file.suffix.lower() not in _SUFFIXES:
                found.leave_out(f"{file.suffix or 'a name without suffix'} is no format that is read", file)
            else:
                files.append(file)
    for error in closed:
        _skip(found, Path(error.filename), str(error.strerror), on_bad_record)
    return sorted(files)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _printable(name: Path | str) -> str:
    """A name on disk may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _questions(found: Corpus, path: Path, text: str, on_bad_record: _Policy) -> None:
    pairs: list[tuple[int, str]] = []
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
            found.skipped += 1
            found.leave_out("no record with question and answer", f"{path}:{number}")
    for block in (pairs[i : i + QA_PER_DOCUMENT] for i in range(0, len(pairs), QA_PER_DOCUMENT)):
        source = f"{_printable(path.name)}:{block[0][0]}-{block[-1][0]}"
        found.documents.append(Document(source, "qa", "\n\n".join(pair for _, pair in block)))


def _text(row: dict[str, object], name: str) -> str:
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


_BOUNDARIES = ((r"\n\s*\n", "\n\n"), (r"\n", "\n"), (r"(?<=[.!?])\s+", " "), (r"(?<=[。！？；])", ""))
"""Where a text may be cut, best first: paragraphs, lines, sentences; and what stands between them."""


def _chunks(text: str, max_chars: int) -> list[str]:
    """Cut so that no piece is longer than `max_chars` Latin letters unless one sentence is."""
    if not text.strip():
        return []
    if length(text) <= max_chars:
        return [text]
    for at, between in _BOUNDARIES:
        parts = [part for part in re.split(at, text) if part.strip()]
        if len(parts) > 1:
            return _joined([piece for part in parts for piece in _chunks(part, max_chars)], between, max_chars)
    return [text]


def _joined(pieces: list[str], between: str, max_chars: int) -> list[str]:
    """Neighbours put together again, as far as they fit."""
    found: list[str] = []
    for piece in pieces:
        if found and length(found[-1]) + len(between) + length(piece) <= max_chars:
            found[-1] = f"{found[-1]}{between}{piece}"
        else:
            found.append(piece)
    return found
