"""From candidates to a library: which stand, which are refused, and that they need no memory while they wait."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Skill
from pipeline.skills.admission import Admission
from pipeline.skills.candidates import Candidate, Shelf, settle
from pipeline.skills.selection import select
from tests.pipeline.skills.test_sameness import ALL

BAD = "raise"


def proposed(of: Skill, score: float, script: str | None) -> Candidate:
    skill = of.model_copy(update={"score": score, "script": script})
    return Candidate(skill=skill, proposed_score=score, path="a.md", origin=None, license="mit")


class Sandbox:
    def __init__(self) -> None:
        self.tried: list[str] = []

    def admit(self, skills: list[Skill]) -> Admission:
        scripts = {skill.id: skill.script for skill in skills if skill.script is not None}
        self.tried += scripts.values()
        refused = {id: "it raises" for id, script in scripts.items() if script.startswith(BAD)}
        return Admission(tuple(skill for skill in skills if skill.id not in refused), refused)


drawn = st.lists(
    st.tuples(st.sampled_from(ALL), st.integers(0, 4), st.sampled_from([None, "good", "fine", BAD, f"{BAD} again"])),
    max_size=14,
)


@given(drawn)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_what_would_be_without_the_scripts_that_fail(
    drawn: list[tuple[Skill, int, str | None]],
) -> None:
    given_, sandbox, said = [proposed(one, n / 4, script) for one, n, script in drawn], Sandbox(), list[str]()
    kept, found, untried = select(given_, 0.5, {}, sandbox.admit, said.append)
    sound = [c for c in given_ if not (c.skill.script or "").startswith(BAD)]
    assert kept == settle(sound, 0.5)[0] and not untried
    refused = [c for c in found if c.cause == "script"]
    assert all((c.skill.script or "").startswith(BAD) and c.reason == "it raises" for c in refused)
    assert len(said) == len(refused) and len(sandbox.tried) == len(set(sandbox.tried))
    assert [c.skill for c in found] == [c.skill for c in given_]


def test_a_skill_whose_proposals_all_fail_is_given_up_in_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def counted(*arguments):
        rounds.append(1)
        return settle(*arguments)

    monkeypatch.setattr("pipeline.skills.selection.settle", counted)
    given_ = [proposed(ALL[0], 0.9, f"{BAD} {n}") for n in range(40)]
    kept, found, _ = select(given_, 0.5, {}, Sandbox().admit, lambda _: None)
    assert kept == [] and [c.cause for c in found] == ["script"] * 40 and len(rounds) == 2


def test_a_shelf_gives_what_was_put_there(tmp_path: Path) -> None:
    rows = [proposed(one, 0.5, None).model_copy(update={"origin": "来源"}) for one in ALL]
    shelf = Shelf(tmp_path)
    for row in rows[:5]:
        shelf.put(row)
    assert shelf[4] == rows[4] and shelf[-1] == rows[4] and shelf[1:3] == rows[1:3]
    for row in rows[5:]:
        shelf.put(row)
    assert list(shelf) == rows and not list(tmp_path.iterdir())
    with pytest.raises(IndexError):
        shelf[len(rows)]


def test_candidates_need_no_memory_while_they_wait(tmp_path: Path) -> None:
    """They say some kilobytes each; what is held of each is what became of it."""

    def peak(n: int) -> int:
        shelf = Shelf(tmp_path)
        for i in range(n):
            one = ALL[i % len(ALL)]
            shelf.put(proposed(one.model_copy(update={"method": f"{one.method}\n\n{'x y ' * 1000}{i}"}), 0.9, None))
        tracemalloc.start()
        settle(shelf, 0.5)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(100), peak(500)
    assert (many - few) / 400 < 1500
