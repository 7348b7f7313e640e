"""Models by their name on the Hugging Face Hub: `owner/name`, or `owner/name@revision`.

Invariant: what lies whole in the cache is used as it lies there, and nobody is asked for it, so that a run goes on with
the weights that it began with, unless others move that cache on (a revision holds it). Only what does not lie there is
downloaded. Offline (`HF_HUB_OFFLINE=1`) nobody is asked at all.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.records import Failure

_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")
_OTHER_FORMATS = ["original/*", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.pth"]
"""Of the same weights: nothing here reads them."""
_EXPECTED = "expected a folder, or a name on the Hub (owner/name, owner/name@revision)"


def is_name(name: str) -> bool:
    """Whether this could be a name on the Hub."""
    return _NAME.fullmatch(name) is not None


def cached(name: str) -> Path | None:
    """The folder of a model that lies whole in the cache; else None. Offline, that of what there is of it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(**repo(name), ignore_patterns=_OTHER_FORMATS, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    # Others put parts of a model there, a tokenizer for instance, without noting what belongs to it.
    whole = (found := weights(folder)) and all(file.exists() for file in found)
    return folder if whole or constants.HF_HUB_OFFLINE else None


def weights(folder: Path) -> list[Path]:
    """The files of a model's weights: those that its index names, or else those that lie there. Raises Failure."""
    index = folder / "model.safetensors.index.json"
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Failure(f"{index}: not the index of a model's weights") from None
    there = (*folder.glob("*.safetensors"), *folder.glob("*.bin"))
    return [folder / name for name in sorted(set(named))] or sorted(there)


def download(name: str) -> Path:
    """The folder of a model, with what the cache lacks of it downloaded. Raises Failure."""
    from huggingface_hub import snapshot_download

    return Path(asked(name, lambda: snapshot_download(**repo(name), ignore_patterns=_OTHER_FORMATS)))


def size(name: str) -> int:
    """Bytes of what `download` would get. Raises Failure for a model that it could not get."""
    from huggingface_hub import snapshot_download

    files = asked(name, lambda: snapshot_download(**repo(name), ignore_patterns=_OTHER_FORMATS, dry_run=True))
    return sum(file.file_size for file in files if file.will_download)


def repo(name: str) -> dict[str, Any]:
    found = _NAME.fullmatch(name)
    assert found is not None
    return {"repo_id": found["repo"], "revision": found["revision"]}


def asked(name: str, ask: Any, what: str = "model") -> Any:
    """What the Hub says. Raises Failure in one line: what is not there, or not for us, or a Hub that is not."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        where = f"not in the Hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
        raise Failure(f"{name}: no such folder, and {where}; {_EXPECTED}")
    try:
        return ask()
    except errors.GatedRepoError:
        raise Failure(f"{name}: its owner lets in who asked; expected HF_TOKEN of somebody who may read it") from None
    except errors.RepositoryNotFoundError:
        why = f"nothing of that name here, and the Hub knows no such {what} that this HF_TOKEN may read"
        raise Failure(f"{name}: {why}; {_EXPECTED}") from None
    except (errors.RevisionNotFoundError, errors.HFValidationError) as e:
        raise Failure(f"{name}: {line_of(e)}; {_EXPECTED}") from None
    except Failure:
        raise
    except Exception as e:  # whatever its client raises where the network, the Hub or the disk fails
        raise Failure(f"{name}: the Hub gave no {what} ({line_of(e)})", "infra_error") from None


def line_of(e: BaseException) -> str:
    return f"{type(e).__name__}: {next(iter(str(e).strip().splitlines()), '')}"
