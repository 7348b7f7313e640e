"""Rows of other people's benchmarks -> rows of ours (question, answer, answer_kind, checks, category, steps).

Invariants: any JSON value can be given, and becomes a row or a `BadRow` that names the field; question and answer are
never empty; a row that says its `answer_kind` is ours, and is taken as it stands. Choices become part of the question,
in an order that depends on the seed and the question alone.

Known are the fields of GSM8K (`####`), MATH and its like (`problem`, `solution` with a `\\boxed` answer), MMLU,
MMLU-Pro and ARC (`options`, `choices`), GPQA (`Correct Answer`, `Incorrect Answer 1`), LiveCodeBench
(`question_content`, `public_test_cases`) and APPS (`input_output`).
"""

from __future__ import annotations

import base64
import json
import math
import pickletools
import re
import zlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, get_args

from actors.answers.replies import extract_boxed
from pipeline.records import AnswerKind

_QUESTION = ("question", "problem", "question_content", "problem_statement", "question_stem", "prompt", "query")
_ANSWER = ("answer", "final_answer", "correct_answer", "expected_answer", "answerkey", "target", "gold")
_SOLUTION = ("solution", "rationale", "explanation")
_WRONG = ("incorrect_answer", "wrong_answer", "distractor")
_OPTIONS = ("options", "choices")
_CATEGORY = ("category", "subject", "subdomain", "domain", "type")
_KINDS = get_args(AnswerKind)
_LETTERS = "ABCDEFGHIJ"
_BY_TESTS = "the program that passes the tests"
"""The answer of a problem that comes with tests and no program."""
_MAX_TESTS_BYTES = 256 << 20


class BadRow(ValueError):
    """Why a row is no problem; names the field."""


def question_of(given: Any) -> str:
    """The question of a row whose answer need not be there. Raises BadRow."""
    return _question(_named(given))


def _named(given: Any) -> dict[str, Any]:
    """Its fields, by names in one style."""
    if not isinstance(given, dict):
        raise BadRow(f"{type(given).__name__}, expected an object with question and answer")
    return {re.sub(r"[ -]+", "_", str(name).strip().lower()): value for name, value in given.items()}


def read_row(given: Any, seed: int) -> dict[str, Any]:
    """The row as ours. Raises BadRow."""
    row = _named(given)
    question = _question(row)
    if row.get("answer_kind") is not None:
        read = _own(row)
    elif (checks := _checks(row)) is not None:
        question, read = _with_starter(question, row), {"answer": _BY_TESTS, "answer_kind": "code", "checks": checks}
        if any(_has(row, name) for name in _ANSWER):
            read["answer"] = _text(row, _first(row, _ANSWER))
    elif (options := _options(row)) is not None:
        question, letter = _with_options(question, *options, seed)
        read = {"answer": letter, "answer_kind": "choice"}
    else:
        read = _answer(row)
    for name in _CATEGORY:
        if isinstance(row.get(name), str) and row[name].strip():
            read["category"] = row[name]
            break
    if "steps" in row:
        read["steps"] = row["steps"]
    return {"question": question, **read}


def _has(row: Mapping[str, Any], name: str) -> bool:
    return row.get(name) is not None


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first field of these that is there. Raises BadRow naming the one that we call it by."""
    for name in names:
        if _has(row, name):
            return name
    raise BadRow(f"no field {names[0]}; expected one of {', '.join(names)}")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _plain(value, name)


def _plain(value: Any, name: str) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise BadRow(f"{name} is {type(value).__name__}, expected text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"{name} is {value}, expected text or a number")
    text = str(value)
    if not text.strip():
        raise BadRow(f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{name} holds half of a surrogate pair") from None
    return text


def _question(row: Mapping[str, Any]) -> str:
    question = _text(row, _first(row, _QUESTION))
    context = [_plain(row[name], name) for name in ("context", "passage") if row.get(name)]
    return "\n\n".join([*context, question])


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["answer_kind"] not in _KINDS:
        raise BadRow(f"answer_kind {str(row['answer_kind'])[:40]!r}; expected one of {', '.join(_KINDS)}")
    read = {"answer": _text(row, _first(row, _ANSWER)), "answer_kind": row["answer_kind"]}
    return {**read, "checks": row["checks"]} if row.get("checks") else read


# ---------------------------------------------------------------- answers in words and formulas


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, out of the reasoning that it may stand at the end of."""
    given = next((name for name in _ANSWER if _has(row, name)), None)
    worked = next((name for name in _SOLUTION if isinstance(row.get(name), str)), None)
    if given is None and worked is None:
        raise BadRow(f"no field answer; expected one of {', '.join((*_ANSWER, *_SOLUTION))}")
    if given is not None:
        text = _text(row, given)
        boxed = extract_boxed(str(row[worked])) if worked else None
        if boxed and _is_damaged(text):
            return {"answer": boxed, "answer_kind": "math"}
        return _out_of(text, given) or {"answer": text}
    assert worked is not None
    text = _text(row, worked)
    found = _out_of(text, worked)
    if found is None and ("\n" in text.strip() or len(text) > 100):
        raise BadRow(rf"{worked} holds no \boxed answer and no ####; expected one of the two, or a field answer")
    return found or {"answer": text}


