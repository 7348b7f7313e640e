"""The domains: which corpus, language, judges and defaults a run has.

A domain is one package under `pipeline/domains/` and one entry in `DOMAINS`. Its defaults for every size, rate and
limit are data: `defaults.yaml` in its package, laid under what the user wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from pipeline.config.section import Implemented, Registry
from pipeline.config.types import Fraction

Category = Annotated[str, StringConstraints(pattern=r"^[^\W_][\w&+/.-]*$", to_lower=True)]
"""One word, as the reader of skills takes it."""

_PACKAGES = Path(__file__).parents[1] / "domains"


class DomainConfig(Implemented):
    defaults: ClassVar[Path]
    """The YAML file of the domain's defaults."""
    free_text: ClassVar[bool] = False
    """Its problems are in no language that a program reads: models judge them."""


class MiniDomainConfig(DomainConfig):
    """The bundled bench: problems in a controlled language that a program can decide, models of one and two million
    parameters."""

    implementation: ClassVar[str] = "pipeline.domains.mini:MiniDomain"
    defaults: ClassVar[Path] = _PACKAGES / "mini" / "defaults.yaml"
    kind: Literal["mini"] = "mini"


class TextDomainConfig(DomainConfig):
    """Free text and real models: your documents, checkpoints and endpoints."""

    implementation: ClassVar[str] = "pipeline.domains.text:TextDomain"
    defaults: ClassVar[Path] = _PACKAGES / "text" / "defaults.yaml"
    free_text: ClassVar[bool] = True
    kind: Literal["text"] = "text"
    prompts: str | None = None
    """A folder with prompts of your own, each named like the bundled one that it replaces
    (pipeline/domains/text/prompts/); a run records which it had."""
    categories: tuple[Category, ...] = ("maths", "code", "science")
    """Of skills and problems, as the teacher is told them."""
    heldout: Fraction = 0
    """Share of the combinations of skills that are never offered, so that problems of them can measure what was
    learned; which ones, their names decide."""


DOMAINS: Registry[DomainConfig] = Registry("kind", [MiniDomainConfig, TextDomainConfig])


def domain_tree(domain: Any) -> Any:
    """`domain: text` is short for `domain: {kind: text}`."""
    return {"kind": domain} if isinstance(domain, str) else domain
