"""The judge of reflections, an option of the process rewards: a model says which thoughts of an episode are coherent.

Consumes a finished episode, waits for one reply of an OpenAI-compatible endpoint, produces a credit a turn. A thought
is a turn in check or refine that calls no tool.

What a hostile thought can reach is bounded: an episode earns `weight` at most, shared out among its thoughts whatever
their number, so that neither talking more nor talking the judge over pays more than one coherent reflection.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from actors import prompts
from actors.openai_client import ChatClient
from actors.verifiers.text.asking import GUARD, bundled, code_of
from actors.verifiers.text.review import objects
from pipeline import config
from pipeline.records import Episode, Turn


class Reply(BaseModel):
    """What the endpoint is asked for. Anything else is no reply, and earns nobody anything."""

    coherent: list[int] = Field(max_length=100)


class ReflectionJudge:
    def __init__(self, section: config.ReflectionJudgeConfig, prompt: str | None = None):
        """`prompt` has the places thoughts and guard; None takes the one of the text domain."""
        self._section, self._prompt = section, prompt or bundled()["reflection_judge"]
        self._client = ChatClient.of(section, timeout_s=section.timeout_s)

    async def credit(self, episode: Episode) -> tuple[float, ...]:
        """One number a turn, at most `weight` together. Raises Failure if the endpoint cannot be reached."""
        thoughts = [i for i, turn in enumerate(episode.turns) if _is_thought(turn)]
        if not thoughts:
            return (0.0,) * len(episode.turns)
        text = await self._client.complete(
            _messages(self._prompt, episode, thoughts), temperature=0.0, max_tokens=self._section.max_tokens
        )
        try:
            reply = Reply.model_validate(next(objects(text), {}))
        except ValidationError:
            return (0.0,) * len(episode.turns)
        coherent = set(reply.coherent) & set(thoughts)
        share = self._section.weight / len(thoughts)
        return tuple(share if i in coherent else 0.0 for i in range(len(episode.turns)))


def _is_thought(turn: Turn) -> bool:
    return turn.action == "think" and turn.tool is None and turn.stage in ("check", "refine")


def _messages(prompt: str, episode: Episode, thoughts: list[int]) -> list[dict[str, str]]:
    turns = [
        f"[{i}] {turn.text}" + (f"\n-> {turn.tool.content}" if turn.tool else "")
        for i, turn in enumerate(episode.turns)
    ]
    code = code_of(*turns)
    system = prompts.fill(prompt, guard=GUARD.format(code=code), thoughts=", ".join(map(str, thoughts)))
    shown = f"<<working {code}>>\n" + "\n".join(turns) + f"\n<<end {code}>>"
    return [{"role": "system", "content": system}, {"role": "user", "content": shown}]
