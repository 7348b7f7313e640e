"""Prompts in files: what is laid over what, what is refused, and what filling in leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import prompts
from pipeline.records import Failure


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    return folder(tmp_path / "bundled", judge="Judge {{statement}} by {{rule}}.\n", solver=r"Box it: \boxed{}.")


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for role, text in files.items():
        (path / f"{role}.md").write_text(text)
    return path


def test_a_folder_is_laid_over_the_bundled_one_file_by_file(bundled: Path, tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", judge="{{rule}}? {{statement}}! {{rule}}!")
    (mine / ".DS_Store").write_bytes(b"\xff")
    assert prompts.read(bundled) == {"judge": "Judge {{statement}} by {{rule}}.", "solver": r"Box it: \boxed{}."}
    assert prompts.read(bundled, mine) == prompts.read(bundled) | {"judge": "{{rule}}? {{statement}}! {{rule}}!"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("judges.md", b"x", r"judges\.md: no prompt is called 'judges\.md'; expected any of judge\.md, solver\.md"),
        ("judge.txt", b"x", r"no prompt is called 'judge\.txt'"),
        ("judge.md", b"{{statement}}", r"judge\.md: lacks \{\{rule\}\}; expected \{\{rule\}\}, \{\{statement\}\}"),
        ("solver.md", b"{{rule}}", r"solver\.md: does not know \{\{rule\}\}; expected no place to fill"),
        ("solver.md", b" \n", r"solver\.md: empty"),
        ("solver.md", b"a\xff", r"solver\.md: not UTF-8 at byte 1"),
    ],
)
def test_what_cannot_stand_for_a_prompt_is_refused_by_name(
    bundled: Path, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    mine = folder(tmp_path / "mine")
    (mine / name).write_bytes(content)
    with pytest.raises(Failure, match=says):
        prompts.read(bundled, mine)


def test_a_folder_that_is_not_there_is_refused(bundled: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"nowhere: No such file.*expected a folder with any of judge\.md"):
        prompts.read(bundled, tmp_path / "nowhere")


@given(st.text(), st.text())
def test_what_is_filled_in_is_text_whatever_it_says(statement: str, rule: str) -> None:
    template = r"{{rule}}: $\frac{a}{b}$ {x} %s $y {{statement}}"
    assert (
        prompts.fill(template, statement=statement, rule=rule) == rf"{rule}: $\frac{{a}}{{b}}$ {{x}} %s $y {statement}"
    )
    assert "{{rule}}" in prompts.fill("{{a}}", a="{{rule}}")


def test_a_digest_tells_one_set_of_prompts_from_another() -> None:
    one = {"a": "x", "b": "y"}
    assert prompts.digests(one) == prompts.digests(dict(reversed(one.items())))
    others = ({"a": "x", "b": "z"}, {"a": "y", "b": "x"}, {"a": "x"})
    assert len({tuple(prompts.digests(p).items()) for p in (one, *others)}) == 4


def test_a_place_may_have_any_name() -> None:
    assert prompts.fill("{{text}} {{template}} {{self}}", text="a", template="b", self="c") == "a b c"
