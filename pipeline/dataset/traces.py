"""That no training file tells how its rows were made.

What a proposer leaves behind has a form: columns that are not a problem's, marks of a chat or of a turn, ids of skills
and episodes. Each is looked for in every value of every training file, and in the metadata that Parquet carries.

Invariant: a file without findings holds the columns of its layout alone, and none of these marks or ids anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.folder import COLUMNS
from pipeline.dataset.layouts import LAYOUTS
from pipeline.records import Failure

_MARK = re.compile(
    r"</?(?:tool_call|tool_response|tools|think|thinking)>|<function=|\[TOOL_CALLS\]|<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>"
    r"|^[ \t]*(?:##[ \t]*|Stage:[ \t]*)(?:draft|check|refine|finalize)[ \t]*$"
    r'|"name"\s*:\s*"(?:exec|edit|skill|submit)"\s*,\s*"arguments"',
    re.IGNORECASE | re.MULTILINE,
)
"""Marks of a chat template, of reasoning, of a turn's header, and of a call of a tool of ours."""
_OWN_METADATA = (b"ARROW:schema",)


@dataclass(frozen=True)
class Trace:
    file: str
    row: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.what}"


def find(folder: Path, ids: Collection[str] = ()) -> Iterator[Trace]:
    """What of its making the training files of a folder tell. `ids` are those of skills and episodes: `ids_of`."""
    files = sorted((*folder.rglob("*.parquet"), *folder.rglob("*.jsonl")))
    known = re.compile("|".join(rf"(?<![\w-]){re.escape(i)}(?![\w-])" for i in sorted(ids))) if ids else None
    for path in files:
        if not path.name.startswith("provenance.") and not path.name.startswith("."):
            yield from _of_file(path, path.relative_to(folder).as_posix(), known)


def ids_of(folder: Path) -> set[str]:
    """Ids that the provenance beside names and that no problem says by chance: they have a _ or a digit."""
    path = folder / "provenance.jsonl"
    if not path.is_file():
        return set()
    found: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            try:
                origin = json.loads(line)
            except ValueError:
                raise Failure(f"{path}:{number}: not JSON; expected a row of provenance") from None
            found |= {origin.get("episode_id", ""), *origin.get("skills", ()), *origin.get("active", ())}
    return {name for name in found if re.search(r"[_\d]", name) and len(name) > 3}


def _of_file(path: Path, name: str, known: re.Pattern[str] | None) -> Iterator[Trace]:
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path) as file:
                metadata = file.metadata.metadata or {}
                table = file.read()
        except (OSError, pa.ArrowException) as e:
            raise Failure(f"{path}: not readable as Parquet ({str(e)[:120]})") from None
        for key in sorted({*metadata, *(table.schema.metadata or {})} - set(_OWN_METADATA)):
            yield Trace(name, None, f"carries metadata {key.decode(errors='replace')!r}")
        columns, rows = table.schema.names, table.to_pylist()
    else:
        rows = list(_of_lines(path))
        columns = sorted({column for row in rows for column in row})
    wanted = _wanted(columns)
    for column in columns:
        if column not in wanted:
            yield Trace(name, None, f"column {column!r}; expected {', '.join(wanted)}")
    for number, row in enumerate(rows, start=1):
        for text in _texts(row):
            if mark := _MARK.search(text):
                yield Trace(name, number, f"holds {mark[0].strip()[:40]!r}")
            elif known is not None and (mark := known.search(text)):
                yield Trace(name, number, f"names {mark[0]!r}, of its provenance")


def _of_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"{path}: {e}; expected a readable JSONL file") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            raise Failure(f"{path}:{number}: not JSON; expected an object") from None
        if isinstance(row, dict):
            yield row
        elif line.strip():
            raise Failure(f"{path}:{number}: {type(row).__name__}; expected an object")


def _wanted(columns: Collection[str]) -> tuple[str, ...]:
    """The columns of the layout that these come nearest to."""
    layouts = [COLUMNS, *(tuple(schema.names) for _, schema in LAYOUTS.values())]
    return min(layouts, key=lambda wanted: (len(set(columns) - set(wanted)), len(set(wanted) - set(columns))))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
