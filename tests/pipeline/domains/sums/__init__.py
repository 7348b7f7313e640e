"""A third domain, for tests: sums of one or two steps. It has a corpus, categories, a teacher, a benchmark, a held-out
pair and defaults of its own; its sentences are of the controlled language, so the verifiers of that language judge
them, and it starts from the models that the mini world bundles."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

import pipeline
from actors.teacher import Teacher
from pipeline.config import DomainConfig
from pipeline.domains.base import Domain, Prompts
from pipeline.skills.extraction import QA_PROMPT, TEXT_PROMPT
from tests.actors.endpoint import call

_HERE = Path(__file__).parent
_MODELS = Path(pipeline.__file__).parent / "domains" / "mini" / "models"


class SumsConfig(DomainConfig):
    implementation: ClassVar[str] = "tests.pipeline.domains.sums:Sums"
    defaults: ClassVar[Path] = _HERE / "defaults.yaml"
    kind: Literal["sums"] = "sums"


class Sums(Domain):
    categories = ("less", "more")
    prompts = Prompts(QA_PROMPT, TEXT_PROMPT, "You write problems.", "Solve.")
    bundled: ClassVar[Mapping[str, Path]] = {
        "sums:corpus": _HERE / "corpus.md",
        "sums:benchmark": _HERE / "benchmark.jsonl",
        "sums:proposer": _MODELS / "proposer",
        "sums:solver": _MODELS / "solver",
    }

    def is_heldout(self, skills: Collection[str]) -> bool:
        return {"add", "multiply"} <= set(skills)

    def teacher(self) -> Teacher:
        return _Teacher()


# skill -> category, what a text about it says, its sentence, the code that works it out
SKILLS = {
    "add": ("more", "adding", "Mia finds {a} more.", "x = x + {a}"),
    "multiply": ("more", "multiplying", "Then Mia has {a} times as many.", "x = x * {a}"),
    "subtract": ("less", "subtracting", "Mia loses {a}.", "x = x - {a}"),
}

_DOCUMENT = (
    "---\nname: {0}\ncategory: {1}\nintent: {2}\nscore: 0.9\n---\n## Structure\nA story of one number.\n"
    "## Action\nWork it out.\n## Effect\nOne step more.\n## Tool hint\nPrint it.\n"
)


class _Teacher:
    async def complete(self, messages: list[dict[str, str]], seed: int = 0) -> str:
        """Skills for a text; else a draft, then code that works it out, then both handed in."""
        *_, last = messages
        if "\nText:\n" in last["content"]:
            text = last["content"].split("\nText:\n", 1)[1]
            found = [(id, category, cue) for id, (category, cue, *_) in SKILLS.items() if cue in text]
            return "\n".join(_DOCUMENT.format(*skill) for skill in found) or "NONE"
        task = next(m["content"] for m in messages if m["role"] == "user")
        question, code = _problem(re.findall(r"^- (\w+):", task, re.MULTILINE), Random(seed))
        if last["content"] == task:
            return f"## Draft\n{question}"
        printed = re.search(r"<tool_response>\n(.*)\n</tool_response>", last["content"])
        if printed is None:
            return "## Check\n" + call("exec", code=code)
        return "## Finalize\n" + call("submit", question=question, answer=printed[1])


def _problem(skills: list[str], rng: Random) -> tuple[str, str]:
    x = rng.randint(10, 30)  # numbers that the bundled solver can work with
    sentences, code = [f"Mia has {x} stones."], [f"x = {x}"]
    for id in skills:
        _, _, sentence, line = SKILLS[id]
        a = rng.randint(2, 9)
        sentences.append(sentence.format(a=a))
        code.append(line.format(a=a))
    return " ".join([*sentences, "How many stones does Mia have now?"]), "\n".join([*code, "print(x)"])
