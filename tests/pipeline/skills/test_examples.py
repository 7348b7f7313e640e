"""Examples of extraction: what became of a document is what is taught of it, and skills weigh as they were proposed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.skills import asked
from pipeline.skills.candidates import Candidate, settle, weights
from pipeline.skills.examples import NOTHING, Example, chosen, examples
from pipeline.skills.extraction import Document, SkillLibrary, render
from pipeline.skills.replies import read
from tests.pipeline.domains.mini.test_skills import skill

KINDS = {name: skill(id=name, intent=f"find {name}", method=f"{name}.\n\nDo {name} {name}ly.", script=None)
         for name in ("sums", "roots", "lenses", "isotopes")}  # fmt: skip


def row(number, *skills, **more):
    reply = "\n".join(map(render, skills)) or "NONE"
    return {"document": number, "source": f"d{number}.md", "reply": reply, "text": f"text {number}",
            "asked_as": "text", **more}  # fmt: skip


def candidates_of(*rows, min_score=0.5):
    proposed = [Candidate(skill=s, proposed_score=s.score, path=r["source"], origin=None, license=None)
                for r in rows if "reply" in r for s in asked.read(r).skills]  # fmt: skip
    return settle(proposed, min_score)


def test_what_was_kept_is_taught_and_what_scored_low_is_silence():
    low = KINDS["roots"].model_copy(update={"score": 0.2})
    rows = [row(0, KINDS["sums"], low), row(1, low), row(2), row(3, KINDS["sums"]), {"document": 4, "failure": "x"},
            row(5, KINDS["lenses"], reply="no form at all"), {**row(6), "text": None}]  # fmt: skip
    rows[6].pop("text")
    kept, settled = candidates_of(*rows)
    passed: Counter = Counter()
    found = list(examples(rows, settled, passed))
    assert [(e.document.source, e.skills) for e in found] == [
        ("d0.md", ("sums",)), ("d1.md", ()), ("d2.md", ()), ("d3.md", ("sums",))
    ]  # fmt: skip
    assert passed == {"no reply": 1, "not known to hold none": 1, "no text on disk": 1}
    library = SkillLibrary(kept)
    assert list(read(found[0].reply(library), "a.md").skills) == [library["sums"].model_copy(update={"source": "a.md"})]
    assert found[1].reply(library) == "NONE"


def test_where_a_script_was_refused_nothing_says_that_the_document_holds_none():
    rows = [row(0, KINDS["sums"]), row(1, KINDS["roots"])]
    _, settled = candidates_of(*rows)
    settled = [settled[0].rejected("script", "it raises"), settled[1]]
    passed: Counter = Counter()
    assert [e.skills for e in examples(rows, settled, passed)] == [("roots",)]
    assert passed == {"not known to hold none": 1}


def test_a_repair_is_read_with_its_reply_and_a_skill_of_two_documents_has_the_name_of_the_library():
    other = KINDS["sums"].model_copy(update={"id": "summing", "score": 0.95})
    rows = [row(0, reply="---\nname: x\n---\n", repair=render(KINDS["sums"])), row(1, other)]
    _, settled = candidates_of(*rows)
    assert [e.skills for e in examples(rows, settled, Counter())] == [("summing",), ("summing",)]


@given(st.lists(st.sets(st.sampled_from(sorted(KINDS))), min_size=1, max_size=8).filter(any))
@settings(max_examples=15, deadline=None)
def test_skills_come_as_often_as_p_skill_says(documents):
    rows = [row(n, *(KINDS[name] for name in sorted(names))) for n, names in enumerate(documents)]
    _, settled = candidates_of(*rows)
    taught = Counter(id for e in examples(rows, settled, Counter()) for id in e.skills)
    assert {id: n / taught.total() for id, n in sorted(taught.items())} == pytest.approx(weights(settled))


def example(number, skills):
    return Example(Document(f"d{number}.md", "text", "t"), ("sums",) * skills)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 30), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_chosen_are_as_many_as_asked_for_and_few_of_them_silent(have, n, seed):
    given_ = [example(i, some) for i, some in enumerate(have)]
    found = chosen(iter(given_), n, seed)
    silent = sum(not e.skills for e in found)
    assert len({e.document.source for e in found}) == len(found) <= n
    assert silent <= NOTHING * n and silent <= NOTHING * len(found) + 1e-9
    speaking = sum(have)
    assert len(found) - silent == min(speaking, n - silent)  # nothing is left out that there is room for
    assert found == chosen(reversed(given_), n, seed)  # whatever the order of the documents


def test_another_seed_chooses_others():
    given_ = [example(i, 1) for i in range(40)]
    assert chosen(given_, 10, 1) != chosen(given_, 10, 2)
