"""Are two answers the same? Three outcomes: equal, different, unknown. Unknown is never taken for right or wrong.

Invariant: nothing here evaluates text. `compare` reads choices, prose and values (actors/answers/values.py); it is
pure and cheap, and says unknown for all else. `compare_many` sends what `compare` leaves open to sympy and math-verify
inside the sandbox, in two steps: each answer is parsed in a run of its own (parsing evaluates text, so a hostile answer
may claim anything about itself, but it never meets the other one), then a run that gets only the two parsed trees, as
data, decides. A run that fails, times out or is killed decides nothing: unknown.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

from actors.answers.values import MATH_WORDS, Judgement, Value, compare_values, read_value
from actors.execution import Executor
from pipeline.records import AnswerKind
from sandbox.api import Request

MAX_CHARS = 2_000
"""Longer answers are not read: unknown unless they are the same text."""

MAX_COMPLETION_CHARS = 20_000
"""How far from its end a completion is searched for its answer."""

CHOICES = frozenset({"even", "odd", "yes", "no", "true", "false", *"abcdefghij"})

_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_SAME_WORD = {"true": "yes", "false": "no"}
_MAY_BE_NUMBERS = re.compile(
    r"\b(?:none|nothing|nil|half|third|quarter|dozen|hundred|thousand|[mb]illion|infini\w+|\w+(?:teen|ty)|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b",
    re.IGNORECASE,
)


def extract_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` with balanced braces, or None."""
    text = text[-MAX_COMPLETION_CHARS:]
    for match in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))[-20:]):
        depth = 1
        for i in range(match.end(), len(text)):
            if text[i] in "{}" and text[i - 1] != "\\":
                depth += 1 if text[i] == "{" else -1
                if depth == 0:
                    return text[match.end() : i].strip()
    return None


def infer_kind(answer: str) -> AnswerKind:
    """The kind of an answer whose writer did not say: choice for even/odd, yes/no and single letters, else math; text
    for what is plainly prose."""
    if _choice(answer) in CHOICES:
        return "choice"
    words = re.findall(r"[A-Za-z]{2,}", answer)
    return "text" if len(words) >= 4 and "\\" not in answer else "math"


def compare(kind: AnswerKind, expected: str, given: str) -> Judgement:
    """The outcome as far as it can be told without evaluating anything."""
    a, b = (" ".join(_INVISIBLE.sub("", text).split()) for text in (expected, given))
    if a == b:
        return "equal" if a else "unknown"
    if not a or not b or max(len(a), len(b)) > MAX_CHARS:
        return "unknown"
    if kind == "code":
        return "unknown"  # programs are judged by their tests, see actors/answers/code.py
    x, y = read_value(a), read_value(b)
    if kind == "choice":
        return _compare_choices(a, b, x, y)
    if x is not None and y is not None:
        return compare_values(x, y)
    if kind == "text":
        return _compare_text(a, b)
    return _compare_words(a, b, x, y)


async def compare_many(pairs: Sequence[tuple[AnswerKind, str, str]], executor: Executor) -> list[Judgement]:
    """(kind, expected, given) -> outcome, in order; formulas are compared in the sandbox, each text parsed once."""
    outcomes = [compare(*pair) for pair in pairs]
    open_ = [i for i, (kind, a, b) in enumerate(pairs) if outcomes[i] == "unknown" and _is_formulas(kind, a, b)]
    texts = sorted({text.strip() for i in open_ for text in pairs[i][1:]})
    trees = dict(zip(texts, await asyncio.gather(*(_tree(text, executor) for text in texts)), strict=True))
    sides = {i: (trees[pairs[i][1].strip()], trees[pairs[i][2].strip()]) for i in open_}
    decided = await asyncio.gather(*(_decide(*side, executor) for side in sides.values()))
    for i, outcome in zip(sides, decided, strict=True):
        outcomes[i] = outcome
    return outcomes


_FORMULAS = (Path(__file__).parent / "formulas.py").read_text()


