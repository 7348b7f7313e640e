"""The mini world: real parts, small everything. LANGUAGE.md is its language, README.md its figures."""

from __future__ import annotations

from pathlib import Path

from pipeline.records import Failure

_HERE = Path(__file__).parent
_BUNDLED = {
    "mini:proposer": _HERE / "models" / "proposer",
    "mini:solver": _HERE / "models" / "solver",
    "mini:corpus": _HERE / "corpus",
    "mini:heldout": _HERE / "heldout.jsonl",
}


def resolve(name: str) -> Path:
    """`mini:...` -> where the bundled thing lies; any other name is a path. Raises Failure for an unknown `mini:` name
    or a path that is not there."""
    if name.startswith("mini:") and name not in _BUNDLED:
        raise Failure(f"{name}: nothing of that name is bundled; there are {', '.join(_BUNDLED)}")
    path = _BUNDLED.get(name, Path(name))
    try:
        found = path.exists()
    except OSError as e:
        raise Failure(f"{name}: {e.strerror}; expected a readable file or folder") from None
    if not found:
        raise Failure(f"{name}: no such file or folder")
    return path
