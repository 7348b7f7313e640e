"""The form of a turn as a regular expression, for engines that can hold what they sample to one.

Invariant: whatever matches names its stage and is read without a repair, with one call or none. It is for agents that
nobody trained: what a policy in training samples is its own.
"""

from __future__ import annotations

_TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_TEXTS = rf"\[(?:{_TEXT}(?:, {_TEXT})*)?\]"
_SOME = r'"(?:[^"\\\x00-\x1f\s]|\\["\\/])(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_KINDS = '"(?:math|choice|text)"'
_CALLS = (
    rf'"exec", "arguments": \{{"code": {_SOME}\}}',
    rf'"edit", "arguments": \{{"drop": \[{_TEXT}(?:, {_TEXT})*\], "add": {_TEXTS}\}}',
    rf'"skill", "arguments": \{{"id": {_TEXT}\}}',
    rf'"submit", "arguments": \{{"question": {_SOME}, "answer": {_SOME}, "answer_kind": {_KINDS}\}}',
)

TURN = (
    r"## (?:Draft|Check|Refine|Finalize)\n(?:[^<\[{`|]|<[^<\[{`|/A-Za-z])*"
    rf"(?:\n<tool_call>\n\{{\"name\": (?:{'|'.join(_CALLS)})\}}\n</tool_call>)?"
)
"""A header, thoughts without anything that could begin a call, and a call of Hermes's form at the end."""
