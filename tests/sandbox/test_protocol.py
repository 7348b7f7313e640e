"""Whatever is asked and whatever a program says, there is one clear answer: no crash, no hang."""

from __future__ import annotations

import json
import typing

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import Request, Slot, Status, claims

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
    assert result.status in ("ok", "error", "memory_limit", "disk_limit")
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


def test_a_meaningless_order_costs_one_zygote_and_no_answer(slot: Slot) -> None:
    slot._zygote.orders.send(b"nonsense")
    results = [slot.run(Request("print(1)")) for _ in range(2)]
    assert results[1].stdout == "1\n" and results[0].status in ("ok", "infra")
