"""From layers found to a level named: what this machine can do, and what it would take to do better.

Invariant: the rule that makes a level is here and nowhere else. Kernel filter, no_new_privs and rlimits are the core
of every level; a file wall on top makes `strong`, the mount jail and Landlock together `strong+`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from .api import Layer, LevelName, Platform

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
