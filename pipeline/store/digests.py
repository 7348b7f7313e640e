"""Digests: what a file was when it was written, in a form that says of itself whether it was changed.

    sealed text    JSON whose last field, `sha256`, is of all the others; any other byte and it is no sealed text
    manifest       a sealed text in the folder whose files it lists: {"of", …facts, "files": {name: [bytes, SHA-256]}}

Invariant: whatever changes in a sealed text, white space included, `unseal` raises ValueError.

Imports neither Ray, torch nor vLLM: trainers write manifests too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SEAL = "sha256"

Entry = tuple[int, str]
"""(bytes, SHA-256) of a file."""


def seal(body: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_text(body).encode()).hexdigest()
    return _text({**body, SEAL: digest})


def unseal(content: bytes) -> dict[str, Any]:
    """Inverse of `seal`. Raises ValueError, with what is wrong."""
    body = json.loads(content.decode())
    if not isinstance(body, dict) or SEAL not in body:
        raise ValueError("has no seal")
    found = {name: value for name, value in body.items() if name != SEAL}
    if seal(found).encode() != content:
        raise ValueError("was changed after it was written")
    return found


def digest(path: Path) -> Entry:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[str]:
    """Names of the files below a folder, with slashes; those that begin with a dot are left out."""
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(top, name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def write_manifest(folder: Path, of: str, names: Iterable[str], name: str = MANIFEST, **facts: Any) -> dict[str, Entry]:
    """Write the manifest of some files of a folder; returns their entries, the manifest's own included."""
    entries = {file: digest(folder / file) for file in names}
    content = seal({"of": of, **facts, "files": entries}).encode()
    (folder / name).write_bytes(content)
    return {**entries, name: (len(content), hashlib.sha256(content).hexdigest())}


def entries_of(manifest: Mapping[str, Any]) -> dict[str, Entry]:
    return {name: (size, checksum) for name, (size, checksum) in manifest["files"].items()}


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"