def _is_damaged(text: str) -> bool:
    """Copies of MATH went through readers that took \\frac for a form feed, or left \\le of \\left."""
    return bool(
        re.search(r"[\x00-\x09\x0b-\x1f]", text)
        or len(re.findall(r"\\left\b", text)) != len(re.findall(r"\\right\b", text))
        or text.replace("\\{", "").count("{") != text.replace("\\}", "").count("}")
    )


def _out_of(text: str, name: str) -> dict[str, Any] | None:
    """The answer at the end of worked text, which is one of mathematics; None where the text has no mark of it."""
    if "####" in text:
        answer = text.rpartition("####")[2].strip()
    elif re.search(r"\\f?boxed\s*\{", text):
        answer = extract_boxed(text) or ""
    else:
        return None
    return {"answer": _plain(answer, rf"what {name} marks as the answer"), "answer_kind": "math"}


# ---------------------------------------------------------------- choices

_BY_PLACE = re.compile(
    r"\b(?i:above|below|preceding|following)\b|\b(?i:both|neither|either)\b.*\b[A-J]\b"
    r"|\b[A-J](?:, [A-J])*,? (?:and|or|&) [A-J]\b|\b[A-J] only\b|\bonly [A-J]\b"
)
_LABEL = re.compile(r"\s*\(?([A-Za-z])[).:]\s+(?=\S)")


def _options(row: Mapping[str, Any]) -> tuple[list[str], int] | None:
    """(the choices, which of them is right); None where there are none."""
    if _has(row, "correct_answer") and (wrong := [row[n] for n in sorted(row) if n.startswith(_WRONG)]):
        if len(wrong) == 1 and isinstance(wrong[0], list):
            wrong = wrong[0]
        options = [_plain(o, "an answer").strip() for o in (row["correct_answer"], *wrong) if o not in (None, "")]
        return _bounded(options), 0
    name = next((n for n in _OPTIONS if row.get(n)), None)
    if name is None:
        return None
    given, labels = row[name], list(_LETTERS)
    if isinstance(given, dict) and isinstance(given.get("text"), list):
        labels = [str(label) for label in given.get("label") or labels]
        given = given["text"]
    elif isinstance(given, dict):
        labels, given = [str(label) for label in given], list(given.values())
    if not isinstance(given, list):
        raise BadRow(f"{name} is {type(given).__name__}, expected a list")
    if len(given) == 1:  # the answer again, and nothing to choose
        return None
    options = _bounded([_plain(option, f"one of {name}").strip() for option in given])
    if all((m := _LABEL.match(o)) and m[1].upper() == letter for o, letter in zip(options, _LETTERS, strict=False)):
        options = [_LABEL.sub("", option, count=1) for option in options]
    return options, _right(row, options, labels)


def _bounded(options: list[str]) -> list[str]:
    if not 2 <= len(options) <= len(_LETTERS):
        raise BadRow(f"{len(options)} choices; expected 2 to {len(_LETTERS)}")
    return options


def _right(row: Mapping[str, Any], options: list[str], labels: list[str]) -> int:
    """Which option is right: said by number, by its text, or by its label."""
    number = row.get("answer_index", row.get("correct_index"))
    if number is None:
        name = _first(row, (*_ANSWER, "label"))
        number = row[name]
        if isinstance(number, str):
            text = number.strip()
            if options.count(text) == 1:
                return options.index(text)
            bare = text.strip("().: ")
            for wanted in (bare, bare.upper()):
                if wanted in labels[: len(options)]:
                    return labels.index(wanted)
            raise BadRow(f"{name} is {text[:40]!r}, expected one of the {len(options)} choices, or its letter")
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(options):
        return number
    raise BadRow(f"the right choice is {str(number)[:40]!r}, expected a number from 0 to {len(options) - 1}")


