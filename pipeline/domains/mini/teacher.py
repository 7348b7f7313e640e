"""The scripted teacher: stands where an LLM stands, behind the same messages and the same text formats.

Invariant: a reply is a function of the messages and the seed alone; nothing is remembered between calls, so what the
teacher needs of an earlier turn it reads back from the conversation. It is fallible on purpose: some drafts hold a
mistake that a check reveals, some problems are handed in with a slip of mental arithmetic or with skills that do not
go together, and the committee has to find those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

from pipeline.domains.mini import rewriting
from pipeline.domains.mini.combinations import feasible, largest_feasible
from pipeline.domains.mini.domain import BY_ID
from pipeline.domains.mini.generate import PICK, Sentence, Text, draft, evaluate, fill, read
from pipeline.domains.mini.knowledge import KNOWLEDGE, Lore
from pipeline.domains.mini.rules.base import UNITS
from pipeline.records import Failure, Skill
from pipeline.skills.extraction import render

Message = dict[str, str]


class ScriptedTeacher:
    """Answers the acquisition prompts, rewrites problems, and plays the proposer turn by turn."""

    async def complete(self, messages: Sequence[Message], seed: int = 0) -> str:
        """The next assistant message. Raises Failure for a conversation it has no answer to."""
        users = [m["content"] for m in messages if m["role"] == "user"]
        if users and users[0].startswith("Category: "):
            return _Proposer(messages, seed).turn()
        if users and users[-1].startswith(rewriting.OPENING):
            return rewriting.reply(users[-1], seed, _in_the_head)
        for marker in ("\nQuestion and answer:\n", "\nText:\n"):
            if users and marker in users[-1]:
                return _acquire(users[-1].split(marker, 1)[1], seed)
        raise Failure(
            "the scripted teacher was asked something else than to find skills, or to write or rewrite a problem"
        )


# ---------------------------------------------------------------- acquisition

_TEACHES = re.compile(r"=|for example|means|because|to find|rule|answer", re.IGNORECASE)


def _acquire(text: str, seed: int) -> str:
    """Skill documents for every skill whose cues the text holds; the score says how well the text supports it."""
    rng = Random(f"acquire {seed} {text}")
    found = []
    for id, lore in KNOWLEDGE.items():
        hits = len(re.findall(lore.cues, text))
        if hits:
            taught = bool(_TEACHES.search(text)) and len(text) > 40
            score = min(0.97, 0.72 + 0.05 * hits + rng.uniform(0, 0.1)) if taught else rng.uniform(0.1, 0.4)
            found.append(_skill(id, lore, round(score, 2)))
            if rng.random() < 0.1:  # a second name for the same knowledge, as LLMs are wont to give
                found.append(_skill(f"{id}_task", lore, round(score * 0.7, 2)))
    return "\n".join(render(s) for s in found) if found else "NONE"


def _skill(id: str, lore: Lore, score: float) -> Skill:
    script = lore.script.replace(lore.signature.partition("(")[0], id)
    hint = lore.hint.replace(lore.signature, lore.signature.replace(lore.signature.partition("(")[0], id))
    return Skill(
        id=id,
        category=lore.category,
        intent=lore.intent,
        method=f"{lore.category} problem, one step of a chain.\n\n{lore.action}",
        difficulty=lore.effect,
        tool_hint=hint,
        script=script,
        score=score,
        source="",
    )


# ---------------------------------------------------------------- the proposer

AT_ONCE, TWICE = 0.25, 0.4
"""Style is a number in [0, 1): below AT_ONCE submitted without a check, below TWICE checked in two ways, else once."""


class _Proposer:
    """One turn of an episode, from the conversation so far."""

    def __init__(self, messages: Sequence[Message], seed: int):
        task = next(m["content"] for m in messages if m["role"] == "user")
        self.offered = re.findall(r"^- (\w+):", task, re.MULTILINE)
        unknown = [s for s in self.offered if s not in KNOWLEDGE]
        if unknown or not self.offered:
            raise Failure(f"the scripted teacher does not know the skills {unknown or 'of an empty list'}")
        self.mine = [m["content"] for m in messages if m["role"] == "assistant"]
        last = messages[-1]["content"]
        self.failed = last.endswith("Stage: refine")
        self.last_word = last.endswith("Stage: finalize")
        response = re.search(r"<tool_response>\n(.*)\n</tool_response>", last, re.DOTALL)
        self.response = response[1] if response else None
        self.active = _active(self.offered, messages)
        self.must_keep = any("no tool 'edit'" in m["content"] for m in messages if m["role"] == "user")
        self.text = next((t for m in reversed(self.mine) if (t := _drafted(m))), None)
        self.calls = [c["arguments"]["code"] for m in self.mine if (c := _call_of(m)) and c["name"] == "exec"]
        self.rng = Random(f"{seed} {task} {self.mine}")
        habit = Random(f"{task} {self.text.name + self.text.thing if self.text else ''}")
        self.style = habit.random()

    def turn(self) -> str:
        if self.text is None:
            return self._draft()
        called = _call_of(self.mine[-1])
        if called is None or self.response is None:
            return self._look_again() if self.failed else self._after_writing()
        if self.last_word and "Error: " in self.response:  # asked to come to an end, with a check that failed
            return _submit(self.text.question, _in_the_head(self.text, self.rng))
        if called["name"] == "edit":
            return "## Refine\n" + self._without_dropped().question
        if self.failed or called["name"] != "exec":
            return self._mend()
        if self.style >= AT_ONCE and self.style < TWICE and len(self.calls) == 1:
            return self._check(plain=True)
        return _submit(self.text.question, self.response.strip())

    # ---------------- drafting

    def _draft(self) -> str:
        if not self.mine and self.rng.random() < 0.05:
            return "## Draft\n" + _tool("skill", {"id": self.rng.choice(self.offered)})
        fits = feasible(frozenset(self.active))
        text = None if fits else self._overloaded()
        if text is None and not fits:
            return self._prune("## Draft")
        if text is None:
            text = self._sound()
            if self.rng.random() < 0.22:
                text = spoiled(text, self.rng) or text
        return "## Draft\n" + text.question

    def _sound(self) -> Text:
        level, extra = self.rng.choice((0, 1, 1, 2, 2)), self.rng.choice((0, 0, 0, 1, 1, 2))
        if len(self.active) > 3:
            extra = 0
        skills = self.active if feasible(frozenset(self.active)) else self.rng.choice(largest_feasible(self.active))
        return draft(skills, self.rng, level, extra)

    def _overloaded(self) -> Text | None:
        """A draft that tries to use skills that do not go together; None where the teacher sees it coming."""
        if self.rng.random() < 0.6:
            return None
        fitting = self.rng.choice(largest_feasible(self.active))
        surplus = [BY_ID[s] for s in self.active if s not in fitting]
        if any(r.role != "step" for r in surplus):
            return None
        base = draft(fitting, self.rng, level=1)
        sentences = list(base.sentences)
        for rule in surplus:
            args = PICK[rule.id](self.rng, 24 if rule.takes != "L" else (3, 4, 5), 0) if rule.id in PICK else ()
            place = self.rng.randint(1, len(sentences) - 1)
            sentences.insert(place, Sentence(rule, self.rng.randrange(len(rule.wordings)), args))
        return evaluate(base.name, base.thing, sentences)

    def _prune(self, header: str) -> str:
        keep = self.rng.choice(largest_feasible(self.active))
        if self.must_keep:
            return f"{header}\n{self._sound().question}"
        drop = [s for s in self.active if s not in keep]
        clash = next((k for k in self.active if k in keep and not feasible(frozenset((k, drop[0])))), None)
        why = f"{drop[0]} does not go with {clash}." if clash else f"{', '.join(drop)} does not fit."
        return f"{header}\n{why}\n" + _tool("edit", {"drop": drop, "add": []})

    # ---------------- checking and mending

    def _after_writing(self) -> str:
        assert self.text is not None
        if self.style < AT_ONCE or self.last_word:
            return _submit(self.text.question, _in_the_head(self.text, self.rng))
        return self._check()

    def _check(self, plain: bool = False) -> str:
        assert self.text is not None
        return "## Check\n" + _tool("exec", {"code": code_of(self.text, () if plain else self.active)})

    def _look_again(self) -> str:
        """Asked to refine a draft that nothing was run on: what is wrong with it is seen by reading it."""
        assert self.text is not None
        if self.text.fault or self.text.skills != frozenset(self.active):
            return self._mend()
        return "## Refine\n" + self.text.question

    def _mend(self) -> str:
        """After a failed check: drop a skill that cannot fit, else change the numbers; give up after four checks."""
        assert self.text is not None
        if len(self.calls) >= 4:
            return _submit(self.text.question, _in_the_head(self.text, self.rng))
        if not feasible(frozenset(self.active)):
            return self._prune("## Refine")
        mended = None
        if self.text.fault and len(self.text.values) > 0:
            sentences = list(self.text.sentences)
            at = len(self.text.values)
            sentences[at] = Sentence(sentences[at].rule, sentences[at].wording, ())
            mended = fill(sentences, self.rng, 1, self.text.name, self.text.thing, fixed=at)
        return "## Refine\n" + (mended or self._sound()).question

    def _without_dropped(self) -> Text:
        """The draft without the sentences of dropped skills, or a new one where that does not do."""
        assert self.text is not None
        kept = [s for s in self.text.sentences if not s.rule.skill or s.rule.id in self.active]
        text = fill(kept, self.rng, 1, self.text.name, self.text.thing)
        return text if text is not None and text.skills == frozenset(self.active) else self._sound()


def code_of(text: Text, active: Sequence[str]) -> str:
    """Code that works the problem out: the scripts of active skills, plain Python for everything else."""
    lines = []
    for i, s in enumerate(text.sentences):
        slots = dict(zip("ab", s.args, strict=False)) | {"x": "x", "list": list(s.args)}
        scripted = s.rule.id in active
        if scripted:
            args = ", ".join([*(["x"] if s.rule.role != "opening" else []), *map(str, s.args)])
            value = f"{s.rule.id}({args})"
        else:
            value = s.rule.plain.format(**slots)
        if s.rule.role != "question":
            lines.append(f"x = {value}")
            continue
        unit = s.rule.id == "how_much" and (text.kinds[min(i, len(text.kinds)) - 1] in UNITS)
        lines.append(f"print({'x[0]' if unit else value})")
    imports = ["import math"] if any("math." in line for line in lines) else []
    return "\n".join([*imports, *lines])


def spoiled(text: Text, rng: Random) -> Text | None:
    """The same problem with one number that breaks a condition, or None where no step has one."""
    wrong: list[tuple[int, int]] = []
    for i, s in enumerate(text.sentences[1:], start=1):
        x = text.values[i - 1]
        if s.rule.id == "subtract" and isinstance(x, int):
            wrong.append((i, x + rng.randint(1, 20)))
        elif s.rule.id in ("share", "part") and isinstance(x, int):
            wrong.append((i, rng.choice([a for a in range(2, 13) if x % a] or [x + 1])))
        elif s.rule.id == "position" and isinstance(x, tuple):
            wrong.append((i, len(x) + rng.randint(1, 3)))
    if not wrong:
        return None
    at, number = rng.choice(wrong)
    sentences = list(text.sentences)
    sentences[at] = Sentence(sentences[at].rule, sentences[at].wording, (number,))
    return evaluate(text.name, text.thing, sentences)


def _in_the_head(text: Text, rng: Random) -> str:
    """The answer without a tool: often right, not always."""
    if not text.fault and rng.random() < 0.65:
        return text.answer
    last = text.values[-1]
    if last in ("even", "odd", "yes", "no"):
        return {"even": "odd", "odd": "even", "yes": "no", "no": "yes"}[str(last)]
    if isinstance(last, tuple):
        return str([v + 1 for v in last[:-1]])
    return str(int(last) + rng.choice((1, 2, 10)))


# ---------------------------------------------------------------- the conversation


def _tool(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _submit(question: str, answer: str) -> str:
    return "## Finalize\n" + _tool("submit", {"question": question, "answer": answer})


def _call_of(turn: str) -> dict[str, Any] | None:
    found = re.search(r"<tool_call>\n(.*)\n</tool_call>", turn, re.DOTALL)
    return json.loads(found[1]) if found else None


def _drafted(turn: str) -> Text | None:
    """The problem that one of the teacher's own turns wrote."""
    header, _, body = turn.partition("\n")
    return read(body) if header in ("## Draft", "## Refine") and "<tool_call>" not in body else None


def _active(offered: list[str], messages: Sequence[Message]) -> list[str]:
    """Offered skills, less what the environment confirmed as dropped."""
    active = list(offered)
    for m in messages:
        edited = re.search(r"<tool_response>\nSkills: (.*)\n</tool_response>", m["content"])
        if m["role"] == "user" and edited:
            active = [s for s in re.split(r",\s*", edited[1]) if s in offered]
    return active
