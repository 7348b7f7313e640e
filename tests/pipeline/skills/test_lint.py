"""A library spoiled in many ways: lint names each, and finds nothing else; a good one has no finding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import SandboxConfig
from pipeline.records import Skill
from pipeline.skills import table
from pipeline.skills.extraction import SkillLibrary
from pipeline.skills.lint import Finding, lint

SCRIPT = '''def {name}(x):
    """{intent}.

    >>> {name}({given})
    {gives}
    """
    return {result}
'''


def made(id: str, category: str, intent: str, action: str, effect: str, given: str, gives: str, result: str) -> Skill:
    return Skill(
        id=id,
        category=category,
        intent=intent,
        method=f"What it needs.\n\n{action}",
        difficulty=effect,
        tool_hint=f"`{id}(x)` works it out.",
        script=SCRIPT.format(name=id, intent=intent, given=given, gives=gives, result=result),
        score=0.9,
        source="notes.md",
    )


GOOD = [
    made("digit_sum", "maths", "the sum of the decimal digits", "Add all digits.", "A number becomes a text.", "123",
         "6", "sum(map(int, str(x)))"),
    made("square_root", "maths", "the integer whose square is given", "Try candidates.", "Only squares have one.", "49",
         "7", "next(n for n in range(x + 1) if n * n == x)"),
    made("half_life", "physics", "how much of an isotope is left", "Halve once for each period.", "Exponential decay.",
         "3", "0.125", "0.5 ** x"),
    made("lens_power", "physics", "dioptres of a thin lens", "Take the reciprocal of the focal length.",
         "Units are metres.", "0.5", "2.0", "1 / x"),
]  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> Path:
    SkillLibrary(GOOD).save(tmp_path / "mine", sealed=False)
    return tmp_path / "mine"


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(library: Path) -> None:
        path = library / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return spoil


def add(name: str, content: str | bytes) -> Callable[[Path], None]:
    def spoil(library: Path) -> None:
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def copied(library: Path) -> None:
    """The same skill again, in other words of grammar, under another name."""
    shutil.copytree(library / "digit_sum", library / "compute_digits_sum")
    for file in ("SKILL.md", "script.py"):
        edit(f"compute_digits_sum/{file}", "digit_sum", "compute_digits_sum")(library)


def alone(library: Path) -> None:
    edit("half_life/SKILL.md", "category: physics", "category: chemistry")(library)


def linked(library: Path) -> None:
    (library / "elsewhere").symlink_to(library / "digit_sum")


DOC, CODE = "digit_sum/SKILL.md", "digit_sum/script.py"
WAYS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "no document": (lambda lib: (lib / DOC).unlink(), DOC, "missing document", "not there"),
    "latin-1": (add(DOC, b"caf\xe9"), DOC, "encoding", "byte 3"),
    "a script in latin-1": (add(CODE, b"# \xe9"), CODE, "encoding", "byte 2"),
    "a key is missing": (edit(DOC, "intent: the sum of the decimal digits\n", ""), DOC, "document", "lacks 'intent'"),
    "a key twice": (edit(DOC, "score: 0.9\n", "score: 0.9\nscore: 0.9\n"), DOC, "front matter", "'score' 2 times"),
    "an unknown key": (edit(DOC, "score:", "licence: mit\nscore:"), DOC, "front matter", "unknown key 'licence'"),
    "no front matter": (add(DOC, "Add all digits of the number.\n"), DOC, "document", "no skill document"),
    "a section is missing": (edit(DOC, "## Effect\n", ""), DOC, "document", "'## Effect' is missing"),
    "a section is empty": (edit(DOC, "Add all digits.\n", ""), DOC, "document", "'## Action' is missing or empty"),
    "an unknown section": (edit(DOC, "## Effect", "## Notes\nMine.\n## Effect"), DOC, "section", "section 'Notes'"),
    "the folder has another name": (edit(DOC, "name: digit_sum", "name: digits"), DOC, "name", "calls itself 'digits'"),
    "no name": (edit(DOC, "name: digit_sum", "name: 5 digits!"), DOC, "document", "snake_case"),
    "a category of many words": (edit(DOC, ": maths", ": sums and such things"), DOC, "document", "category is"),
    "a score above one": (edit(DOC, "score: 0.9", "score: 9"), DOC, "document", "score is '9'"),
    "a copy of the form": (edit(DOC, "Add all digits.", "What the solver does."), DOC, "document", "repeats the form"),
    "two skills in one file": (
        lambda lib: add(DOC, (lib / DOC).read_text() + (lib / "half_life/SKILL.md").read_text())(lib),
        DOC, "document", "holds 2 skills",
    ),
    "an intent as long as a method": (edit(DOC, "intent: the", "intent: " + "the " * 70), DOC, "intent", "at most 200"),
    "an intent that says nothing": (
        edit(DOC, "the sum of the decimal digits", "digit sum"), DOC, "intent", "repeats the name"
    ),
    "an invisible sign": (edit(DOC, "Add all", "Add\u200b all"), DOC, "invisible sign", "ZERO WIDTH SPACE"),
    "text that runs backwards": (
        edit(CODE, "the sum", "the \u202esum"), CODE, "invisible sign", "U+202E"
    ),
    "no Python": (edit(CODE, "def digit_sum(x):", "def digit_sum(x:"), CODE, "script", "'(' was never closed"),
    "an empty script": (add(CODE, " \n"), CODE, "script", "empty"),
    "a script that raises": (edit(CODE, "def", "import nowhere\n\ndef"), CODE, "script", "nowhere"),
    "a script that does not end": (edit(CODE, "def", "while True: pass\n\ndef"), CODE, "script", ""),
    "a script that opens files": (edit(CODE, "def", "open('/etc/shadow')\n\ndef"), CODE, "script", "/etc/shadow"),
    "a script that prints": (edit(CODE, "def", "print('hello')\n\ndef"), CODE, "output", "'hello'"),
    "a self-test that fails": (edit(CODE, "    6\n", "    7\n"), CODE, "self-test", "Expected: / 7 / Got: / 6"),
    "no self-test": (edit(CODE, "    >>> digit_sum(123)\n    6\n", ""), DOC, "no self-test", "no docstring"),
    "a hint at another function": (edit(DOC, "`digit_sum(x)`", "`digits(x)`"), DOC, "tool hint", "names digits"),
    "two scripts": (
        edit(DOC, "works it out.", "works it out.\n## Script\n```python\ndef f(x): ...\n```"),
        CODE, "script", "has a script, and so has",
    ),
    "two scripts that define one name": (
        lambda lib: [edit(f"{id}/script.py", "def", "BASE = 10\n\ndef")(lib) for id in ("digit_sum", "half_life")],
        "half_life/script.py", "clash", "'BASE', and so does that of digit_sum",
    ),
    "the same skill twice": (copied, "digit_sum", "duplicate", "digit_sum is compute_digits_sum again"),
    "a category of one skill": (alone, ".", "category", "'chemistry' has one skill"),
    "a category in two spellings": (
        lambda lib: [
            add(f"{id}/SKILL.md", (lib / id / "SKILL.md").read_text().replace("physics", "math"))(lib)
            for id in ("half_life", "lens_power")
        ],
        ".", "category", "one category in two spellings",
    ),
    "a file that is no part of a skill": (add("digit_sum/notes.txt", ""), "digit_sum/notes.txt", "stray file", ""),
    "a file that is no part of a library": (add("todo.txt", ""), "todo.txt", "stray file", ""),
    "a link": (linked, "elsewhere", "link", "does not follow"),
    "a table that is none": (add(table.TABLE, b"PAR1"), table.TABLE, "table", "not readable as Parquet"),
}  # fmt: skip
STALE = "table"
"""Where a skill is edited, the table is one of before."""


def test_a_good_library_has_no_finding(library: Path) -> None:
    assert lint(library, SandboxConfig()) == []


SANDBOX = ("script", "self-test", "output")
"""Rules that only running a script can tell of; the other ways are spared the sandbox's start."""


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_spoil_a_library_is_named(library: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, where, rule, what = WAYS[way]
    spoil(library)
    if rule not in SANDBOX:
        monkeypatch.setattr("pipeline.skills.lint.try_scripts", lambda *_: {})
    found = [f for f in lint(library, SandboxConfig(wall_s=2, cpu_s=0.5)) if f.rule != STALE or rule == STALE]
    assert [(f.where, f.rule) for f in found if what in f.what] == [(where, rule)], found
    expected = {"the same skill twice", "no front matter", "a category of one skill"}
    assert len(found) == 1 or way in expected or _follows(found, where), found


def _follows(found: list[Finding], where: str) -> bool:
    """A skill that cannot be read leaves its category with one."""
    return all(f.where == where or f.rule == "category" for f in found)


def test_what_was_changed_is_named_where_a_library_is_sealed_and_the_table_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.skills.lint.try_scripts", lambda *_: {})
    sealed, own = tmp_path / "sealed", tmp_path / "own"
    for folder in (sealed, own):
        SkillLibrary(GOOD).save(folder, sealed=folder is sealed)
        edit(DOC, "Add all digits.", "Add each digit.")(folder)
    shutil.copytree(own / "digit_sum", sealed / "digits")
    edit("digits/SKILL.md", "name: digit_sum", "name: digits")(sealed)
    found = {(f.where, f.rule) for f in lint(sealed, SandboxConfig())}
    assert {(DOC, "sealed"), ("skills.parquet", "table"), ("digits", "duplicate")} <= found
    assert [(f.where, f.rule) for f in lint(own, SandboxConfig())] == [("skills.parquet", "table")]


def test_a_table_alone_is_held_to_the_same(tmp_path: Path) -> None:
    broken = GOOD[0].model_copy(update={"id": "digits", "script": GOOD[0].script.replace("6", "7")})  # type: ignore[union-attr]
    (tmp_path / "some.parquet").write_bytes(table.written([*GOOD, broken]))
    found = {(f.rule, f.what.partition(":")[0]) for f in lint(tmp_path / "some.parquet", SandboxConfig())}
    assert {("self-test", "digits"), ("duplicate", "digits is digit_sum again")} <= found


def test_an_empty_library_is_one_finding(tmp_path: Path) -> None:
    assert [f.rule for f in lint(tmp_path, SandboxConfig())] == ["empty"]
