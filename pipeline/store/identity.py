"""Which run a config names, and whether two configs compute the same.

Invariant: fields that only say where work runs, or how long it may take, do not change a run's identity: a run may be
resumed with others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store.manifest import cause

_PLACEMENT = {
    *("ray", "pool", "resources", "labels", "watchdog_s", "timeout_s", "start_timeout_s", "step_timeout_s"),
    *("attempts", "max_failures", "keep_checkpoints", "max_episodes", "target_hours", "target_usd"),
    *("min_workers", "resize_s"),
    *("on_stall", "max_stage_restarts", "mirror", "trackers"),
    *("replies", "concurrency", "requests_per_minute", "tokens_per_minute", "max_wait_s"),
    *("license", "budget_usd", "budget_tokens", "usd_per_million_in", "usd_per_million_out"),
}
"""Fields that say where work runs, how long it may take and under which licence, not what it computes: a run may be
resumed with others."""


_SEAL = "# sha256 "
"""Begins the last line of config.yaml."""


def identity_of(config: Config) -> str:
    """A digest of what the config computes."""
    text = json.dumps(_essence(config.model_dump(mode="json")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def default_root(config: Config) -> Path:
    """runs/<name>-<digest>: the same config comes back to the same directory, another one goes elsewhere."""
    return Path("runs") / f"{config.name}-{identity_of(config)[:8]}"


def config_text(config: Config) -> str:
    """The content of config.yaml: a comment at its end is a digest of what is above."""
    text = loading.dump(config)
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def config_damage(path: Path) -> str | None:
    """What is wrong with a config.yaml, in words; None if it is what the run wrote."""
    try:
        content = path.read_bytes()
    except OSError as e:
        return cause(e)
    text, _, digest = content.rpartition(_SEAL.encode())
    if f"{hashlib.sha256(text).hexdigest()}\n".encode() != digest:
        return "is not the config that the run wrote"
    return None


def has_digest(path: Path) -> bool:
    """Whether a config.yaml or a sealed file holds its digest, right or wrong."""
    try:
        return b"sha256" in path.read_bytes()
    except OSError:
        return False


def config_in(where: str, content: bytes) -> dict[str, Any]:
    try:
        before = loading.parse(content.decode())
    except (loading.NotYAML, UnicodeDecodeError):
        before = None
    if not isinstance(before, dict):
        raise Failure(f"{where}: not the config that the run wrote; restore it, or take another --run-dir")
    return before


def refuse_another(before: dict[str, Any], config: Config, where: str, option: str) -> None:
    """Raises Failure where the config computes something else than the one before."""
    if changed := differences(_essence(before), _essence(config.model_dump(mode="json"))):
        field, was, now = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise Failure(
            f"{where}: made with another config: {field} was {was!r}, is now {now!r}{more}; "
            f"use that config, or another {option}"
        )


def _essence(tree: Any) -> Any:
    """The config without what only places work."""
    if isinstance(tree, dict):
        return {k: _essence(v) for k, v in tree.items() if k not in _PLACEMENT}
    if isinstance(tree, list):
        return [_essence(v) for v in tree]
    return tree


def changed(before: Config, after: Config) -> list[str]:
    """The dotted fields in which two configs compute something else."""
    a, b = (_essence(config.model_dump(mode="json")) for config in (before, after))
    return [field for field, _, _ in differences(a, b)]


def differences(a: Any, b: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted field, value in a, value in b) of all fields that differ; None where one has no such field."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(k for k in b if k not in a)]
        return [d for k in keys for d in differences(a.get(k), b.get(k), f"{where}.{k}" if where else k)]
    return [] if a == b else [(where, a, b)]
