"""From layers found to a level named: what this machine can do, and what it would take to do better.

Invariant: the rule that makes a level is here and nowhere else. Kernel filter, no_new_privs and rlimits are the core
of every level; a file wall on top makes `strong`, the mount jail and Landlock together `strong+`.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace

from .api import Layer, LevelName, Platform, SandboxUnavailable
from .languages import LANGUAGES

_CORE = ("seccomp", "no new privileges", "rlimits")


def describe(layers: Sequence[Layer]) -> Platform:
    active = {layer.name for layer in layers if layer.active}
    core, jail, landlock = all(name in active for name in _CORE), "mount jail" in active, "landlock" in active
    level: LevelName = "unsafe"
    if core and (jail or landlock):
        level = "strong+" if jail and landlock else "strong"
    missing = []
    if "seccomp" not in active:
        missing.append(
            "strong needs seccomp filters: a kernel with CONFIG_SECCOMP_FILTER, allowed by the container runtime"
        )
    if not jail and not landlock:
        missing.append(
            "strong needs a file wall: Landlock (Linux 5.13 or newer, `landlock` among the boot parameter lsm=) "
            "or user namespaces (sysctl user.max_user_namespaces > 0, not denied by the container's seccomp profile)"
        )
    if level == "strong":
        missing.append(
            "strong+ needs Landlock beside the mount jail (Linux 5.13 or newer)"
            if jail
            else "strong+ needs the mount jail beside Landlock: user namespaces allowed (in Docker: a seccomp profile "
            "that permits unshare and mount; in Kubernetes: hostUsers: false, or a RuntimeClass such as gVisor)"
        )
    return Platform(
        level, tuple(layers), platform.python_version(), f"{os.uname().sysname} {os.uname().release}", tuple(missing)
    )


def probe() -> Platform:
    """Try every layer and language on this machine, by starting a fork server and attacking a run of it. Raises
    nothing: a machine where none can start is reported as unsafe, with the reason."""
    from .slot import Slot

    try:
        with Slot("unsafe", packages=()) as slot:
            return replace(slot.platform, languages=tuple(slot.offers(name) for name in LANGUAGES))
    except SandboxUnavailable as e:
        kernel = f"{platform.system()} {platform.release()}"
        return Platform("unsafe", (), ".".join(map(str, sys.version_info[:3])), kernel, (str(e),))
