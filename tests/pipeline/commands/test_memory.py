"""The plan of memory: what is summed for whom, and what there is no room for. Its figures are held against autograd in
tests/trainers/test_footprint.py, and against a real model's process in tests/realmodel/test_memory.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands import memory
from pipeline.commands.keys import MEMORY_KEYS
from pipeline.config import LoRAConfig
from pipeline.config.loading import load
from pipeline.store.run_stages import RUN_STAGES
from tests.pipeline.test_cli import propose
from trainers.footprint import Settings, Shape, footprint

ALL = list(RUN_STAGES)
QWEN3_4B = {
    "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 2560, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728,
    "tie_word_embeddings": True,
}  # fmt: skip
PLAIN = Settings(
    dtype="bfloat16", zero_stage=3, workers=2, tokens=20_480, checkpointing=None, reference="whole", offload=None,
    use_gpu=True,
)  # fmt: skip
GB = 1e9


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The `config.json` of a 4B model, without weights."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(QWEN3_4B))
    return tmp_path / "large"


def test_a_trainer_at_full_size():
    """By hand: 2 bytes of weight, 4 of gradient, 4 of master weight, 8 of moments a parameter; of activations, the
    input of each layer, and one layer whole."""
    shape = Shape.of(QWEN3_4B)
    assert shape is not None and shape.parameters == 4_022_468_096
    n, need = shape.parameters, footprint(shape, PLAIN)
    assert need.held == pytest.approx(n * 18 / 2 + 2 * n)
    assert 20_480 * 36 * 2560 * 2 < need.activations < 20_480 * 41 * 2560 * 2 and need.layer < 20_480 * 300_000 + 2 * GB
    kept = footprint(shape, replace(PLAIN, checkpointing=False))
    assert 125 * GB < kept.activations < 140 * GB  # what an 80 GB GPU does not hold
    assert need.logits < 3.5 * GB < 20_480 * shape.words * 4 / 3
    alone = footprint(shape, replace(PLAIN, zero_stage=0, workers=1, reference=None))
    assert alone.held == pytest.approx(n * 16)


def test_a_reference_is_whole_shared_out_or_elsewhere_and_so_is_what_is_offloaded():
    shape = Shape.of(QWEN3_4B)
    assert shape is not None
    whole, sharded, away = (
        footprint(shape, replace(PLAIN, reference=kind)) for kind in ("whole", "sharded", "offloaded")
    )
    assert (whole.reference, sharded.reference) == (2 * shape.parameters, shape.parameters)
    assert (away.reference, away.host, whole.host) == (0, 2 * shape.parameters, 0)
    optimizer, both = (footprint(shape, replace(PLAIN, offload=kind)) for kind in ("optimizer", "parameters"))
    assert optimizer.optimizer == both.optimizer == 0 and optimizer.parameters > both.parameters == 0
    assert whole.held == pytest.approx(optimizer.held + optimizer.host) == pytest.approx(both.held + both.host)


def test_an_adapter_has_little_of_what_weights_have_and_no_reference():
    """By hand: rank 16 on the seven layers of each block; 2 bytes of weight, 4 of gradient, 12 of the optimizer."""
    shape = Shape.of(QWEN3_4B)
    assert shape is not None
    sums = (2560 + 4096) * 2 + (2560 + 1024) * 2 + (2560 + 9728) * 3
    lora = LoRAConfig(rank=16)
    n, few = shape.parameters, shape.adapter(lora)
    assert few == 36 * 16 * sums == 33_030_144
    need = footprint(shape, replace(PLAIN, reference=None, lora=lora))
    assert need.held == pytest.approx((n + few) * 2 / 2 + few * 16 / 2)
    alone = footprint(shape, replace(PLAIN, zero_stage=0, workers=1, reference=None, lora=lora))
    assert alone.held == pytest.approx((n + few) * 2 + few * 14) and alone.peak < 24 * GB  # a GPU of 24 GB
    half = footprint(shape, replace(PLAIN, reference=None, lora=LoRAConfig(targets=("q_proj", "v_proj"))))
    assert half.optimizer == pytest.approx(36 * 16 * (2560 + 4096 + 2560 + 1024) * 12 / 2)
    assert shape.adapted(LoRAConfig(targets=("qkv_proj",))) is None


def test_a_plan_of_an_adapter_follows_the_config(large: Path) -> None:
    given_ = [f"solve.base.path={large}", "solve.objective.kl=0.1", "trainer.dtype=bfloat16"]
    found = {}
    for lora in ("null", "{}", "{targets: [q_proj]}", "{targets: [qkv_proj]}"):
        config = load(None, [*given_, f"trainer.lora={lora}"])
        up = memory.processes(config, ["solve"], None)["solve"]
        found[lora] = next((p.parts for p in up if p.name == "training solve.base"), None)
    whole, every, one, unknown = found.values()
    assert unknown is None  # left out, never guessed
    assert whole["reference"] > 0 == every["reference"] and whole["gradients"] > 100 * every["gradients"] > 0
    assert every["optimizer"] > 5 * one["optimizer"] > 0 and whole["parameters"] < every["parameters"]


@given(st.integers(1, 64), st.sampled_from(["whole", "sharded", None]), st.sampled_from(["float32", "bfloat16"]))
def test_sharing_more_never_holds_more(workers, reference, dtype):
    shape = Shape.of(QWEN3_4B)
    assert shape is not None
    given_ = replace(PLAIN, workers=workers, reference=reference, dtype=dtype)
    held = [footprint(shape, replace(given_, zero_stage=stage)).held for stage in (1, 2, 3)]
    assert workers == 1 or held == sorted(held, reverse=True)
    assert footprint(shape, replace(given_, workers=workers + 1)).held <= held[-1]
    again, kept = (footprint(shape, replace(given_, checkpointing=on)).activations for on in (True, False))
    assert again < kept


def test_what_needs_more_than_there_is_is_told():
    config = load(None, ["trainer.use_gpu=true"])
    ok = list(memory.checks(config, ALL, 80 << 30, 80 << 30))
    assert {c.status for c in ok} == {"ok"} and any("training solve.base takes" in c.found for c in ok)
    little = [c for c in memory.checks(config, ALL, 1 << 20, 80 << 30) if c.status == "fail"]
    assert "a GPU here has 0 GB" in little[0].todo
    (host,) = [c for c in memory.checks(load(), ALL, None, 1 << 30) if c.status == "fail"]
    assert "of this machine's memory" in host.found and "1.1 GB are free" in host.todo
    assert not [c for c in memory.checks(load(), ALL, None, None) if c.status == "fail"]  # a cluster's
    served = load(None, ["proposer.pool.num_gpus=1"])
    (engine,) = [c for c in memory.checks(served, ALL, 1 << 20, 80 << 30) if "weights on each GPU" in c.found]
    assert engine.found.startswith("proposer: ") and "proposer.engine.tensor_parallel_size" in engine.todo


def test_activations_count_where_there_is_no_room_for_them(large: Path) -> None:
    """A 4B model on two GPUs of 80 GB: with activations computed again it fits, else not."""
    given_ = [
        "trainer.use_gpu=true", f"solve.base.path={large}", "solve.base.pool.num_gpus=1", "trainer.workers=2",
        "trainer.zero_stage=3", "trainer.dtype=bfloat16", "trainer.micro_batch_tokens=20480",
    ]  # fmt: skip
    for setting, status in (("null", "ok"), ("true", "ok"), ("false", "fail")):
        config = load(None, [*given_, f"trainer.activation_checkpointing={setting}"])
        found = [c for c in memory.checks(config, ["solve"], 80 << 30, None) if c.found.startswith("training solve")]
        assert [c.status for c in found] == [status], (setting, found)


def test_the_plan_names_every_process_of_every_stage(capsys, large: Path) -> None:
    sets = ["trainer.workers=2", "trainer.zero_stage=1", f"solve.base.path={large}"]
    code, out, _ = propose(capsys, "plan", "memory", "--json", *(word for s in sets for word in ("--set", s)))
    found = json.loads(out)
    assert list(found) == list(MEMORY_KEYS) and list(found["stages"]) == ALL
    mgpo = {row["process"]: row for row in found["stages"]["mgpo"]}
    assert list(mgpo) == ["training proposer", "prober.ladder.0", "proposer"]
    rank = mgpo["training proposer"]
    assert rank["count"] == 2 and rank["where"] == "memory"
    assert rank["gb"]["reference"] > 0 == found["stages"]["sft"][0]["gb"]["reference"]
    cache = load().proposer.engine.kv_cache_gb * 2**30 / GB
    assert mgpo["proposer"]["gb"]["kv_cache"] == pytest.approx(cache, abs=1e-3)
    assert mgpo["proposer"]["tokens"]["kv_cache"] > 0
    (solver,) = [row for row in found["stages"]["solve"] if row["process"] == "training solve.base"]
    assert solver["peak_gb"] > 4.02 * 4  # float32 weights alone
    assert found["unknown"] == ["solve.base"]  # its weights are not there
    text = propose(capsys, "plan", "memory", *(word for s in sets for word in ("--set", s)))[1]
    assert "2 x training proposer, memory" in text and "rows of" in text
    assert code == (2 if found["refused"] else 0)
