"""Who plays the proposer: an engine that samples tokens, or anyone who answers messages with text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from actors.chat import ChatFormat, Message
from actors.sample import Sample
from pipeline.config import SamplingConfig

if TYPE_CHECKING:
    from actors.engine import PolicyEngine
    from actors.episode import Conversation


class EnginePolicy:
    """Tokens in, tokens out."""

    def __init__(self, engine: PolicyEngine, sampling: SamplingConfig):
        self._engine, self._sampling = engine, sampling

    async def __call__(self, conversation: Conversation, max_tokens: int, seed: int) -> Sample:
        sampling = self._sampling.model_copy(update={"max_tokens": max_tokens})
        (sample,) = await self._engine.generate(conversation.token_ids, sampling, seed)
        return sample


class Cut(str):
    """A reply that was cut off at its limit of tokens, as far as it goes."""


class TextPolicy:
    """A teacher, or any chat client: its text is tokenised here, so its episodes give rollouts to imitate. A call of
    Hermes's form becomes one of the form of the model that is to learn from it. A reply that is `Cut` has no end.

    It knows no log-probabilities (0) and has no version (0).
    """

    def __init__(self, complete: Callable[[list[Message]], Awaitable[str]], chat: ChatFormat):
        self._complete, self._chat = complete, chat

    async def __call__(self, conversation: Conversation, max_tokens: int, seed: int) -> Sample:
        said = await self._complete(conversation.messages)
        cut = isinstance(said, Cut)
        whole = [*self._chat.encode_text(self._chat.written(said)), *([] if cut else [self._chat.eos_id])]
        ids = whole[:max_tokens]
        return Sample(
            text=self._chat.decode(ids),
            token_ids=ids,
            logprobs=[0.0] * len(ids),
            versions=[0] * len(ids),
            truncated=cut or len(ids) < len(whole),
        )
