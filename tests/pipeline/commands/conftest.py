"""Runs that are finished up to a stage, for tests of what is done to a run on disk."""

import shutil

import pytest

from tests.pipeline import runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished up to a stage -> a run directory, each written once."""
    found = {}

    def make(last):
        if last not in found:
            found[last] = tmp_path_factory.mktemp("made") / "run"
            runs.upto(found[last], last, mgpo_steps=2 if last != "mgpo" else 12).close()
        return found[last]

    return make


@pytest.fixture
def finished(made):
    return lambda root, last="evaluate": shutil.copytree(made(last), root)
