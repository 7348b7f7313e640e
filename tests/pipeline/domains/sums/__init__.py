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


# skill -> category, what a text about it says, its sentence, its value
SKILLS = {
    "add": ("more", "adding", "Mia finds {a} more.", lambda x, a: x + a),
    "multiply": ("more", "multiplying", "The amount grows {a} times.", lambda x, a: x * a),
    "subtract": ("less", "subtracting", "Mia loses {a}.", lambda x, a: x - a),
}

_DOCUMENT = (
    "---\nname: {0}\ncategory: {1}\nintent: {2}\nscore: 0.9\n---\n## Structure\nA story of one number.\n"
    "## Action\nWork it out.\n## Effect\nOne step more.\n## Tool hint\nPrint it.\n"
)


class _Teacher:
    async def complete(self, messages: list[dict[str, str]], seed: int = 0) -> str:
        """Skills for a text; else a draft, and after that what was drafted, handed in."""
        *_, last = messages
        if "\nText:\n" in last["content"]:
            text = last["content"].split("\nText:\n", 1)[1]
            found = [(id, category, cue) for id, (category, cue, *_) in SKILLS.items() if cue in text]
            return "\n".join(_DOCUMENT.format(*skill) for skill in found) or "NONE"
        task = next(m["content"] for m in messages if m["role"] == "user")
        question, answer = _problem(re.findall(r"^- (\w+):", task, re.MULTILINE), Random(seed))
        if last["content"] == task:
            return f"## Draft\n{question}"
        call = f'{{"name": "submit", "arguments": {{"question": "{question}", "answer": "{answer}"}}}}'
        return f"## Finalize\n<tool_call>\n{call}\n</tool_call>"


def _problem(skills: list[str], rng: Random) -> tuple[str, int]:
    x = rng.randint(20, 90)
    sentences = [f"Mia has {x} stones."]
    for id in skills:
        _, _, sentence, value = SKILLS[id]
        a = rng.randint(2, 9)
        sentences.append(sentence.format(a=a))
        x = value(x, a)
    return " ".join([*sentences, "How many stones does Mia have now?"]), x
