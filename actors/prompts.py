"""Prompts as files: one Markdown file a role, in which `{{name}}` is a place to fill.

Invariant: a folder of a user's own is laid over the bundled one, file by file. It can only say in other words what a
bundled file says: a file that is none of them, or one with other places to fill, is refused by name. What is filled in
is text: places in it stay as they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.records import Failure

SUFFIX = ".md"
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


def places(text: str) -> frozenset[str]:
    """The names that a prompt wants filled in."""
    return frozenset(_PLACE.findall(text))


def fill(template: str, /, **values: str) -> str:
    """The prompt with every place filled. Raises KeyError for one without a value, which no file that was read has."""
    return _PLACE.sub(lambda place: values[place[1]], template)


def read(bundled: Path, over: Path | None = None) -> dict[str, str]:
    """Prompt by role, of the folder `bundled` and, where it has a file of that name, of `over`. Raises Failure."""
    prompts = {path.stem: _text(path) for path in sorted(bundled.glob(f"*{SUFFIX}"))}
    if over is None:
        return prompts
    known = ", ".join(f"{role}{SUFFIX}" for role in prompts)
    try:
        files = sorted(path for path in over.iterdir() if not path.name.startswith("."))
    except OSError as e:
        raise Failure(f"prompts {over}: {e.strerror}; expected a folder with any of {known}") from None
    for path in files:
        if path.suffix != SUFFIX or path.stem not in prompts:
            raise Failure(f"prompts {path}: no prompt is called {path.name!r}; expected any of {known}")
        text, wanted = _text(path), places(prompts[path.stem])
        if differing := sorted(places(text) ^ wanted):
            what = "lacks" if differing[0] in wanted else "does not know"
            expected = ", ".join(f"{{{{{name}}}}}" for name in sorted(wanted)) or "no place to fill"
            raise Failure(f"prompts {path}: {what} {{{{{differing[0]}}}}}; expected {expected}")
        prompts[path.stem] = text
    return prompts


def digests(prompts: Mapping[str, str]) -> dict[str, str]:
    """Of each prompt, a digest of its text."""
    return {role: hashlib.sha256(text.encode()).hexdigest()[:16] for role, text in sorted(prompts.items())}


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as e:
        raise Failure(f"prompts {path}: {e.strerror}; expected a readable text") from None
    except UnicodeDecodeError as e:
        raise Failure(f"prompts {path}: not UTF-8 at byte {e.start}; expected a text in UTF-8") from None
    if not text:
        raise Failure(f"prompts {path}: empty; expected what the model is told, or no such file")
    return text
