"""Whatever is asked and whatever a program says, there is one clear answer: no crash, no hang."""

from __future__ import annotations

import json
import os
import socket
import typing
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import Limits, Request, Slot, Status, claims
from sandbox.api import CLAIMED

from .conftest import QUICK

STATUSES = set(typing.get_args(Status))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@quick
@given(code=st.text(max_size=60), stdin=st.text(max_size=60), value=st.none() | st.sampled_from("xyz"))
def test_any_text_may_be_run(slot: Slot, code: str, stdin: str, value: str | None) -> None:
    result = slot.run(Request(code, stdin=stdin, value=value, limits=QUICK))
    assert result.status in STATUSES - {"infra"} and "\n" not in result.reason


@quick
@given(report=st.binary(max_size=300) | plain.map(lambda v: json.dumps(v).encode()), ending=st.integers(0, 3))
def test_any_report_is_read_or_refused(slot: Slot, report: bytes, ending: int) -> None:
    code = f"import os\nos.write(3, {report!r})\nos._exit({ending})"
    result = slot.run(Request(code, value="x", limits=QUICK))
    assert result.status in ("ok", "error", *CLAIMED)
    assert (result.status == "ok") <= (ending == 0)


@quick
@given(value=plain)
def test_plain_values_go_in_and_come_out_the_same(slot: Slot, value: object) -> None:
    result = slot.run(Request("def f(x): return x", entry="f", args=(value,), limits=QUICK))
    assert result.status == "ok" and claims.same(result.value, value)


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eE-+\\ntfu').map(str.encode))
def test_claims_are_plain_or_refused(data: bytes) -> None:
    try:
        value = claims.read(data)
    except ValueError:
        return
    assert claims.same(json.loads(json.dumps(value, allow_nan=False)), value)


@settings(max_examples=300, deadline=None)
@given(a=plain, b=plain)
def test_sameness_is_symmetric_and_agrees_with_json(a: object, b: object) -> None:
    assert claims.same(a, a) and claims.same(a, b) == claims.same(b, a)
    if json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True):
        assert claims.same(a, b)


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(st.text("ab \t\x0b\x0c\x1c\x1d\x85\u2028\u2029\xa0\u3000", max_size=6), max_size=4))
def test_texts_are_the_same_if_their_lines_are(lines: list[str]) -> None:
    """An oracle of its own: blanks cut off by a regular expression, nothing split but at newlines."""
    text = "\n".join(lines)
    assert claims.same_text(text, text.replace("\n", " \t\r\n") + "\n \n")
    for n, one in enumerate(text):
        if one not in "ab\n \t":
            for other in ("\n", " ", "b"):
                bent = text[:n] + other + text[n + 1 :]
                assert not claims.same_text(text, bent) and not claims.same_text(bent, text)


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_a_newline_ends_a_line(odd: str) -> None:
    assert not claims.same_text(f"1{odd}2", "1\n2") and not claims.same_text(f"1{odd}", "1")
    assert claims.same_text(f"1{odd}2 \r\n", f"1{odd}2") and not claims.same_text("1\r2", "1\n2")


@pytest.mark.timeout(20)
def test_no_word_of_a_program_is_compared_for_minutes() -> None:
    """One of a megabyte took quarter of a minute where each digit could be matched in two ways."""
    for word in ("1" * 3_000_000 + "x", "1." + "2" * 3_000_000 + "x", "." + "3" * 3_000_000 + "e", "+" * 3_000_000):
        assert not claims.same_text(word, "0.5", tolerance=1e-6)


def test_any_blanks_between_words_are_the_same_with_a_tolerance() -> None:
    for text in ("1.0\t2.0", "1.0 \t 2.0", "1.0\r2.0"):
        assert claims.same_text(text, "1.0 2.0", tolerance=1e-9) and not claims.same_text(text, "1.0 2.0")
    assert not claims.same_text("1.0\x0b2.0", "1.0 2.0", tolerance=1e-9)
    assert not claims.same_text("1.02.0", "1.0 2.0", tolerance=1e-9)


@pytest.mark.parametrize(
    ("given", "expected"), [("1.50", "1.5"), ("1e3", "1000.0"), (".5", "0.5"), ("5.", "5.0"), ("+2", "2.0")]
)
def test_every_spelling_of_a_number_is_still_one(given: str, expected: str) -> None:
    assert claims.same_text(given, expected, tolerance=1e-9)
    assert not claims.same_text(f"{given}x", expected, tolerance=1e-9)


@pytest.mark.parametrize(
    ("digits", "many", "read"), [(99_000, 1, True), (60_000, 2, False), (4_300, 50, True), (4_400, 40, False)]
)
def test_long_integers_have_a_bound_together(digits: int, many: int, read: bool) -> None:
    """Each takes time that grows with the square of its digits, of the process that reads it."""
    text = ("[" + ",".join(["9" * digits] * many) + "]").encode()
    if read:
        assert len(claims.read(text)) == many
    else:
        with pytest.raises(ValueError, match="too many digits"):
            claims.read(text)


@pytest.mark.parametrize("odd", ['"\\ud800"', '["a", "\\udfff"]', '{"\\ud83d": 1}', '{"a": {"b": ["\\ude00\\ud83d"]}}'])
def test_text_that_is_no_unicode_is_refused_wherever_it_is(odd: str) -> None:
    with pytest.raises(ValueError):
        claims.read(odd.encode())
    assert claims.read(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


def test_a_meaningless_order_costs_one_zygote_and_no_answer(slot: Slot) -> None:
    slot._zygote.orders.send(b"nonsense")
    results = [slot.run(Request("print(1)")) for _ in range(2)]
    assert results[1].stdout == "1\n" and results[0].status in ("ok", "infra")


@pytest.fixture(scope="module")
def bare() -> Iterator[Slot]:
    """Its zygotes start quickly, and may be broken."""
    with Slot(limits=QUICK, packages=()) as slot:
        yield slot


ORDER = {"limits": asdict(Limits()), "lifetime_s": 5.0, "session": False, "language": "python", "stage": None}
nearly = st.fixed_dictionaries({}, optional={key: st.just(right) | plain for key, right in ORDER.items()})
orders = st.binary(max_size=100) | (plain | nearly).map(lambda order: json.dumps(order).encode())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=orders, given=st.lists(st.sampled_from(["null", "socket"]), max_size=8))
def test_any_order_costs_one_zygote_at_most(bare: Slot, order: bytes, given: list[str]) -> None:
    bare.run(Request(""))
    before = bare.restarts
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, its, open(os.devnull) as null:
        fds = [{"null": null, "socket": its}[name].fileno() for name in given]
        socket.send_fds(bare._zygote.orders, [order], fds)
        results = [bare.run(Request("print(1)")) for _ in range(2)]
    assert results[1].stdout == "1\n" and results[0].status in ("ok", "infra")
    assert bare.restarts <= before + 1


text_or_not = st.sampled_from(["x = 1", "x += 1", "while True: pass", "1/0"]) | st.text(max_size=20) | plain


@quick
@given(code=text_or_not, value=st.none() | st.just("x") | plain, cells=st.lists(text_or_not, max_size=3) | plain)
def test_any_cell_runs_or_is_refused(slot: Slot, code: object, value: object, cells: object) -> None:
    try:
        with slot.session(cells=cells) as session:  # type: ignore[arg-type]
            result = session.run(code, value)  # type: ignore[arg-type]
    except ValueError as e:
        assert str(e).startswith(("request", "session.cells: "))
        return
    assert result.status in STATUSES and "\n" not in result.reason
