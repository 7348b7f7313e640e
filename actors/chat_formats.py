"""What an episode asks of a chat format: how messages become tokens, and tokens text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.chat import Message


class Format(Protocol):
    eos_id: int
    """The token that ends an assistant's turn."""
    stop_ids: list[int]
    """Tokens that end a sampled turn."""

    def encode_text(self, text: str) -> list[int]: ...

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation, open for an assistant turn."""
        ...

    def encode_reply(self, role: str, text: str, *, closed: bool) -> list[int]:
        """What follows a sampled turn: its end (`closed`: the sample brought its own), a message, and the start of the
        next assistant turn."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text without control tokens."""
        ...


_BYTES = 3


class PlainText:
    """For those who only ever see text: an endpoint's turns, from which nobody learns. A token is three bytes, about
    what it is in a real model, so limits in tokens hold here too."""

    eos_id = 0
    stop_ids = [0]  # noqa: RUF012

    def encode_text(self, text: str) -> list[int]:
        raw = text.encode("utf-8", "replace")
        parts = [raw[i : i + _BYTES] for i in range(0, len(raw), _BYTES)]
        return [len(part) << 8 * _BYTES | int.from_bytes(part) for part in parts]

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        return [i for m in messages for i in (*self.encode_text(f"{m['role']}\n{m['content']}"), self.eos_id)]

    def encode_reply(self, role: str, text: str, *, closed: bool) -> list[int]:
        end = [] if closed else [self.eos_id]
        return [*end, *self.encode_messages([{"role": role, "content": text}])]

    def decode(self, ids: Sequence[int]) -> str:
        mask = (1 << 8 * _BYTES) - 1
        raw = b"".join((i & mask).to_bytes(i >> 8 * _BYTES) for i in ids if i != self.eos_id)
        return raw.decode("utf-8", "ignore")
