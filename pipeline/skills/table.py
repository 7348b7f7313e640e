"""Skills as a table, and their versions.

    <library>/skills.parquet    the skills of the folders beside it, a row each; can be loaded in their place

Invariant: a version is a digest of what an agent may be shown of a skill, so it changes with that and nothing else.
That of a library is one of its skills' names and versions, in whatever order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Failure, Skill
from pipeline.store.manifest import Damage
from pipeline.store.tables import parse, records

TABLE = "skills.parquet"
_ABOUT = {"score", "source"}
"""What is said of a skill, and not by it."""


def version(skill: Skill) -> str:
    return _digest(skill.model_dump(exclude=_ABOUT))


def version_of(skills: Iterable[Skill]) -> str:
    return _digest({skill.id: version(skill) for skill in skills})


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def written(skills: Iterable[Skill]) -> bytes:
    """The content of a table of skills."""
    skills = list(skills)
    table = pa.Table.from_batches([Skill.to_arrow(skills)])
    table = table.append_column(pa.field("version", pa.string(), False), pa.array(map(version, skills), pa.string()))
    into = BytesIO()
    pq.write_table(table, into, compression="zstd")
    return into.getvalue()


def read(path: Path) -> list[Skill]:
    """The skills of a table. Raises Failure where it is none."""
    try:
        return records(path, parse(path, list(Skill.model_fields)), Skill)
    except Damage as e:
        raise Failure(
            f"skill library: {path}: {e.what}; expected the columns {', '.join(Skill.model_fields)}"
        ) from None
