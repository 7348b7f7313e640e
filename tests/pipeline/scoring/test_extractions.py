"""Two extractions of the same documents: paired by document, skills matched by what they say."""

from __future__ import annotations

import random

import pytest

from pipeline.scoring.extractions import Extraction, compare
from pipeline.skills.candidates import Candidate, settle
from tests.pipeline.skills.test_examples import KINDS


def extraction(*documents, renamed=False, shuffled=False):
    """Of documents, each the names of the skills that were read from it."""
    proposed = [
        Candidate(
            skill=KINDS[name].model_copy(update={"id": f"{name}_again" if renamed else name, "source": f"d{n}.md"}),
            proposed_score=0.9, path=f"/c/d{n}.md", origin=None, license=None,
        )
        for n, names in enumerate(documents) for name in names
    ]  # fmt: skip
    if shuffled:
        random.Random(3).shuffle(proposed)
    kept, settled = settle(proposed, 0.5)
    return Extraction(kept, settled)


def test_skills_of_documents_are_matched_whatever_their_names_and_order():
    teacher = extraction(["sums", "roots"], ["lenses"], [])
    other = extraction(["sums"], ["lenses", "roots"], [], renamed=True, shuffled=True)
    found = compare(teacher, other, documents=4)
    assert found["teacher_per_document"] == found["proposer_per_document"] == 3 / 4
    assert (found["shared"], found["recall"], found["precision"]) == (2, 2 / 3, 2 / 3)
    assert (found["teacher_skills"], found["proposer_skills"], found["shared_skills"]) == (3, 3, 3)
    low, high = found["difference_interval"]
    assert found["difference"] == 0 and low == pytest.approx(-high) and high > 0


def test_documents_that_gave_nothing_count():
    found = compare(extraction(["sums"]), extraction(["sums"], ["sums", "roots"]), documents=10)
    assert found["difference"] == pytest.approx(2 / 10) and (found["recall"], found["precision"]) == (1, 1 / 3)


def test_one_that_admitted_nothing_has_no_precision():
    found = compare(extraction(["sums"]), extraction([]), documents=1)
    assert (found["recall"], found["precision"], found["difference_interval"]) == (0, None, None)
