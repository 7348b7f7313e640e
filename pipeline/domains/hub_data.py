"""Data sets by their name on the Hugging Face Hub: `owner/name`, `owner/name@revision`, each with `:files` behind it,
a pattern for the paths of the files that are meant (`openai/gsm8k:main/test*`).

Invariant: what is read is files of one revision, all that the pattern or the split names, in the order of their names;
no program that lies beside them is run. The Hub says which files there are, and what the cache has of them is not
downloaded again; offline (`HF_HUB_OFFLINE=1`) the cache alone is asked, and shards that it lacks are an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pipeline.domains import hub
from pipeline.records import Failure

FORMATS = (".parquet", ".jsonl", ".json", ".csv", ".arrow")
"""That are read; where one data set has several, the first of these."""
_NAME = re.compile(r"(?P<name>[^:]+)(?::(?P<files>.+))?")
_SHARD = re.compile(r"(?P<stem>.*-)\d+-of-(?P<count>\d+)(?P<rest>\..*)?")
_SPLITS = {"test": ("test", "eval"), "train": ("train",), "val": ("val", "valid", "validation", "dev")}
_SHOWN = 8


@dataclass(frozen=True)
class Data:
    name: str
    """As the Hub and `hub` know it."""
    files: str | None
    """A pattern; None: those of the split."""
    split: str = "test"

    @property
    def about(self) -> str:
        return f"{self.name}:{self.files}" if self.files else self.name


def named(name: str, files: str | None, split: str) -> Data | None:
    """The data set that a name can mean; None where it is a path. `files` and `split` hold where the name says none."""
    found = _NAME.fullmatch(name)
    if found is None or not hub.is_name(found["name"]) or found["name"].endswith((*FORMATS, ".yaml")):
        return None
    return Data(found["name"], found["files"] or files, split)


def download(data: Data) -> list[Path]:
    """The files, with what the cache lacks of them downloaded. Raises Failure."""
    from huggingface_hub import HfApi, constants, snapshot_download

    repo = hub.repo(data.name)
    if constants.HF_HUB_OFFLINE:
        return _cached(data)

    def fetch() -> list[Path]:
        asked = HfApi().list_repo_files(**repo, repo_type="dataset")
        chosen = _chosen(data, asked)
        folder = Path(
            snapshot_download(**repo, repo_type="dataset", allow_patterns=[_literal(name) for name in chosen])
        )
        return [folder / name for name in chosen]

    return list(hub.asked(data.name, fetch, "data set"))


def count(data: Data) -> int:
    """How many files `download` gives. Raises Failure for those that it could not get."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return len(_cached(data))
    repo = hub.repo(data.name)
    return len(
        hub.asked(data.name, lambda: _chosen(data, HfApi().list_repo_files(**repo, repo_type="dataset")), "data set")
    )


def _cached(data: Data) -> list[Path]:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, cache = hub.repo(data.name), f"the Hub's cache ({constants.HF_HUB_CACHE})"
    try:
        names = _noted(data.name)
        if names is None:  # somebody else has put files there, and not noted which there are
            folder = Path(snapshot_download(**repo, repo_type="dataset", local_files_only=True))
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    except LocalEntryNotFoundError:
        told = f"no such file, and not in {cache}, and HF_HUB_OFFLINE is set"
        raise Failure(f"{data.name}: {told}; expected a file, or a data set that lies there") from None
    chosen = _chosen(data, names)
    try:
        wanted = [_literal(name) for name in chosen]
        found = snapshot_download(**repo, repo_type="dataset", local_files_only=True, allow_patterns=wanted)
    except LocalEntryNotFoundError:
        raise Failure(f"{data.about}: not whole in {cache}, and HF_HUB_OFFLINE is set") from None
    for name in chosen:
        shard = _SHARD.fullmatch(name)
        if shard and sum(other.startswith(shard["stem"]) for other in chosen) < int(shard["count"]):
            raise Failure(
                f"{data.about}: of {int(shard['count'])} files like {name} some are not in {cache}, and "
                "HF_HUB_OFFLINE is set"
            )
    return [Path(found) / name for name in chosen]


def _noted(name: str) -> list[str] | None:
    """All files of the revision, where the cache has a note of them."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in get_cached_repo_tree(**hub.repo(name), repo_type="dataset")]
    except CachedRepoTreeNotFoundError:
        return None


def _chosen(data: Data, names: Sequence[str]) -> list[str]:
    """Raises Failure where none is meant."""
    there = sorted(name for name in names if name.endswith(FORMATS) and not name.startswith("."))
    if data.files is not None:
        found = [name for name in there if fnmatch(name, data.files)]
    else:
        words = _SPLITS.get(data.split, (data.split,))
        found = [name for name in there if not {*re.split(r"[^a-z]+", name.lower())}.isdisjoint(words)]
        found = found or [name for name in there if _of_no_split(name)]
        found = next(
            ([n for n in found if n.endswith(form)] for form in FORMATS if any(n.endswith(form) for n in found)), []
        )
    if not found:
        shown = ", ".join(there[:_SHOWN]) + (", …" if len(there) > _SHOWN else "")
        asked = f"no file {data.files}" if data.files else f"no file of the split {data.split}"
        raise Failure(f"{data.name}: {asked}; expected {data.name}:PATTERN, of {shown or 'a data set that has files'}")
    return found


def _of_no_split(name: str) -> bool:
    return {*re.split(r"[^a-z]+", name.lower())}.isdisjoint(word for words in _SPLITS.values() for word in words)


def _literal(name: str) -> str:
    """A pattern that this name alone fits."""
    return re.sub(r"([*?[])", r"[\1]", name)
