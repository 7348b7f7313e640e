"""`propose evaluate --model …`: models that are named on the command line, measured and compared.

    a/folder · owner/name · owner/name@revision · a bundled name      served as `solve.base` is: its engine, its pool
    MODEL@http://host:8000/v1                                         asked there, with the key in OPENAI_API_KEY

Invariant: a run is only read. What is measured in the place of its solver is a run directory of its own beside it,
`name-measured-<digest>`, which the same command resumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands import target
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
