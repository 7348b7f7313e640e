"""`propose evaluate --model …`: models that are named on the command line, measured and compared.

    a/folder · owner/name · owner/name@revision · a bundled name      served as `solve.base` is: its engine, its pool
    MODEL@http://host:8000/v1                                         asked there, with the key in OPENAI_API_KEY

Invariant: a run is only read. What is measured in the place of its solver is a run directory of its own beside it,
`name-measured-<digest>`, which the same command resumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands import target
from pipeline.commands.tables import columns
from pipeline.config import Config, ModelConfig
from pipeline.records import Failure
from pipeline.store.identity import default_root

_ENDPOINT = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)")


def of(
    name: str | None, file: Path | None, sets: Sequence[str] | None, run_dir: str | None, models: Sequence[str]
) -> tuple[Config, Path]:
    """The config and the run directory of their measurement."""
    config, root = target.of(name, file, sets, run_dir)
    if config.evaluate.model is not None:
        raise Failure("--model: evaluate.model is set, too; expected one of the two")
    asked = [json.dumps(_section(model, config.solve.base)) for model in models]
    given = [
        *(sets or ()),
        f"name={config.name.removesuffix('-measured')}-measured",
        "mirror=null",
        f"evaluate.models=[{', '.join(asked)}]",
    ]
    config, _ = target.of(name, file, given, run_dir)
    return config, Path(run_dir) if run_dir is not None else root.parent / default_root(config).name


def _section(model: str, like: ModelConfig) -> dict[str, Any]:
    if found := _ENDPOINT.fullmatch(model):
        return {"endpoint": {"base_url": found["url"], "model": found["model"]}}
    if not model or "://" in model:
        raise Failure(
            f"--model {model!r}: no model; expected a folder, a name on the Hub, or MODEL@http://host:8000/v1"
        )
    served = like.model_dump(mode="json", include={"engine", "pool"})
    return {"path": model, **served}


# ---------------------------------------------------------------- what came of it


def render(result: Mapping[str, Any], shown: Callable[[Path], str]) -> str:
    """The result of `evaluate`: a row a model, and how each compares with those before it."""
    single = {name: found for name in ("before", "after", "score") if (found := result.get(name))}
    models = single | (result.get("models") or {})
    rows = [_row(name, found) for name, found in models.items()]
    left_out = ", ".join(f"{n} {why}" for why, n in (result.get("left_out") or {}).items())
    parts = [
        f"{result['problems']} problems, {result['samples']} answers each" + (left_out and f"; left out: {left_out}")
    ]
    used = [i for i in range(len(_HEADS)) if i < 2 or any(row[i] != "-" for row in rows)]
    parts.append(columns([[row[i] for i in used] for row in (_HEADS, *rows)], right=range(1, len(used))))
    if (paired := result.get("paired")) and paired["interval"]:
        parts.append(f"after against before: {_pair(paired)}")
    parts += [f"{names}: {found['verdict']} ({_pair(found)})" for names, found in (result.get("pairs") or {}).items()]
    files = zip(models, result.get("answers", ()), strict=False)  # of earlier code there are none
    if answers := [(f"answers of {name}", shown(Path(path))) for name, path in files]:
        parts.append(columns(answers))
    return "\n".join(parts)


_HEADS = ("model", "mean", "95 % interval", "Best-of-n", "Maj@n", "samples", "cut off", "no answer", "not judged")


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    figures, low_high = found.get("measures", {}), found.get("interval")
    counts = (figures.get(key) for key in ("samples", "truncated", "no_answer", "unknown"))
    of = [next((m["value"] for key, m in figures.items() if key.startswith(kind)), None) for kind in ("best@", "maj@")]
    return (
        name, f"{found['mean']:.1%}", f"{low_high[0]:.1%} to {low_high[1]:.1%}" if low_high else "-",
        *("-" if value is None else f"{value:.1%}" for value in of),
        *("-" if count is None else str(count) for count in counts),
    )  # fmt: skip


def _pair(found: Mapping[str, Any]) -> str:
    low, high = (f"{100 * end:+.1f}" for end in found["interval"] or (0.0, 0.0))
    between = f", 95 % interval {low} to {high}" if found["interval"] else ""
    changed = f"{found['better']} problems better, {found['worse']} worse, of {found['problems']}"
    return f"{100 * found['difference']:+.1f} points{between}; {changed}"
