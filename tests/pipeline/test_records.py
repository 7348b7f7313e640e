"""Every record survives Arrow and Parquet, for whatever values its annotations allow."""

import hashlib
import subprocess
import sys
import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pipeline import records
from pipeline.records import Episode, Problem, Rollout, Skill, ToolResult, Turn, Verdict

RECORDS = sorted(
    (
        r
        for r in vars(records).values()
        if isinstance(r, type) and issubclass(r, records.Record) and r is not records.Record
    ),
    key=lambda r: r.__name__,
)
TEXT = st.text(max_size=12)
WIDTHS = {pa.int8(): (-(2**7), 2**7 - 1), pa.int32(): (-(2**31), 2**31 - 1)}


def values(annotation, explicit=()):
    """Values of an annotation, read from the annotation itself rather than from the code under test."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if a is type(None) else values(a) for a in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return instances(annotation)
    if annotation is int:
        low, high = next((WIDTHS[m] for m in explicit if m in WIDTHS), (-(2**63), 2**63 - 1))
        return st.integers(low, high)
    if annotation is float:
        return st.floats(allow_nan=False, width=32 if pa.float32() in explicit else 64)
    return {str: TEXT, bool: st.booleans()}[annotation]


def instances(record):
    return st.builds(record, **{n: values(f.annotation, tuple(f.metadata)) for n, f in record.model_fields.items()})


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_arrow_gives_back_what_it_took(record, data):
    originals = data.draw(st.lists(instances(record), max_size=3))
    batch = record.to_arrow(originals)
    assert batch.schema == record.schema_arrow()
    assert record.from_arrow(batch) == originals


@pytest.mark.parametrize("record", [Episode, Rollout, Verdict], ids=lambda r: r.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_parquet_gives_back_what_it_took(record, data):
    originals = data.draw(st.lists(instances(record), min_size=1, max_size=3))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([record.to_arrow(originals)]), sink)
    table = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert record.from_arrow(table) == originals


def test_token_columns_are_as_narrow_as_they_are_meant_to_be():
    """The trainer reads these columns without conversion; 64-bit ones would double the traffic."""
    expected = {
        "token_ids": pa.list_(pa.int32()),
        "loss_mask": pa.list_(pa.int8()),
        "logprobs": pa.list_(pa.float32()),
        "versions": pa.list_(pa.int32()),
        "action_index": pa.list_(pa.int32()),
        "action_stage": pa.list_(pa.int8()),
        "action_kind": pa.list_(pa.int8()),
        "process_rewards": pa.list_(pa.float32()),
        "terminal_reward": pa.float32(),
    }
    schema = Rollout.schema_arrow()
    assert {name: schema.field(name).type for name in expected} == expected


def test_only_optional_fields_are_nullable():
    for record in RECORDS:
        for field in record.schema_arrow():
            optional = type(None) in get_args(record.model_fields[field.name].annotation)
            assert field.nullable == optional, f"{record.__name__}.{field.name}"


def test_a_token_that_does_not_fit_is_refused_not_wrapped():
    facts = {"episode_id": "e", "attempt": 0, "group_id": "g", "terminal_reward": 0.0}
    arrays = {n: (0,) for n, f in Rollout.model_fields.items() if get_origin(f.annotation) is tuple}
    with pytest.raises((pa.ArrowInvalid, OverflowError)):
        Rollout.to_arrow([Rollout(**facts, **arrays | {"token_ids": (2**31,)})])


def test_records_are_frozen_and_strict():
    problem = Problem.make("How many?", "3")
    with pytest.raises(ValidationError):
        problem.answer = "4"
    with pytest.raises(ValidationError, match="extra"):
        Problem(id="x", question="q", answer="a", answer_kind="math", note="?")
    with pytest.raises(ValidationError):
        Problem(id="x", question="q", answer="a", answer_kind="essay")


def test_episodes_of_a_run_from_before_tool_results_had_active_are_read(tmp_path):
    result = ToolResult(tool="edit", status="ok", content="Skills: add")
    turn = Turn(stage="refine", action="edit", start=0, end=1, text="drop", tool=result)
    row = turn.model_dump()
    del row["tool"]["active"]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "turns.parquet")
    assert Turn.from_arrow(pq.read_table(tmp_path / "turns.parquet")) == [turn]


def test_rows_that_are_no_such_record_are_refused():
    batch = pa.RecordBatch.from_pylist([{"id": "x", "category": "maths"}])
    with pytest.raises(ValidationError):
        Skill.from_arrow(batch)


@given(st.text(alphabet="ab \n\t", min_size=1), st.text(alphabet="ab \n\t", min_size=1))
def test_equal_ids_are_equal_questions_up_to_space_and_case(a, b):
    same = a.lower().split() == b.upper().lower().split()
    assert (Problem.make(a, "1").id == Problem.make(b.upper(), "2").id) == same


def test_the_id_is_stable_across_processes():
    assert Problem.make(" How  Many? ", "3").id == hashlib.sha256(b"how many?").hexdigest()[:16]


def test_the_vocabulary_loads_without_the_heavy_stack():
    program = (
        "import sys, pipeline.records, pipeline.config, pipeline.store.rundir; "
        "print([m for m in ('torch', 'ray', 'vllm', 'transformers', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
