"""Chat formats other than plain ChatML: whatever template the tokenizer of a model brings, and plain text.

Invariant: the tokens of a conversation are those of the template's own rendering, and text that a model, a tool or a
corpus wrote can never become a control token. The template is rendered with a mark in place of each content; the frame
around the marks is split at its control tokens, and what lies between them, contents included, is encoded as plain
characters. A sampled turn stays as it was sampled, also where the template would leave earlier reasoning out; what
follows it is the template's.

A template is refused, with the reason, where a turn cannot be appended: it leaves turns out, closes none of them with a
token, or writes what follows a turn in another way each time; and where its tokenizer cannot be given the parts of a
text one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from actors.chat import TOOL_SCHEMAS, ChatFormat, Message
from actors.templates import own_form, rendered, settings, template_of
from pipeline.records import Failure

_MARK = re.compile(r"MARK(\d+)STOP")
_PROBE = [
    {"role": "system", "content": "You write problems, 2 + 2 of them."},
    {"role": "user", "content": "Category: maths\nStage: draft ✓"},
    {"role": "assistant", "content": "## Draft\nMia's  box holds 17."},
    {"role": "user", "content": "<tool_response>\n3\n</tool_response>\nStage: check"},
]
Piece = str | int
"""Of a rendered conversation: frame, or the number of the message whose content stands there."""


def chat_format(folder: str | Path) -> ChatFormat:
    """The format of a model directory: its template's, or ChatML where it brings none. Raises Failure."""
    template = template_of(Path(folder), "default")
    if template is None:
        return ChatFormat(folder)
    try:
        plain = ChatFormat(folder)
    except Failure:
        return TemplateFormat(folder, template)
    found = TemplateFormat(folder, template)
    after = [f.encode_reply("user", _PROBE[3]["content"], closed=False) for f in (plain, found)]
    same = plain.encode_messages(_PROBE) == found.encode_messages(_PROBE) and after[0] == after[1]
    return plain if same else found


