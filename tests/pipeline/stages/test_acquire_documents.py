"""`acquire` on real documents (tests/pipeline/real_documents.py). The teacher does all that teachers do, by a hash of
what it reads: it finds nothing, writes what cannot be read, repeats the example, adds scripts that fail, proposes
categories of its own; its rubric gives little, or says nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import skills as commands
from pipeline.records import Skill
from pipeline.skills import candidates
from pipeline.skills.extraction import SkillLibrary, render
from pipeline.skills.rubric import ITEMS
from pipeline.skills.scripts import is_cjk
from tests.actors.endpoint import chat, serving
from tests.benchmarks.bench_acquire import acquire, config
from tests.pipeline import real_documents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KINDS = {
    "nothing": 8, "unreadable": 6, "repaired": 8, "fails": 10, "runs": 12, "example": 6, "packaging": 8,
    "mathematics": 6, "poor": 12, "unscored": 5, "plain": 19,
}  # fmt: skip
"""What a document is met with -> its share, in hundredths."""
_WORD = re.compile(r"[a-z]{5,12}|[\u4e00-\u9fff]{2}")


def kind(text: str) -> str:
    at = int(hashlib.sha256(text.encode()).hexdigest(), 16) % sum(KINDS.values())
    for name, share in KINDS.items():
        at -= share
        if at < 0:
            return name
    raise AssertionError


def skill(text: str) -> Skill | None:
    """One that its own words name."""
    words = [word for word, _ in Counter(_WORD.findall(text.lower())).most_common(14)]
    if len(words) < 2:
        return None
    one, two, *more = words
    of = kind(text)
    category = of if of in ("packaging", "mathematics") else ("maths", "code", "science")[len(text) % 3]
    script = None
    if of in ("fails", "runs"):
        gives = 4 if of == "runs" else 5
        script = f'def work(x):\n    """Twice.\n\n    >>> work(2)\n    {gives}\n    """\n    return 2 * x\n'
    return Skill(
        id=f"{one}_{two}", category=category, intent=f"relate {one} to {two}", tool_hint="plain Python",
        method=f"Something with {' '.join(more[:6])}.\n\nUse {' '.join(more[6:]) or one}.", difficulty=f"of {two}",
        score=0.9, source="s", script=script,
    )  # fmt: skip


class Teacher:
    def __init__(self) -> None:
        self.read: dict[str, str] = {}
        """Text -> how it was met."""

    def reply(self, messages: list[dict[str, str]]) -> str:
        first = messages[0]["content"]
        text = re.split(r"<(?:text|questions)>\n", first)[-1].rpartition("\n</")[0]
        if first.startswith("You hold a skill"):
            return self.score(text)
        if "Reply with one document per skill" not in first:
            return "yes"  # whether it is there at all
        found, of = skill(text), kind(text)
        self.read[text] = of if found or of in ("unreadable", "nothing") else "nothing"
        if self.read[text] in ("nothing", "unreadable"):
            return "NONE" if self.read[text] == "nothing" else "I would say that this is about many things."
        assert found is not None
        said = render(found)
        if of == "repaired" and len(messages) == 1:
            return said.replace("## Effect", "## Consequence")
        if of == "example":
            example = re.search(r"^---\nname: (?!snake_case).*?(?=^<)", first, re.MULTILINE | re.DOTALL)
            assert example is not None
            return f"{example[0]}\n{said}"
        return said

    def score(self, text: str) -> str:
        if kind(text) == "unscored":
            return "It is a fine skill."
        points = 1 if kind(text) == "poor" else 3
        return json.dumps({item: {"reason": f"It is about {item}.", "points": points} for item in ITEMS})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "corpus").mkdir()
    places, teacher = real_documents.collect(folder / "corpus"), Teacher()
    with serving(lambda body: chat(teacher.reply(body["messages"]))) as (url, asked):
        calls = []
        for name in ("first", "second"):
            before = asked.total()
            path = config(folder / f"{name}.yaml", url, places, on_bad_record="skip")
            went = acquire(path, folder / name)
            assert went.code == 0, went.said
            calls.append(asked.total() - before)
    results = [json.loads((folder / n / "stages" / "acquire.json").read_text())["result"] for n in ("first", "second")]
    return {
        "places": places, "teacher": teacher, "calls": calls, "results": results, "run": folder / "first",
        "rows": candidates.read(folder / "first" / "skills"),
    }  # fmt: skip


def test_hundreds_of_documents_of_many_sources_become_a_library(ran: dict[str, Any]) -> None:
    result, rows, read = ran["results"][0], ran["rows"], ran["teacher"].read
    sources = {row.origin for row in rows if row.of}
    print(json.dumps({"sources": len(sources), "calls": ran["calls"], **result}, indent=1, ensure_ascii=False))
    assert result["documents"] >= 200 and len(sources) >= 40 and result["kept"] >= 100
    assert len(set(read)) <= result["documents"] and result["failed_replies"] == 0
    chinese = [row for row in rows if row.origin == "own texts" and row.of and is_cjk(row.skill.id)]
    assert chinese and {row.path.rpartition(".")[2] for row in rows} >= {"md", "rst", "txt", "jsonl"}
    assert commands.stats(str(ran["run"]))["sources"] >= 40


def test_every_proposal_has_an_end_with_its_reason(ran: dict[str, Any]) -> None:
    result, rows, read = ran["results"][0], ran["rows"], ran["teacher"].read
    met = Counter(read.values())
    ends = Counter(row.cause or row.outcome for row in rows)
    library = SkillLibrary.load(ran["run"] / "skills")
    assert ends["kept"] == len(library) == result["kept"]
    assert all(row.reason for row in rows if row.outcome == "rejected")
    assert result["malformed_replies"] >= met["unreadable"] > 0 and ends["example"] >= met["example"] > 0
    assert ends["no score"] >= met["unscored"] > 0 and ends["low score"] > 0
    failing = [row for row in rows if row.skill.script and "    5\n" in row.skill.script]
    assert len([row for row in rows if row.cause == "script"]) > 0
    assert not [row for row in failing if row.outcome == "kept"]
    assert {row.skill.id for row in rows if row.cause == "script"} <= {row.skill.id for row in failing}
    assert all(row.skill.score >= 0.5 for row in rows if row.outcome == "kept")
    categories = {one.category for one in library}
    assert "mathematics" not in categories and "packaging" in categories  # another spelling; one of its own
    assert (
        sum(n for name, n in ends.items() if name in ("kept", "merged"))
        + ends["low score"]
        + ends["script"]
        + ends["no score"]
        == result["candidates"]
    )


def test_each_skill_is_traced_to_the_file_that_speaks_of_it(ran: dict[str, Any]) -> None:
    licences = {place["path"]: place["license"] for place in ran["places"]}
    for row in ran["rows"]:
        if row.cause == "example":
            continue
        words = row.skill.intent.removeprefix("relate ").split(" to ")
        text = Path(row.path).read_text(encoding="utf-8").lower()
        assert all(word in text for word in words), f"{row.path} says nothing of {words}"
        place = next(at for at in licences if row.path == at or row.path.startswith(f"{at}/"))
        assert row.license == licences[place]
    some = next(row for row in ran["rows"] if row.outcome == "kept")
    origins = commands.shown(str(ran["run"]), some.skill.id)["origins"]
    assert some.path in {one["path"] for one in origins}
    assert len({row.license for row in ran["rows"]}) > 5


def test_a_second_run_asks_for_nothing_and_gives_the_same(ran: dict[str, Any]) -> None:
    preflight = 1
    assert ran["calls"][0] > 500 and ran["calls"][1] <= preflight
    first, second = ran["results"]
    assert first == second
