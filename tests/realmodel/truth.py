"""An OpenAI-compatible endpoint that knows trajectories written by hand: it plays the teacher, and the judges.

Of a problem that is none of those it says that it is unsolvable.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.records import Skill
from pipeline.skills.extraction import render as render_skill
from pipeline.skills.rubric import ITEMS
from tests.actors.endpoint import call, chat

HERE = Path(__file__).parent
TRAJECTORIES: list[dict[str, Any]] = yaml.safe_load((HERE / "trajectories.yaml").read_text())
SKILLS = [
    Skill(
        id=id, category=category, intent=intent, method=f"A problem of {category}.\n\nDo what the name says: {intent}.",
        difficulty="another step depends on its result", tool_hint="plain Python", score=0.9, source="by hand",
    )
    for id, category, intent in yaml.safe_load((HERE / "skills.yaml").read_text())
]  # fmt: skip


def turns(trajectory: dict[str, Any]) -> list[str]:
    """A trajectory as the agent's turns."""
    said = [f"## Draft\n{trajectory['draft']}\n{trajectory['question']}"]
    if failed := trajectory.get("failed"):
        said.append(f"## Check\nI run it.\n{call('exec', code=failed['code'])}")
        said.append(f"## Refine\n{failed['refine']}")
    if drop := trajectory.get("drop"):
        said.append(f"## Refine\n{drop} does not fit.\n{call('edit', drop=[drop], add=[])}")
    said.append(f"## Check\nI work it out independently.\n{call('exec', code=check_of(trajectory))}")
    submitted = {name: trajectory[name] for name in ("question", "answer", "checks") if name in trajectory}
    handed_in = call("submit", **submitted, answer_kind=trajectory["kind"])
    return [*said, f"## Finalize\nThe check confirms it.\n{handed_in}"]


def check_of(trajectory: dict[str, Any]) -> str:
    if "code" in trajectory:
        return str(trajectory["code"])
    calls = [f"{c['entry']}({', '.join(map(repr, c['args']))}) == {c['expected']!r}" for c in trajectory["checks"]]
    return f"{trajectory['answer']}\n\nprint(all([{', '.join(calls)}]))"


def completion(body: dict[str, Any]) -> bytes:
    """What the endpoint answers to a request."""
    return chat(reply(body["messages"], body.get("seed", 0)))


def reply(messages: list[dict[str, str]], seed: int) -> str:
    last, whole = messages[-1]["content"], "\n".join(m["content"] for m in messages)
    if "<skill>" in last:
        return json.dumps({item: {"reason": "It is one step, which code can check.", "points": 4} for item in ITEMS})
    if "<questions>" in last or "<text>" in last:
        named = [s for s in SKILLS if s.id in last]
        return "\n".join(map(render_skill, named)) or "NONE"
    if last.startswith("Category: ") or any(m["role"] == "assistant" for m in messages):
        return _turn(messages, seed)
    known = next((t for t in TRAJECTORIES if t["question"] in last), None)
    if '"vote"' in whole:
        return _review(known)
    boxed = "boxed" in whole and (known is None or known["kind"] != "code")
    if boxed:
        return f"\\boxed{{{known['answer'] if known else 'none'}}}"
    if known is None:
        return "```python\ndef solve():\n    raise ValueError('no answer')\n```"
    code = known["answer"] if known["kind"] == "code" else f"def solve():\n    return {known['answer']!r}"
    return f"```python\n{code}\n```"


def _review(known: dict[str, Any] | None) -> str:
    if known is None:
        return json.dumps({"answer": "", "vote": 0, "rationale": "nothing follows", "flags": ["unsolvable"]})
    skills = [id for id in known["skills"] if id != known.get("drop")]
    category = next(skill.category for skill in SKILLS if skill.id in skills)
    return json.dumps(
        {
            **{"answer": known["answer"], "vote": 1, "rationale": "One answer follows.", "flags": []},
            **{"used_skills": skills, "category": category, "on_task": True},
        }
    )


def _turn(messages: list[dict[str, str]], seed: int) -> str:
    mine = [m["content"] for m in messages if m["role"] == "assistant"]
    offered = sorted(
        re.findall(r"^- (\w+):", next(m["content"] for m in messages if m["role"] == "user"), re.MULTILINE)
    )
    fitting = [turns(t) for t in TRAJECTORIES if t["skills"] == offered]
    if not mine:
        return fitting[seed % len(fitting)][0]
    played = next(said for said in fitting if said[0] == mine[0])
    return played[len(mine)] if len(mine) < len(played) else "## Draft\nNothing is left to say."
