"""Domains: what a run writes problems about, each one package behind one door.

Holds what a domain is (`base`) and the domains; `of` is the door. A domain may import `actors`, `skills`, `store` and
the vocabulary. Nobody imports a domain by name but its entry in `pipeline.config.domains`, which says where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import DomainConfig

if TYPE_CHECKING:
    from pipeline.domains.base import Domain


def of(settings: DomainConfig) -> Domain:
    """The domain that a config names."""
    domain: Domain = settings.load()(settings)
    return domain
