"""For tests of what is kept: a machine that is in a hurry, disks that can be filled, and a run that is whole."""

import shutil
import subprocess

import pytest

from pipeline.store import mirror, remote
from tests.pipeline import made


@pytest.fixture
def impatient(monkeypatch):
    """Beats and pauses as short as they can be."""
    monkeypatch.setattr(remote, "_PAUSE_S", 0.001)
    monkeypatch.setattr(mirror, "_AGAIN_S", 0.001)


@pytest.fixture
def disk(tmp_path):
    """Size, as mount takes it -> the folder of a file system of its own."""
    folder = tmp_path / "disk"

    def of(size):
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("this user may not mount a tmpfs")
        return folder

    yield of
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    root = tmp_path_factory.mktemp("whole") / "run"
    made.make(root).close()
    return root


@pytest.fixture
def root(whole, tmp_path):
    """A copy of it, to damage."""
    return shutil.copytree(whole, tmp_path / "run")
