"""The form of a turn as a regular expression, for engines that can hold what they sample to one.

Invariant: whatever matches names its stage and is read without a repair, with one call or none. It is for agents that
nobody trained: what a policy in training samples is its own.
"""

from __future__ import annotations

_PLAIN = r'[^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]'
_TEXT = rf'"(?:{_PLAIN}|\\["\\/])*"'
_TEXTS = rf"\[(?:{_TEXT}(?:, {_TEXT})*)?\]"
_CODE = rf'"[a-z#(](?:{_PLAIN}|\\["\\/n])*"'
_PROSE = rf'"[^"\\\s\x00-\x1f\x7f-\x9f\ud800-\udfff](?:{_PLAIN}|\\["\\/])*"'
_ATOM = rf"(?:-?(?:0|[1-9][0-9]{{0,8}})(?:\.[0-9]{{1,6}})?|true|false|null|{_TEXT})"
_ATOMS = rf"\[(?:{_ATOM}(?:, {_ATOM})*)?\]"
_VALUE = rf"(?:{_ATOM}|{_ATOMS})"
_CHECK = rf'\{{"entry": "[a-z][a-z0-9_]{{0,40}}", "args": \[(?:{_VALUE}(?:, {_VALUE})*)?\], "expected": {_VALUE}\}}'
_ANSWER = (
    rf'(?:{_PROSE}, "answer_kind": "(?:math|choice|text)"'
    rf'|{_CODE}, "answer_kind": "code", "checks": \[{_CHECK}(?:, {_CHECK})*\])'
)
_CALLS = (
    rf'"exec", "arguments": \{{"code": {_CODE}\}}',
    rf'"edit", "arguments": \{{"drop": \[{_TEXT}(?:, {_TEXT})*\], "add": {_TEXTS}\}}',
    rf'"skill", "arguments": \{{"id": {_TEXT}\}}',
    rf'"submit", "arguments": \{{"question": {_PROSE}, "answer": {_ANSWER}\}}',
)

_LINE = r"(?:[^\s<\[{`~][^\n<`\[]*(?:(?:<[^\n<\[`|/A-Za-z]|\[[^\n\[T<`])[^\n<`\[]*)*)?"
"""Of thoughts: formulas and lists may stand in it, but nothing that begins a call or a block of code."""

TURN = (
    rf"## (?:Draft|Check|Refine|Finalize)(?:\n{_LINE})*"
    rf"(?:\n<tool_call>\n\{{\"name\": (?:{'|'.join(_CALLS)})\}}\n</tool_call>)?"
)
"""A header, thoughts, and at most one call of Hermes's form at the end."""