def _is_formulas(kind: AnswerKind, a: str, b: str) -> bool:
    """Worth a run: both sides are formulas, not prose, empty or beyond bounds. Two values need no run: where they are
    unknown, they can be read in two ways, which a parser would not notice."""
    formulas = all(text.strip() and len(text) <= MAX_CHARS and is_formula(text) for text in (a, b))
    return kind == "math" and formulas and (read_value(a) is None or read_value(b) is None)


def is_formula(text: str) -> bool:
    """No words in it but those of maths (a parser would take "about" for a product of five unknowns), and as many
    brackets opened as closed."""
    unpaired = re.sub(r"\\(?:left|right)\s*\\?.", "", text)
    if sum(map(unpaired.count, "([{")) != sum(map(unpaired.count, ")]}")):
        return False
    symbols = re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    words = re.findall(r"[A-Za-z]{3,}", symbols)
    return all(word.lower() in MATH_WORDS for word in words)


async def _tree(text: str, executor: Executor) -> str | None:
    result = await executor.run(Request(_FORMULAS, entry="parse", args=(text,)))
    return json.dumps(result.value) if result.ok and isinstance(result.value, list) else None


async def _decide(a: str | None, b: str | None, executor: Executor) -> Judgement:
    if a is None or b is None:
        return "unknown"
    result = await executor.run(Request(_FORMULAS, entry="decide", args=(json.loads(a), json.loads(b))))
    return result.value if result.ok and result.value in ("equal", "different") else "unknown"


# ---------------------------------------------------------------- choices and words


def _choice(text: str) -> str:
    """ "(B)", "b.", "Option B", "\\text{B}", "B) Paris" -> "b"."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"^(?:option|answer|choice)\b[\s:]*", "", text.strip(" $.*").lower())
    if lettered := re.match(r"\(?([a-j])[).:]\s", text):
        return lettered[1]
    return text.strip(" ()[]{}.:*!")


def _compare_choices(a: str, b: str, x: Value | None, y: Value | None) -> Judgement:
    """Letters and words that are choices are told apart. What stands behind a letter is not known here, and prose may
    say either, so these are unknown; a word like "even" is no number."""
    one, other = _choice(a), _choice(b)
    if one == other:
        return "equal" if one else "unknown"
    if one in CHOICES and other in CHOICES:
        return "equal" if _SAME_WORD.get(one, one) == _SAME_WORD.get(other, other) else "different"
    words = {word for word in (one, other) if word in CHOICES and len(word) > 1}
    return "different" if words and (x is not None or y is not None) else "unknown"


def _compare_text(a: str, b: str) -> Judgement:
    """Prose: equal if only case, punctuation and articles differ, different if no word is shared, else unknown. Signs
    count: "C" is not "C++"."""
    words_a, words_b = ([w for w in re.findall(r"\w+", t.casefold()) if w not in ("a", "an", "the")] for t in (a, b))
    if words_a == words_b:
        signs_a, signs_b = (re.findall(r"[^\w\s.,;:!?'\"()-]|(?<!\w)-|[.,](?=\d)", t) for t in (a, b))
        return "equal" if words_a and signs_a == signs_b else "unknown"
    return "unknown" if set(words_a) & set(words_b) else "different"


def _is_words(text: str) -> bool:
    """Prose rather than a formula: "even", "no solution"."""
    plain = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", text)
    if "\\" in plain or not re.fullmatch(r"[A-Za-z][A-Za-z' .-]*", plain.strip(" $.")):
        return False
    words = re.findall(r"[a-z]+", plain.lower())
    return len(words[0]) >= 2 and not set(words) & MATH_WORDS


def _compare_words(a: str, b: str, x: Value | None, y: Value | None) -> Judgement:
    """Answers that are not both values: a word against a value, or two words. A formula is left to the sandbox."""
    if {_choice(a), _choice(b)} <= CHOICES:
        return _compare_choices(a, b, x, y)
    words_a, words_b = _is_words(a), _is_words(b)
    if words_a and words_b:
        return "equal" if _choice(a) == _choice(b) else "unknown"
    if (words_a and y is not None) or (words_b and x is not None):
        return "unknown" if _MAY_BE_NUMBERS.search(a if words_a else b) else "different"
    return "unknown"
