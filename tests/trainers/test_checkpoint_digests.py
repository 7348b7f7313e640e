"""A checkpoint is resumed from only as it was written."""

import pytest
import torch

from pipeline.records import Failure
from pipeline.store.digests import files_below, write_manifest
from trainers import checkpoints
from trainers.ranks import Ranks


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


def test_what_a_rank_wrote_that_is_no_more_is_looked_at_by_another(root):
    (root / "trainer" / "engine" / "part-1.pt").write_bytes(b"x" * 100)
    checkpoints._check_others(root, Ranks(0, 2, torch.device("cpu")), 2)  # the second looks at its own
    with pytest.raises(Failure, match=r"part-1.pt is not what was written"):
        checkpoints._check_others(root, Ranks(0, 1, torch.device("cpu")), 2)
