"""A checkpoint is resumed from only as it was written."""

import pytest

from pipeline.records import Failure
from pipeline.store.digests import files_below, write_manifest
from trainers import checkpoints


@pytest.fixture
def root(tmp_path):
    """What two ranks have written; each vouches for its own part."""
    (tmp_path / "trainer" / "engine").mkdir(parents=True)
    for rank in (0, 1):
        part = tmp_path / "trainer" / "engine" / f"part-{rank}.pt"
        part.write_bytes(bytes([rank]) * 100)
        name = checkpoints._manifest(rank)
        write_manifest(tmp_path, "step-000003", [part.relative_to(tmp_path).as_posix()], name)
    return tmp_path


def test_each_rank_takes_its_own_part_as_it_was(root):
    for rank in (0, 1):
        checkpoints._check(root, rank)
    assert "trainer/manifest-1.json" in files_below(root)


@pytest.mark.parametrize("what", ["changed", "gone", "manifest"])
def test_a_rank_refuses_what_is_not_what_it_wrote(root, what):
    part, manifest = root / "trainer" / "engine" / "part-1.pt", root / checkpoints._manifest(1)
    if what == "changed":
        part.write_bytes(b"x" * 100)
    elif what == "gone":
        part.unlink()
    else:
        manifest.write_text(manifest.read_text().replace("100", "101"))
    checkpoints._check(root, 0)
    with pytest.raises(Failure, match="is not what was written"):
        checkpoints._check(root, 1)
