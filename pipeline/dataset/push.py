"""A folder of a data set or of a model, put on the Hugging Face Hub.

Invariant: it is there whole or not at all: one commit adds its files and takes away the shards of the former one.
Nothing is sent where a training file tells how its rows were made, and only what the manifest names. The token is
the user's own (`HF_TOKEN`, or that of `hf auth login`), and no message of ours holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline.dataset import traces
from pipeline.domains import hub
from pipeline.records import Failure, OutcomeKind
from pipeline.store import manifest
from pipeline.store.digests import MANIFEST


def token_for(name: str, what: str = "data set") -> str:
    """The token to send a data set or a model of this name with. Raises Failure where none can be sent."""
    from huggingface_hub import constants, get_token

    if not hub.is_name(name) or "@" in name:
        raise Failure(f"--push {name}: no name of a {what} on the Hub; expected owner/name")
    if constants.HF_HUB_OFFLINE:
        raise Failure(f"--push {name}: HF_HUB_OFFLINE is set; expected a network")
    if not (token := get_token()):
        raise Failure(f"--push {name}: no token; expected HF_TOKEN of somebody who may write there, or `hf auth login`")
    return token


def push(folder: Path, name: str, token: str, private: bool) -> str:
    """Returns the address of what was sent. Raises Failure."""
    if told := next(traces.find(folder, traces.ids_of(folder)), None):
        raise Failure(f"{folder}: {told}; nothing was sent, see `propose dataset check`")
    whole = manifest.verified_folder(folder)
    return _send(folder, whole, name, token, private, "dataset", f"{whole['problems']} problems")


def push_model(folder: Path, name: str, token: str, private: bool) -> str:
    """Returns the address of what was sent. Raises Failure."""
    whole = manifest.verified_folder(folder)
    return _send(folder, whole, name, token, private, "model", f"{whole['which']}, trained by {whole['stage']}")


_SHARDS = {"dataset": "data/*.parquet", "model": "*.safetensors"}
"""What a former version may have had more of."""


def _send(folder: Path, whole: dict[str, Any], name: str, token: str, private: bool, kind: str, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    files = [MANIFEST, *manifest.listed(folder / MANIFEST, whole)]
    api = HfApi(token=token)

    def send() -> str:
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        there = api.list_repo_files(name, repo_type=kind)
        former = [file for file in there if fnmatch(file, _SHARDS[kind]) and file not in files]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(file, folder / file) for file in files),
            *(CommitOperationDelete(file) for file in former),
        ]
        return str(api.create_commit(name, operations, commit_message=message, repo_type=kind).repo_url)

    return _asked(name, token, send)


def _asked(name: str, token: str, send: Callable[[], str]) -> str:
    from huggingface_hub import errors

    try:
        return send()
    except errors.HfHubHTTPError as e:
        status = e.response.status_code if e.response is not None else 0
        why = hub.line_of(e).replace(token, "…")
        if status in (401, 403, 404):
            raise Failure(
                f"--push {name}: refused ({why}); expected HF_TOKEN of somebody who may write there"
            ) from None
        kind: OutcomeKind = "infra_error" if status == 429 or status >= 500 or not status else "data_error"
        raise Failure(f"--push {name}: the Hub did not take it ({why})", kind) from None
    except Exception as e:  # whatever its client raises where the network or the disk fails
        raise Failure(f"--push {name}: not sent ({hub.line_of(e).replace(token, '…')})", "infra_error") from None