def _with_options(question: str, options: list[str], right: int, seed: int) -> tuple[str, str]:
    """(the question with its choices, the letter of the right one)."""
    order = list(range(len(options)))
    if not any(_BY_PLACE.search(option) for option in options):  # "both A and B", "none of the above"
        Random(f"{seed} {question}").shuffle(order)
    listed = "\n".join(f"{_LETTERS[place]}. {options[i]}" for place, i in enumerate(order))
    return f"{question.rstrip()}\n{listed}", _LETTERS[order.index(right)]


# ---------------------------------------------------------------- tests of programs


def _checks(row: Mapping[str, Any]) -> list[Any] | None:
    """The tests of a program, as checks (actors/answers/code.py); None where there are none."""
    if "checks" in row:
        checks = row["checks"]
        if not isinstance(checks, list) or not checks:
            raise BadRow(f"checks {_short(checks)}; expected a list of objects, the tests of a program")
        return checks
    if row.get("input_output"):
        both = _json(row["input_output"], "input_output")
        inputs, outputs = (both.get(k) for k in ("inputs", "outputs")) if isinstance(both, dict) else (None, None)
        if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs) > 0):
            raise BadRow("input_output: expected inputs and outputs, as many of the one as of the other")
        entry = both.get("fn_name")
        return [_check("input_output", i, o, entry) for i, o in zip(inputs, outputs, strict=True)]
    names = [n for n in ("public_test_cases", "private_test_cases", "test_cases") if row.get(n)]
    if not names:
        return None
    metadata = _json(row["metadata"], "metadata") if row.get("metadata") else {}
    entry = metadata.get("func_name") if isinstance(metadata, dict) else None
    checks = []
    for name in names:
        cases = _cases(row[name], name)
        for case in cases:
            if not isinstance(case, dict) or "input" not in case or "output" not in case:
                raise BadRow(f"{name}: {_short(case)}; expected objects with input and output")
            functional = case.get("testtype") == "functional" or (entry and "testtype" not in case)
            if functional and not entry:
                raise BadRow(f"{name}: a functional test, and metadata.func_name names no function")
            checks.append(_check(name, case["input"], case["output"], entry if functional else None))
    return checks or None


def _cases(value: Any, name: str) -> list[Any]:
    """A list, as JSON or as LiveCodeBench packs its private ones: JSON, pickled, compressed, in base64."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = _unpacked(value, name)
    cases = _json(value, name)
    if not isinstance(cases, list):
        raise BadRow(f"{name} is {type(cases).__name__}, expected a list")
    return cases


def _unpacked(text: str, name: str) -> str:
    """The string in a pickle, found among its operations: unpickling would run what the file says."""
    try:
        packed = zlib.decompressobj()
        pickled = packed.decompress(base64.b64decode(text, validate=True), _MAX_TESTS_BYTES)
        (found,) = [arg for op, arg, _ in pickletools.genops(pickled) if "UNICODE" in op.name and isinstance(arg, str)]
    except (ValueError, zlib.error):
        raise BadRow(f"{name}: neither JSON nor packed JSON") from None
    return found


def _json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow(f"{name}: {_short(value)} is not JSON") from None


def _check(name: str, given: Any, expected: Any, entry: Any) -> dict[str, Any]:
    """One test: a call, whose arguments stand on a line each, or a run of a script."""
    if entry is None:
        given, expected = ("\n".join(map(str, v)) if isinstance(v, list) else v for v in (given, expected))
        return {"stdin": _io(given, name), "stdout": _io(expected, name)}
    if isinstance(given, str):
        given = [_json(line, name) for line in given.split("\n") if line.strip()]
    if not isinstance(given, list):
        raise BadRow(f"{name}: input {_short(given)}; expected the arguments, each as JSON on a line of its own")
    return {"entry": entry, "args": given, "expected": _json(expected, name)}


def _io(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name}: {_short(value)}; expected text")
    return value


def _short(value: Any) -> str:
    return repr(value)[:60]


def _with_starter(question: str, row: Mapping[str, Any]) -> str:
    starter = row.get("starter_code")
    if not isinstance(starter, str) or not starter.strip():
        return question
    return f"{question.rstrip()}\n\nBegin with this code:\n```python\n{starter.rstrip()}\n```"