class TemplateFormat(ChatFormat):
    def __init__(self, folder: str | Path, template: str):
        self._where = f"chat template of {folder}"
        path = Path(folder) / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as e:  # tokenizers raises plain Exception for a missing and for a broken file
            raise Failure(f"tokenizer {path}: {e}; expected a Hugging Face tokenizer.json") from None
        self._tokenizer.encode_special_tokens = True
        self._template, self._settings = template, settings(Path(folder) / "tokenizer_config.json")
        special = [t.content for t in self._tokenizer.get_added_tokens_decoder().values() if t.special]
        self._controls = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        self._stripped = self._which_are_stripped()
        self.eos_id = self._end()
        self.stop_ids = list(dict.fromkeys([self.eos_id, *self._model_stops(Path(folder))]))
        self._anchor: str | None = None
        self._check(special)
        self._form = own_form(folder, TOOL_SCHEMAS)

    # ------------------------------------------------------------ tokens

    def encode_text(self, text: str) -> list[int]:
        if self._anchor is None or self._controls.search(text):
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._as_rendered(self._anchor + text)[1:]

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        return self._encode(self._pieces(messages, opened=True), messages)

    def encode_reply(self, role: str, text: str, *, closed: bool) -> list[int]:
        messages = [*_PROBE[:3], {"role": role, "content": text}]
        after = self._after(messages)
        if closed:
            end = self._controls.search(str(after[0]))
            assert end is not None
            after = [str(after[0])[end.end() :], *after[1:]]
        return self._encode(after, messages)

    def _encode(self, pieces: Sequence[Piece], messages: Sequence[Message]) -> list[int]:
        ids: list[int] = []
        run = ""
        for piece in pieces:
            if isinstance(piece, int):
                text = messages[piece]["content"]
                run += text.strip() if messages[piece]["role"] in self._stripped else text
                continue
            at = 0
            for token in self._controls.finditer(piece):
                run += piece[at : token.start()]
                ids += [*(self.encode_text(run) if run else ()), self._id(token[0])]
                run, at = "", token.end()
            run += piece[at:]
        return ids + (self.encode_text(run) if run else [])

    def _id(self, token: str) -> int:
        found: int | None = self._tokenizer.token_to_id(token)
        assert found is not None  # it is one of the tokenizer's own
        return found

    # ------------------------------------------------------------ the template

    def _rendered(self, messages: Sequence[Message], opened: bool) -> str:
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {n: t.get("content", "") if isinstance(t := self._settings.get(n), dict) else t or "" for n in names}
        return rendered(self._template, messages, opened=opened, **tokens)

    def _pieces(self, messages: Sequence[Message], opened: bool) -> list[Piece]:
        """The conversation as the template frames it. A template that knows no system message gets it with the first
        user's."""
        marked = [{**m, "content": f"MARK{i}STOP"} for i, m in enumerate(messages)]
        try:
            text = self._rendered(marked, opened)
        except Exception as e:  # whatever a template raises
            if [m["role"] for m in marked[:2]] != ["system", "user"]:
                raise Failure(f"{self._where}: {_line(e)}") from None
            joined = {"role": "user", "content": f"{marked[0]['content']}\n\n{marked[1]['content']}"}
            try:
                text = self._rendered([joined, *marked[2:]], opened)
            except Exception as again:
                raise Failure(f"{self._where}: {_line(again)}") from None
        parts = _MARK.split(text)
        pieces: list[Piece] = [int(p) if i % 2 else p for i, p in enumerate(parts)]
        if missing := set(range(len(messages))) - {p for p in pieces if isinstance(p, int)}:
            role = messages[min(missing)]["role"]
            raise Failure(f"{self._where}: it leaves out a message of {role}; expected one that keeps every turn")
        return pieces

    def _after(self, messages: Sequence[Message]) -> list[Piece]:
        """What stands after the last assistant's turn, the next one opened."""
        last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        pieces = self._pieces(messages, opened=True)
        return pieces[pieces.index(last) + 1 :]

    def _which_are_stripped(self) -> set[str]:
        """Roles whose contents the template strips of white space at both ends."""
        spaced = [{**m, "content": f"\n MARK{i}STOP \n"} for i, m in enumerate(_PROBE)]
        try:
            text = self._rendered(spaced, opened=True)
        except Exception:
            try:
                text = self._rendered(spaced[1:], opened=True)
            except Exception as e:
                raise Failure(f"{self._where}: {_line(e)}") from None
        return {m["role"] for i, m in enumerate(_PROBE) if f"MARK{i}STOP" in text and f" MARK{i}STOP " not in text}

    def _end(self) -> int:
        """The token that closes an assistant's turn."""
        closing = str(self._after(_PROBE)[0])
        end = self._controls.match(closing.lstrip())
        closed = self._pieces(_PROBE[:3], opened=False)[-1]
        if end is None or not isinstance(closed, str) or not closed.lstrip().startswith(end[0]):
            raise Failure(f"{self._where}: no token closes an assistant's turn; expected one, for a turn to end with")
        longer = [*_PROBE, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
        if [p for p in self._after(_PROBE) if isinstance(p, str)] != [
            p for p in self._after(longer) if isinstance(p, str)
        ]:
            raise Failure(f"{self._where}: what follows a turn depends on the turns before it, so none can be appended")
        return self._id(end[0])

    def _model_stops(self, folder: Path) -> list[int]:
        """Other tokens at which the model stops."""
        eos = settings(folder / "generation_config.json").get("eos_token_id")
        return [i for i in (eos if isinstance(eos, list) else [eos]) if isinstance(i, int)]

    def _check(self, special: Sequence[str]) -> None:
        """Raises Failure where the parts, encoded one by one, are not the tokens of the whole."""
        stripped = [{**m, "content": m["content"].strip()} for m in _PROBE]
        pieces = self._pieces(stripped, opened=True)
        text = "".join(stripped[p]["content"] if isinstance(p, int) else p for p in pieces)
        whole = self._as_rendered(text)
        for self._anchor in (None, *special[:1]):
            if self._encode(pieces, stripped) == whole:
                return
        raise Failure(f"{self._where}: its tokenizer joins text across control tokens, so a turn cannot be appended")

    def _as_rendered(self, text: str) -> list[int]:
        """The tokens of a text whose control tokens are meant."""
        self._tokenizer.encode_special_tokens = False
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = True


_BYTES = 3


class PlainText(ChatFormat):
    """For those who only ever see text: an endpoint's turns, from which nobody learns. A token is three bytes, about
    what it is in a real model (2.9 in the trajectories of `tests/realmodel`, by SmolLM2's tokenizer; 3.9 in the bundled
    prompts), so limits in tokens hold here too."""

    def __init__(self) -> None:
        self._form = None
        self.eos_id, self.stop_ids = 0, [0]

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


def _line(e: BaseException) -> str:
    return " ".join(str(e).split())[:300] or type(e).__name__
