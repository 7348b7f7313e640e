"""What this machine can do, found by trying: the layers and the languages of a slot that is started for it."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace

from .api import Platform, SandboxUnavailable
from .languages import LANGUAGES
from .slot import Slot


def probe() -> Platform:
    """Try every layer and language on this machine, by starting a fork server and attacking a run of it. Raises
    nothing: a machine where none can start is reported as unsafe, with the reason."""
    try:
        with Slot("unsafe", packages=()) as slot:
            return replace(slot.platform, languages=tuple(slot.offers(name) for name in LANGUAGES))
    except SandboxUnavailable as e:
        kernel = f"{platform.system()} {platform.release()}"
        return Platform("unsafe", (), ".".join(map(str, sys.version_info[:3])), kernel, (str(e),))
