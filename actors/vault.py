"""Secrets of a run, from its driver to its replicas: by calls between actors, which neither Serve nor a log shows.
Ray's head has them in memory, to start the vault again (and in Redis, where that keeps the head's state).

Whatever is in a deployment's options, or in what its replicas are made with, is kept by Serve's controller and shown in
its status; runtime environments are in Ray's logs. A replica asks the vault before anything of its own is made.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Mapping
from typing import Any

from actors.calls import within

_ANSWER_S = 60.0
"""How long the vault may take to answer, where its process is being started again."""


class Vault:
    """Ray actor beside the driver."""

    def __init__(self, secrets: Mapping[str, str]):
        """`secrets`: environment variable -> value."""
        self._secrets = dict(secrets)

    async def secrets(self) -> dict[str, str]:
        return self._secrets


def entrusted(cls: type, vault: Any | None, unset: Collection[str]) -> type:
    """`cls` whose replicas have the secrets of `vault` (None: there are none) in their environment, and of `unset` no
    variable, when they are made."""
    if vault is None and not unset:
        return cls

    class Entrusted(cls):
        async def __init__(self, *args: Any, **kwargs: Any):  # type: ignore[misc]  # Serve awaits a constructor
            for name in unset:
                os.environ.pop(name, None)
            if vault is not None:
                os.environ.update(await within(vault.secrets.remote(), "the run's vault", _ANSWER_S))
            made = super().__init__(*args, **kwargs)
            if inspect.isawaitable(made):
                await made

    return Entrusted
